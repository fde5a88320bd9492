"""The runtime: which Python it takes, how it is built once, and what it says when it cannot be."""

from __future__ import annotations

import multiprocessing
import platform
import stat
import sys
from pathlib import Path

import pytest

from jettison.core.errors import ExternalError, MissingError
from jettison.triton import runtime
from jettison.triton.interpreters import SERVER, Interpreter, find_interpreter
from jettison.triton.runtime import is_ready, make_runtime, runtime_folder


def fake_python(
    path: Path, *, version: str = "3.12", library: str | None = "/lib/libpython3.12.so.1.0"
) -> Path:
    """A program that answers the probe, makes a 'virtual environment' of itself and takes pip's words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    quoted = "null" if library is None else f'"{library}"'
    path.write_text(
        f"""#!/bin/sh
echo "$@" >> {path.parent}/calls
case "$*" in
  *"-I -c"*) echo '{{"version": "{version}", "library": {quoted}}}' ;;
  *"-m venv"*) for last in "$@"; do :; done
    server="$last/lib/python{version}/site-packages/pytriton/tritonserver"
    mkdir -p "$last/bin" "$server/bin" "$server/backends/python" "$server/python_backend_stubs/{version}"
    touch "$server/backends/python/libtriton_python.so" "$server/python_backend_stubs/{version}/stub"
    cp "$0" "$last/bin/python" ;;
  *FAIL*) exit 1 ;;
esac
if [ -f {path.parent}/fail ] && [ "$2" = pip ]; then cat {path.parent}/fail >&2; exit 1; fi
exit 0
"""
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls(python: Path, word: str) -> list[str]:
    return [line for line in (python.parent / "calls").read_text().splitlines() if word in line]


def nothing(_: str) -> None:
    return None


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_the_running_python_is_taken_first(tmp_path: Path) -> None:
    own = fake_python(tmp_path / "own" / "python", version="3.11", library="/opt/lib/libpython3.11.so.1.0")
    found = find_interpreter(own, which=lambda _: None)
    assert found == Interpreter(own, "3.11", Path("/opt/lib"))
    assert found.requirements == ("numpy==1.26.4", "onnxruntime==1.32.0")


@pytest.mark.parametrize(("version", "library"), [("3.14", "/lib/libpython3.14.so.1.0"), ("3.12", None)])
def test_a_python_that_cannot_be_embedded_gives_way_to_one_on_the_path(
    tmp_path: Path, version: str, library: str | None
) -> None:
    own = fake_python(tmp_path / "own" / "python", version=version, library=library)
    other = fake_python(tmp_path / "other" / "python", version="3.10", library="libpython3.10.so.1.0")
    found = find_interpreter(own, which=lambda name: str(other) if name == "python3.10" else None)
    assert found == Interpreter(other, "3.10", None), "a library that the loader finds needs no folder"


def test_python_3_13_needs_no_library_of_its_own_since_the_wheel_has_one(tmp_path: Path) -> None:
    own = fake_python(tmp_path / "python", version="3.13", library=None)
    assert find_interpreter(own, which=lambda _: None).requirements[0].startswith("numpy==2.")


def test_no_usable_python_at_all_is_told_with_each_reason(tmp_path: Path) -> None:
    own = fake_python(tmp_path / "own" / "python", version="3.14", library=None)
    old = fake_python(tmp_path / "old" / "python", version="3.12", library=None)
    paths = {"python3.12": str(old), "python3.11": str(tmp_path / "absent")}
    with pytest.raises(MissingError) as caught:
        find_interpreter(own, which=paths.get)
    for reason in ("not built for Python 3.14", "it has no libpython3.12.so", "absent: it does not run"):
        assert reason in str(caught.value)
    assert "uv python install 3.12" in caught.value.fix


def test_another_platform_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(MissingError, match=r"this is Linux on aarch64\. Use Triton's own image"):
        find_interpreter(tmp_path, which=lambda _: None)


def test_runtime_is_built_once_with_nothing_of_ours(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "python")
    interpreter, cache = Interpreter(python, "3.12", Path("/opt/lib")), tmp_path / "cache"
    told: list[str] = []
    made = make_runtime(cache, interpreter, progress=told.append)
    again = make_runtime(cache, interpreter, progress=told.append)
    assert made == again
    assert told == [
        "making a virtual environment with Python 3.12",
        "installing numpy==1.26.4 onnxruntime==1.32.0",
        f"installing {SERVER}",
    ]
    assert len(calls(python, "-m venv")) == 1
    assert made.backends is not None
    assert sorted(str(p.relative_to(made.backends)) for p in made.backends.rglob("*") if p.is_file())[:1] == [
        "onnxruntime/model.py"
    ]
    assert (made.backends / "python" / "stub").is_file()
    assert (made.backends / "python" / "libtriton_python.so").is_file()
    assert made.environment["LD_LIBRARY_PATH"].endswith("nvidia_pytriton.libs:/opt/lib")
    assert made.environment["PYTHONNOUSERSITE"] == "1"


def test_a_half_built_runtime_is_built_again(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "python")
    interpreter, cache = Interpreter(python, "3.12", None), tmp_path / "cache"
    folder = runtime_folder(cache, interpreter)
    (folder / "lib").mkdir(parents=True)
    (folder / "stale").write_text("")
    told: list[str] = []
    make_runtime(cache, interpreter, progress=told.append)
    assert told[0] == "removing a half-built runtime"
    assert is_ready(folder)
    assert not (folder / "stale").exists()


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "python")
    interpreter, cache = Interpreter(python, "3.12", None), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=make_runtime, args=(cache, interpreter), kwargs={"progress": nothing})
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(calls(python, "-m venv")) == 1


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("ERROR: No matching distribution found for nvidia-pytriton==0.7.0", "package index is reachable"),
        (
            "ERROR: Could not install: [Errno 28] No space left on device",
            "Free some space: the runtime takes 320 MB",
        ),
        ("something new", "Check the network"),
    ],
)
def test_pip_s_own_words_are_told_and_nothing_counts_as_ready(
    tmp_path: Path, words: str, advice: str
) -> None:
    python = fake_python(tmp_path / "python")
    (tmp_path / "fail").write_text(words)
    interpreter, cache = Interpreter(python, "3.12", None), tmp_path / "cache"
    with pytest.raises(ExternalError) as caught:
        make_runtime(cache, interpreter, progress=nothing)
    assert words in caught.value.detail
    assert advice in caught.value.fix
    assert not is_ready(runtime_folder(cache, interpreter))


def test_a_changed_backend_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = fake_python(tmp_path / "python")
    interpreter, cache = Interpreter(python, "3.12", None), tmp_path / "cache"
    first = make_runtime(cache, interpreter, progress=nothing).backends
    source = tmp_path / "backends" / "onnxruntime" / "model.py"
    source.parent.mkdir(parents=True)
    source.write_text("# newer")
    monkeypatch.setattr(runtime, "OUR_BACKENDS", tmp_path / "backends")
    second = make_runtime(cache, interpreter, progress=nothing).backends
    assert first is not None
    assert second is not None
    assert first != second
    assert (second / "onnxruntime" / "model.py").read_text() == "# newer"


def test_the_python_that_runs_these_tests_answers_the_probe() -> None:
    found = find_interpreter(Path(sys.executable), which=lambda _: None)
    assert found.version == f"{sys.version_info.major}.{sys.version_info.minor}"
