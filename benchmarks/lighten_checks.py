"""What the parts of `lighten.py` share: targets with what was found, and means over seeds with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""The 97.5 % quantile of Student's t by number of seeds, degrees of freedom one less."""


class Check(TypedDict):
    """One target: what is asked, what was found, whether it holds."""

    what: str
    asked: str
    found: str
    held: bool


def check(what: str, asked: str, found: str, *, held: bool) -> Check:
    """A target."""
    return {"what": what, "asked": asked, "found": found, "held": held}


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the bounds of its 95 % interval by Student's t; one value has no interval."""
    count = len(values)
    mean = sum(values) / count
    if count not in STUDENT_T:
        return mean, math.nan, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = STUDENT_T[count] * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


def points(share: float) -> str:
    """A share as points of a percentage, with its sign."""
    return f"{100 * share:+.2f}"
