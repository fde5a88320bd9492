"""Where Linux keeps shared memory, and how much of it is free."""

from __future__ import annotations

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where Linux keeps shared memory, not a scratch folder)
"""Source: shm_overview(7), "Accessing shared memory objects via the filesystem"."""


def free_bytes() -> int:
    """What may still be taken, by all processes together."""
    return shutil.disk_usage(SHARED_MEMORY).free
