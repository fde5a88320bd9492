"""Environments in the cache: built once, named by what they are made of, and what is said when that fails."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest

from jettison.core.environments import Blueprint, cache_folder, is_ready, make_environment, python_of
from jettison.core.errors import ExternalError

INSTALLS = (("one==1.0", "two==2.0"), ("--no-deps", "three==3.0"))


def fake_python(folder: Path) -> Path:
    """A program that makes a 'virtual environment' of itself, takes pip's words and writes down its calls."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(
        f"""#!/bin/sh
echo "$@" >> {folder}/calls
if [ -f "{folder}/fail-$2" ]; then cat "{folder}/fail-$2" >&2; exit 1; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""
    )
    path.chmod(0o755)
    return path


def blueprint(python: Path, **changes: object) -> Blueprint:
    made = Blueprint(name="tool", python=python, version="3.12", installs=INSTALLS, size="5 MB")
    return dataclasses.replace(made, **changes)


def calls(python: Path, word: str) -> list[str]:
    return [line for line in (python.parent / "calls").read_text().splitlines() if word in line]


def nothing(_: str) -> None:
    return None


def test_cache_folder_honours_its_variables_in_order() -> None:
    home = Path("/home/u")
    assert cache_folder({}, home) == Path("/home/u/.cache/jettison")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}, home) == Path("/x/jettison")
    assert cache_folder({"XDG_CACHE_HOME": "/x", "JETTISON_CACHE": "/j"}, home) == Path("/j")


def test_an_environment_is_built_once_and_says_what_it_does(tmp_path: Path) -> None:
    python, told = fake_python(tmp_path / "own"), []
    folder = make_environment(tmp_path / "cache", blueprint(python), progress=told.append)
    assert make_environment(tmp_path / "cache", blueprint(python), progress=told.append) == folder
    assert told == [
        "making a virtual environment with Python 3.12",
        "installing one==1.0 two==2.0",
        "installing three==3.0",
    ]
    assert is_ready(folder)
    assert json.loads((folder / "ready.json").read_text())["installs"] == [list(one) for one in INSTALLS]
    assert [line.rpartition(":all: ")[2] for line in calls(python, "pip install")] == [
        "one==1.0 two==2.0", "--no-deps three==3.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{"installs": (("one==1.1",),)}, {"version": "3.13"}, {"python": Path("/elsewhere/python")}]
)
def test_whatever_it_is_made_of_is_in_its_name(tmp_path: Path, changes: dict[str, object]) -> None:
    plain = blueprint(Path("/own/python"))
    assert dataclasses.replace(plain, size="6 MB").folder(tmp_path) == plain.folder(tmp_path)
    changed = dataclasses.replace(plain, **changes).folder(tmp_path)
    assert changed != plain.folder(tmp_path)
    assert changed.name.startswith("tool-")


def test_a_half_built_environment_is_built_again(tmp_path: Path) -> None:
    made, told = blueprint(fake_python(tmp_path / "own")), []
    folder = made.folder(tmp_path / "cache")
    folder.mkdir(parents=True)
    (folder / "stale").write_text("")
    make_environment(tmp_path / "cache", made, progress=told.append)
    assert told[0] == "removing a half-built tool environment"
    assert is_ready(folder)
    assert not (folder / "stale").exists()


def test_an_environment_whose_python_was_removed_is_not_ready(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / "cache", blueprint(fake_python(tmp_path / "own")), progress=nothing)
    python_of(folder).unlink()
    python_of(folder).symlink_to(tmp_path / "gone")
    assert not is_ready(folder)


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "own")
    arguments = (tmp_path / "cache", blueprint(python))
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=make_environment, args=arguments, kwargs={"progress": nothing})
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(calls(python, "-m venv")) == 1


@pytest.mark.parametrize(
    ("step", "words", "what", "advice"),
    [
        ("pip", "ERROR: No matching distribution found for two==2.0", "installing two==2.0 into the tool env",
         "Check that the package index is reachable"),
        ("pip", "ERROR: [Errno 28] No space left on device", "installing two==2.0", "it takes about 5 MB"),
        ("venv", "ensurepip is not available", "making the tool environment", "such as python3-venv"),
        ("pip", "something new", "installing two==2.0", "Check the network and pip's settings"),
    ],
)  # fmt: skip
def test_pip_s_own_words_are_told_and_nothing_counts_as_ready(
    tmp_path: Path, step: str, words: str, what: str, advice: str
) -> None:
    made = blueprint(fake_python(tmp_path / "own"))
    (tmp_path / "own" / f"fail-{step}").write_text(words)
    with pytest.raises(ExternalError) as caught:
        make_environment(tmp_path / "cache", made, progress=nothing)
    assert caught.value.what.startswith(what)
    assert caught.value.detail == words
    assert advice in caught.value.fix
    assert not is_ready(made.folder(tmp_path / "cache"))
