"""A lock between processes, held as long as a `with` block lasts, and let go by the system if one dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all that lock the same path; others wait.

    The lock is a file of its own, `<name>.lock` beside `path`, since `path` itself may be replaced meanwhile.

    Raises:
        OSError: The folder is not there or read-only.
    """
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
