"""Files that are whole or not there: write by stage, fsync, rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from jettison.core.errors import InputError


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below durable."""
    for root, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        fsync_folder(Path(root))


def read_bounded(path: Path, what: str, *, most: int, missing: str, fix: str) -> bytes:
    """The content of a file of at most so many bytes; `what` names it in errors.

    Raises:
        InputError: There is no such file, with `missing` as what to do; it is larger, with `fix`.
    """
    if not path.is_file():
        raise InputError(what, detail="there is no such file", fix=missing)
    if path.stat().st_size > most:
        raise InputError(what, detail=f"larger than {most} bytes", fix=fix)
    return path.read_bytes()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file as a whole: readers see the old content or the new, never a half.

    Raises:
        OSError: The folder is read-only or the disk is full; the old file stands.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    stage = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        stage.chmod(0o644)
        stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def append_lines(path: Path, text: str) -> None:
    """Append whole lines and make them durable; a line before them that a death tore is dropped.

    Raises:
        OSError: The folder is read-only or the disk is full.
    """
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A folder to fill beside `target`, renamed to it at the end, removed if anything fails.

    Raises:
        OSError: `target` exists and is not empty, or the file system refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage, handle = _locked_stage(target)
    try:
        stage.chmod(0o755)
        yield stage
        fsync_tree(stage)
        stage.rename(target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    finally:
        os.close(handle)
    fsync_folder(target.parent)


def _locked_stage(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the handle that locks it as long as its maker lives."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        handle = os.open(stage, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: nobody will sweep there either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if stage.is_dir():
            return stage, handle
        os.close(handle)  # a sweep was faster than the lock


def sweep_stages(stages: Iterable[Path]) -> None:
    """Remove those stages whose makers died before they could; those of living ones stay."""
    for stage in stages:
        try:
            handle = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # no folder, or renamed meanwhile
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stage, ignore_errors=True)
        except OSError:  # its maker lives, or the file system knows no locks
            continue
        finally:
            os.close(handle)
