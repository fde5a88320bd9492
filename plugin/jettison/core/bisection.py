"""Where a condition ends that holds below some number and not above it. Standard library only."""

from __future__ import annotations

from collections.abc import Callable


def last_that_holds(holds: Callable[[float], bool], low: float, high: float, *, halvings: int) -> float:
    """Where `holds` turns from true to false between `low` and `high`; `low` where it never holds.

    Each halving of the interval asks once: 60 take one of length 2 below the resolution of float64 near 1.
    """
    for _ in range(halvings):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
