"""axe-core, which finds what keeps people out of a page: npm's package, kept in the cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from jettison.core.environments import cache_folder

VERSION = "4.14.1"


def source() -> str:
    """Its code, or a skip with the reason."""
    folder = cache_folder(os.environ, Path.home())
    file = folder / f"axe-core-{VERSION}.js"
    if not file.is_file():
        _fetch(file)
    return file.read_text(encoding="utf-8")


def _fetch(file: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("axe-core is not in the cache, and there is no npm to fetch it with")
    work = file.with_name(f"{file.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        command = ("npm", "pack", f"axe-core@{VERSION}")
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        packages = list(work.glob("axe-core-*.tgz"))
        if not packages:
            pytest.skip(f"npm does not give axe-core: {done.stderr.strip()[-200:]}")
        with tarfile.open(packages[0]) as archive:
            member = archive.extractfile("package/axe.min.js")
            assert member is not None
            (work / "axe.js").write_bytes(member.read())
        with contextlib.suppress(OSError):  # another test run was faster
            (work / "axe.js").rename(file)
    finally:
        shutil.rmtree(work, ignore_errors=True)
