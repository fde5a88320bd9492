"""Virtual environments in the user's cache, for programs that cannot run beside our libraries.

An environment cannot be moved, so each is built in its final place: a lock keeps two builders apart,
a marker written last tells a whole one from one that died half-way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.core.errors import ExternalError
from jettison.core.files import write_bytes

MARKER_NAME = "ready.json"
PIP = (
    "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "--only-binary", ":all:",
)  # fmt: skip
"""Arguments to Python before what to install."""

Say = Callable[[str], None]
"""Called with what is being done now."""


@dataclass(frozen=True)
class Blueprint:
    """What an environment is made of.

    Args:
        name: What it is for; its folder's name begins with it.
        python: The interpreter that it is made with.
        version: The interpreter's version, such as 3.12.
        installs: The arguments of each `pip install`, in their order; versions are pinned.
        size: About how much room it takes, for people.
    """

    name: str
    python: Path
    version: str
    installs: tuple[tuple[str, ...], ...]
    size: str

    def folder(self, cache: Path) -> Path:
        """Its folder in the cache, named by the hash of all that it is made of."""
        parts = [self.installs, self.version, str(self.python.resolve())]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return cache.absolute() / f"{self.name}-{digest[:12]}"


def cache_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Where Jettison caches: `$JETTISON_CACHE`, else `$XDG_CACHE_HOME/jettison`, else `~/.cache/jettison`."""
    if own := environment.get("JETTISON_CACHE"):
        return Path(own)
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "jettison"


def python_of(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / "bin" / "python"


def is_ready(folder: Path) -> bool:
    """Whether the environment there is whole, and the Python that it was made with still there."""
    return (folder / MARKER_NAME).is_file() and python_of(folder).exists()


def make_environment(cache: Path, blueprint: Blueprint, *, progress: Say) -> Path:
    """The environment's folder, built first where it is missing or half-built.

    Raises:
        ExternalError: venv or pip failed; the message has pip's own words.
        OSError: The cache cannot be written.
    """
    folder = blueprint.folder(cache)
    if not is_ready(folder):
        with locked(folder):
            if not is_ready(folder):
                _build(folder, blueprint, progress)
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from building that folder, which need not be there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path, blueprint: Blueprint, progress: Say) -> None:
    if folder.exists():
        progress(f"removing a half-built {blueprint.name} environment")
        shutil.rmtree(folder)
    progress(f"making a virtual environment with Python {blueprint.version}")
    what = f"the {blueprint.name} environment"
    room = f"it takes about {blueprint.size}"
    call([str(blueprint.python), "-m", "venv", str(folder)], f"making {what}", room=room)
    for arguments in blueprint.installs:
        named = [argument for argument in arguments if not argument.startswith("-")]
        progress(f"installing {' '.join(named)}")
        command = [str(python_of(folder)), *PIP, *arguments]
        call(command, f"installing {named[-1]} into {what}", room=room)
    marker = {"installs": blueprint.installs, "python": blueprint.version}
    write_bytes(folder / MARKER_NAME, json.dumps(marker, indent=1).encode())


def call(command: Sequence[str], what: str, *, room: str) -> None:
    """Run venv or pip; `room` tells on a full disk how much it takes.

    Raises:
        ExternalError: It failed; the message has its own words.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in words if "ERROR" in line or "rror:" in line] or words
        raise ExternalError(
            what,
            detail=" / ".join(errors[-3:]) or f"exit status {done.returncode}",
            fix=_advice(done.stderr + done.stdout, room),
        )


def _advice(words: str, room: str) -> str:
    """What helps, by what venv or pip said."""
    known = {
        "ensurepip is not available": "Install the package that brings it, such as python3-venv",
        "No module named venv": "Install the package that brings it, such as python3-venv",
        "No space left on device": f"Free some space: {room}",
        "No matching distribution": "Check that the package index is reachable and complete",
    }
    found = next((fix for sign, fix in known.items() if sign in words), None)
    return found or "Check the network and pip's settings, then run it again"
