"""The runtime environment: a real tritonserver for CPU, made once in the user's cache.

It is a virtual environment of its own, with nothing of ours, since the server's Python backend does not
bear the numpy that we need. Virtual environments cannot be moved, so it is built in its final place: a
lock keeps two builders apart, a marker written last tells a whole one from one that died half-way.

tritonserver 2.51 has known vulnerabilities: it is for a developer's machine, bound to loopback.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.core.environments import MARKER_NAME, PIP, Say, call, locked, python_of
from jettison.core.files import sha256_of, staged_folder, write_bytes
from jettison.triton.interpreters import SERVER, Interpreter

OUR_BACKENDS = Path(__file__).parent / "backends"
_ROOM = "the runtime takes 320 MB"
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""glibc keeps request-sized blocks instead of mapping fresh pages for each: 0.2 ms of processor time less for
a request of 600 KB (0.73 to 0.53 over gRPC, 0.93 to 0.75 over HTTP). Chosen by benchmarks/serve.py."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver that can be started: program, backend folder and additions to the environment.

    `backends` is None for a server that has its own (the stock image).
    """

    program: Path
    backends: Path | None
    environment: Mapping[str, str]


def runtime_folder(cache: Path, interpreter: Interpreter) -> Path:
    """The runtime's folder, named by the hash of all that it is made of."""
    parts = [SERVER, *interpreter.requirements, interpreter.version, str(interpreter.path.resolve())]
    return cache / f"runtime-{_digest(parts)}"


def is_ready(folder: Path) -> bool:
    """Whether the runtime there is whole."""
    return (folder / MARKER_NAME).is_file()


def make_runtime(cache: Path, interpreter: Interpreter, *, progress: Say) -> Installation:
    """The runtime in the cache, built first where it is missing or half-built (about 320 MB, once).

    Raises:
        ExternalError: venv or pip failed; the message has pip's own words.
        OSError: The cache cannot be written.
    """
    folder = runtime_folder(cache.absolute(), interpreter)
    if not is_ready(folder):
        with locked(folder):
            if not is_ready(folder):
                _build(folder, interpreter, progress)
    return _installation(folder, interpreter)


def _build(folder: Path, interpreter: Interpreter, progress: Say) -> None:
    if folder.exists():
        progress("removing a half-built runtime")
        shutil.rmtree(folder)
    progress(f"making a virtual environment with Python {interpreter.version}")
    venv = [str(interpreter.path), "-m", "venv", str(folder)]
    call(venv, "making the runtime's virtual environment", room=_ROOM)
    for requirements in ([*interpreter.requirements], ["--no-deps", SERVER]):
        progress(f"installing {' '.join(name for name in requirements if not name.startswith('-'))}")
        command = [str(python_of(folder)), *PIP, *requirements]
        call(command, f"installing {requirements[-1]} into the runtime", room=_ROOM)
    marker = {"server": SERVER, "requirements": interpreter.requirements, "python": interpreter.version}
    write_bytes(folder / MARKER_NAME, json.dumps(marker, indent=1).encode())


def _installation(folder: Path, interpreter: Interpreter) -> Installation:
    packages = folder / "lib" / f"python{interpreter.version}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    libraries = [packages / "nvidia_pytriton.libs", interpreter.library_folder]
    return Installation(
        program=server / "bin" / "tritonserver",
        backends=_backends(folder, server, interpreter),
        environment={
            "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries if path is not None),
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(packages),
            "PYTHONNOUSERSITE": "1",
            "PYTHONHOME": "",
            "VIRTUAL_ENV": str(folder),
            **_ALLOCATOR,
        },
    )


def _backends(folder: Path, server: Path, interpreter: Interpreter) -> Path:
    """The backend folder: Triton's Python backend with the right stub, and ours, named by their content."""
    sources = sorted(OUR_BACKENDS.glob("*/*.py"))
    target = folder / f"backends-{_digest([f'{path.parent.name} {sha256_of(path)}' for path in sources])}"
    if not target.is_dir():
        with locked(folder):
            if not target.is_dir():
                _assemble(target, server, interpreter, sources)
    return target


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _assemble(target: Path, server: Path, interpreter: Interpreter, sources: Sequence[Path]) -> None:
    with staged_folder(target) as stage:
        shutil.copytree(server / "backends" / "python", stage / "python")
        shutil.copytree(
            server / "python_backend_stubs" / interpreter.version, stage / "python", dirs_exist_ok=True
        )
        for source in sources:
            (stage / source.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(source, stage / source.parent.name / source.name)
