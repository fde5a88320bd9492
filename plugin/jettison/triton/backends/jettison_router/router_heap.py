"""How the C library keeps the memory that tensors leave behind.

The stub copies each tensor that it hands to Python. Blocks of 600 KB come and go between small ones that
stay, so that a heap grows by what finds no gap, though little of it is in use. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Source: glibc, malloc/malloc.h."""
_LARGE_BYTES = 1 << 20
"""Chosen by benchmarks/soak.py: above images of 600 KB, for which mapping memory anew would be felt."""
_HEAPS = 4
TRIM_S = 10.0
"""How often pages between blocks go back to the system. Chosen by benchmarks/soak.py: without it the heaps of
two instances still grew by 7 % in four minutes after their warm-up."""


def bound_heaps() -> None:
    """Large blocks go back to the system when they are freed, and all threads share a few heaps.

    Else each of some twenty threads comes to keep the largest tensors that it ever had.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such settings
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, _HEAPS)


def trim_heaps() -> None:
    """Whole pages that no block needs go back to the system, wherever in a heap they are."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
