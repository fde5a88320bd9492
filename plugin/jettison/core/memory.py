"""Gives memory back to the operating system between the stages of a long run.

Graphs refer to themselves, so a copy that is not needed any more waits for Python's collector, weights
included, and what is freed stays with glibc. The largest resident memory of a run would be what the stages
leave behind, and not what any of them needs.
"""

from __future__ import annotations

import ctypes
import gc


def release() -> None:
    """Collect what is out of reach, which takes some 50 ms, and hand free memory back."""
    gc.collect()
    trim()


def trim() -> None:
    """Hand free memory back where the C library knows how to (glibc), in a few ms."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
