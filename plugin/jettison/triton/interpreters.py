"""Which Python the server's Python backend can run in.

Triton's stub embeds Python: it needs the shared `libpython` of a version that it was built for. It was
built against numpy 1 too, and under numpy 2 gives wrong numbers in silence. Python 3.13 has no numpy 1:
there our backend carries tensors through DLPack, which works with numpy 2 for all types but text.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.core.errors import MissingError

_PROBE = """
import ctypes, json, pathlib, sys, sysconfig
folder = sysconfig.get_config_var("LIBDIR") or ""
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
def loads(path):
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
near = pathlib.Path(sys.base_prefix, "lib", name)
paths = [str(pathlib.Path(folder, name)), str(near), name]
print(json.dumps({"version": "%d.%d" % sys.version_info[:2], "library": next(filter(loads, paths), None)}))
"""

SERVER = "nvidia-pytriton==0.7.0"
"""The wheel that carries tritonserver 2.51 for CPU; installed without its own dependencies, which only
its client needs."""

_NUMPY_1 = "numpy==1.26.4"
_REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "3.10": (_NUMPY_1, "onnxruntime==1.23.2"),
    "3.11": (_NUMPY_1, "onnxruntime==1.32.0"),
    "3.12": (_NUMPY_1, "onnxruntime==1.32.0"),
    "3.13": ("numpy==2.4.6", "onnxruntime==1.32.0"),
}
"""Tested versions by Python's: ONNX Runtime 1.23 is the last for Python 3.10, numpy 1.26 the last 1.x."""

_BUNDLED_LIBRARY = "3.13"
"""The version whose libpython lies inside the server's wheel."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can be embedded; `library_folder` holds its libpython, None where the loader finds it."""

    path: Path
    version: str
    library_folder: Path | None

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the backend needs beside the server, pinned."""
        return _REQUIREMENTS[self.version]


def find_interpreter(own: Path, *, which: Callable[[str], str | None]) -> Interpreter:
    """The first usable Python: `own` (the running one), else one on the search path.

    Raises:
        MissingError: The machine is not Linux on x86-64, or no Python on it can be embedded.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise MissingError(
            "the local tritonserver",
            detail=f"its wheel is for Linux on x86-64, this is {platform.system()} on {platform.machine()}",
            fix="Use Triton's own image, or put tritonserver on PATH",
        )
    seen: list[str] = []
    for candidate in _candidates(own, which):
        interpreter, why_not = _probe(candidate)
        if interpreter is not None:
            return interpreter
        seen.append(f"{candidate}: {why_not}")
    raise MissingError(
        "the local tritonserver",
        detail=f"no Python here can be embedded ({'; '.join(seen)})",
        fix="Install a Python with a shared library, such as Debian's python3 and libpython3-dev, "
        "or run: uv python install 3.12",
    )


def _candidates(own: Path, which: Callable[[str], str | None]) -> Iterator[Path]:
    yield own
    for version in sorted(_REQUIREMENTS, reverse=True):
        if (found := which(f"python{version}")) is not None:
            yield Path(found)


def _probe(path: Path) -> tuple[Interpreter | None, str]:
    found = _ask([str(path), "-I", "-c", _PROBE])
    if found is None:
        return None, "it does not run"
    version, library = found["version"], found["library"]
    if version not in _REQUIREMENTS:
        return None, f"the stub is not built for Python {version}"
    if library is None and version != _BUNDLED_LIBRARY:
        return None, f"it has no libpython{version}.so"
    folder = Path(library).parent if library and "/" in library else None
    return Interpreter(path, str(version), folder), ""


def _ask(command: Sequence[str]) -> dict[str, str | None] | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        answer: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return answer
