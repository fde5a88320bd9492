"""`.npz` files read row by row: stored or deflated, never a whole array in memory.

`numpy.load` reads a whole array at once, and a calibration set may be larger than the memory. The
format is a zip of `.npy` members, each a header followed by the rows, so rows can be streamed.
Source: numpy.lib.format, "A simple format for saving numpy arrays to disk".
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from jettison.core.errors import SamplesError
from jettison.core.tensors import Arrays

ROWS_AT_ONCE = 64
_BYTES_AT_ONCE = 8 << 20
"""Two pieces are alive at a time; larger ones were read no faster."""
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, ValueError, EOFError, RuntimeError,
)  # fmt: skip
"""What reading a damaged archive or header, or an archive that is locked or packed unusually, can raise."""


def shard_paths(path: Path) -> tuple[Path, ...]:
    """The shards of a source: the file itself, or the folder's `.npz` files in order of their names.

    Raises:
        SamplesError: The folder has no `.npz` file.
    """
    if path.is_file():
        return (path,)
    paths = tuple(sorted(path.glob("*.npz")))
    if not paths:
        raise SamplesError(
            f"samples {path}", detail="the folder holds no .npz file", fix="Write shards as .npz there"
        )
    return paths


def read_shards(paths: Sequence[Path]) -> Iterator[Arrays]:
    """Pieces of at most 64 rows and about 8 MiB, shard after shard."""
    for path in paths:
        yield from read_shard(path)


def place_of(paths: Sequence[Path], number: int) -> tuple[Path, int]:
    """The shard that holds the sample of that number, and its row there, both counted from 0.

    Only the heads of the files are read. A number beyond the last sample counts on in the last shard.

    Raises:
        SamplesError: As `read_shard`.
    """
    for path in paths[:-1]:
        with _members(path) as members:
            rows = members[0].rows if members else 0
        if number < rows:
            return path, number
        number -= rows
    return paths[-1], number


def read_shard(path: Path) -> Iterator[Arrays]:
    """Pieces of one `.npz` file, all arrays side by side.

    Raises:
        SamplesError: Not an .npz file, truncated, pickled objects, or arrays of unequal length.
    """
    with _members(path) as members:
        yield from _pieces(path, members)


@contextmanager
def _members(path: Path) -> Iterator[list[_Member]]:
    """The arrays of one `.npz` file, open; what goes wrong while they are read is explained."""
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as stack:
            yield [_Member(stack.enter_context(archive.open(info)), info) for info in archive.infolist()]
    except _UNREADABLE as error:
        raise SamplesError(
            f"samples {path}", detail=f"not a readable .npz file ({error})", fix="Write it with numpy.savez"
        ) from error


class _Member:
    """One array of the archive, read forward."""

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo) -> None:
        self.name = info.filename.removesuffix(".npy")
        self.file = file
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, self.dtype = read(file)
        if self.dtype.hasobject:
            raise ValueError(f"{self.name!r} holds pickled objects, which are never loaded")
        if fortran and len(shape) > 1:
            raise ValueError(
                f"{self.name!r} is stored column by column; save it after numpy.ascontiguousarray"
            )
        if not shape:
            raise ValueError(f"{self.name!r} is a single number, not one row a sample")
        self.rows, self.row_shape = shape[0], shape[1:]
        self.row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        if self.rows * self.row_bytes > info.file_size:
            raise ValueError(f"{self.name!r} is shorter than its header says")

    def read(self, rows: int) -> np.ndarray[Any, Any]:
        """The next `rows` rows; writable, the caller's own."""
        buffer = bytearray(rows * self.row_bytes)
        view, start = memoryview(buffer), 0
        while start < len(buffer):
            piece = self.file.read(min(len(buffer) - start, 1 << 20))
            if not piece:
                raise EOFError(f"{self.name!r} ends early")
            view[start : start + len(piece)] = piece
            start += len(piece)
        return np.frombuffer(buffer, dtype=self.dtype).reshape(rows, *self.row_shape)


def _pieces(path: Path, members: list[_Member]) -> Iterator[Arrays]:
    counts = {member.name: member.rows for member in members}
    if len(set(counts.values())) > 1:
        raise SamplesError(
            f"samples {path}",
            detail=f"the arrays differ in their number of samples: {counts}",
            fix="Give one row each",
        )
    total = next(iter(counts.values()), 0)
    row_bytes = max(1, sum(member.row_bytes for member in members))
    step = max(1, min(ROWS_AT_ONCE, _BYTES_AT_ONCE // row_bytes))
    for start in range(0, total, step):
        rows = min(step, total - start)
        yield {member.name: member.read(rows) for member in members}
