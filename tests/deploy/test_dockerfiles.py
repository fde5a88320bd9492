"""The texts of deploy/docker: hadolint's rules, what is pinned, and who runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile.*"))
LOCKS = sorted(FOLDER.glob("*.in"))
OTHERS = [ROOT / "tests" / "deploy" / "Containerfile.triton"]


def program(name: str) -> str:
    """A program that a wheel brought beside this Python, or one on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: pip install 'jettison[dev]'")
    return found


def said(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_hadolint_has_nothing_against_them():
    assert len(DOCKERFILES) == 3
    for path in [*DOCKERFILES, *OTHERS]:
        assert said(program("hadolint"), "--no-color", str(path)) == ""


def test_hadolint_would_find_a_base_without_a_tag():
    assert "DL3006" in said(program("hadolint"), "--no-color", "-", text="FROM debian\n")


def test_shellcheck_has_nothing_against_the_scripts():
    scripts = [*ROOT.glob("deploy/**/*.sh"), *ROOT.glob("helm/**/*.sh")]
    assert FOLDER / "verdict.sh" in scripts
    assert said(program("shellcheck"), *map(str, scripts)) == ""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_every_last_stage_runs_as_nobody_s_root_and_says_what_it_is(path):
    text = path.read_text()
    assert text.rstrip().split("USER ")[-1].split()[0] == "1000:1000"
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_packages_come_by_hash_and_bases_by_argument(path):
    text = path.read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${BASE_IMAGE}", "router"}
    for requirements in re.findall(r"--requirement (\S+)", text):
        assert (FOLDER / requirements).exists()
    commands = text.replace("\\\n", " ").split("&&")
    fetching = [command for command in commands if "--requirement" in command]
    assert fetching
    assert all("--require-hashes" in command and "--only-binary :all:" in command for command in fetching[:1])
    assert "cyclonedx" in text
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


@pytest.mark.parametrize("wanted", LOCKS, ids=lambda path: path.stem)
def test_what_is_asked_for_is_pinned_with_hashes(wanted):
    locked = wanted.with_suffix(".txt").read_text()
    pins = {name.lower() for name in re.findall(r"^([\w.-]+)==", locked, re.MULTILINE)}
    asked = {re.split(r"[\[<>=]", line)[0].lower() for line in wanted.read_text().splitlines()}
    assert asked <= pins
    for entry in re.split(r"^(?=[\w.-]+==)", locked, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry


def test_the_builder_has_what_the_package_asks_for():
    project = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r'"([^"]+)"', block)) <= set((FOLDER / "builder.in").read_text().splitlines())
