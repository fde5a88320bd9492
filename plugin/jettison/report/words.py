"""Figures in words: one form for each kind of number, and a dash where there is none."""

from __future__ import annotations

import math
from typing import TypeGuard

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def datum(value: float | None) -> str:
    """A number as a script reads it; nothing where there is none."""
    return f"{value:.6g}" if is_known(value) else ""


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits, without an exponent where it is of usual size."""
    if is_known(value):
        return f"{value:,.{digits}g}".replace("-", _MINUS) if abs(value) < 10**digits else f"{value:,.0f}"
    return NOTHING


def figures(value: float | None, digits: int = 3) -> str:
    """A measured number: the last digit stands there even where it is a zero."""
    if is_known(value) and abs(value) < 10**digits:
        return f"{value:#.{digits}g}".rstrip(".").replace("-", _MINUS)
    return number(value)


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return f"{value + 0.0:+.3g}".replace("-", _MINUS) if is_known(value) else NOTHING


def percent(value: float | None) -> str:
    """A share from 0 to 1."""
    return f"{100 * value:.3g}\N{NARROW NO-BREAK SPACE}%" if is_known(value) else NOTHING


def size(value: float | None) -> str:
    """Bytes."""
    if not is_known(value):
        return NOTHING
    for unit, factor in _UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{value:.0f}\N{NARROW NO-BREAK SPACE}B"


def times(value: float | None) -> str:
    """A factor."""
    return f"{value:.2f}\N{MULTIPLICATION SIGN}" if is_known(value) else NOTHING


def ratio(value: float | None, of: float | None) -> float | None:
    """The one divided by the other; None where that is no number."""
    return value / of if is_known(value) and is_known(of) and of else None


def counted(count: int, one: str, many: str = "") -> str:
    """So many of something."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
