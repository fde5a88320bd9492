"""The log of one server: what it says in an error's words, and when it may go."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

_TELLING_LINES = 12
_TELLING = re.compile(
    r"^E\d{4} |UNAVAILABLE|[Ee]rror|[Ff]ailed|already in use|not found|cannot open|unrecognized option"
)
_NOISE = re.compile(
    r"CudaDriverHelper|NVML|DCGM|[Pp]inned|CUDA memory pool|CUDA driver version|compute capability|"
    r"Non-graceful|min_supported|^W\d{4} |unable to get number of CUDA|no CUDA-capable device|"
    r"cudaError(InsufficientDriver|NoDevice)|[Cc][Uu][Dd][Aa] ?[Ee]rror:? ?(35|100)\b|"
    r"\[W:onnxruntime|device discovery|^\t|^ +--"
)
"""What a machine without a GPU says at every start, warnings, and the usage that follows a wrong option. The
numbers are those of cudaErrorInsufficientDriver and cudaErrorNoDevice (CUDA's driver_types.h)."""
_ECHO = re.compile(
    r"Failed to initialize Python stub|Failed to create instance|failed to load '[^']+'\"?$|^\|"
)
"""The same cause once more, from other places of the server and from its table of models."""
_STACK = re.compile(r"(\\n)+At:(\\n).*$")


class ServerLog:
    """A file that the user named, which stays, or a temporary one, which goes when nobody was sent to it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._is_temporary = path is None

    @property
    def path(self) -> Path:
        """Where it is; a temporary one is made when it is first asked for."""
        if self._path is None:
            self._path = _temporary_log()
        return self._path

    def telling_words(self) -> str:
        """The lines that say what is wrong, joined."""
        return " / ".join(telling_lines(self.path))

    def keep(self) -> None:
        """Let it stay from now on, for a reader who is sent to it."""
        self._is_temporary = False

    def discard(self) -> None:
        """Remove a temporary log."""
        if self._is_temporary and self._path is not None:
            self._path.unlink(missing_ok=True)


def telling_lines(log: Path) -> list[str]:
    """The lines of a server's log that say what is wrong, each cause once."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    telling = [line for line in lines if _TELLING.search(line) and not _NOISE.search(line)]
    first_hand = [line for line in telling if not _ECHO.search(line)] or telling
    return list(dict.fromkeys(_plain(line) for line in first_hand))[-_TELLING_LINES:]


def _plain(line: str) -> str:
    without_prefix = re.sub(r"^[EIW]\d{4} [\d:.]+ +\d+ \S+\] ?", "", line)
    return re.sub(r"\s*\|\s*", " ", _STACK.sub("", without_prefix)).strip(' "')


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="jettison-tritonserver-", suffix=".log")
    os.close(handle)
    return Path(name)
