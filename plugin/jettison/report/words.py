"""Figures in words: one form for each kind of number, and a dash where there is none."""

from __future__ import annotations

import math

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def is_known(value: float | None) -> bool:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def datum(value: float | None) -> str:
    """A number as a script reads it; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits, without an exponent where it is of usual size."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.{digits}g}".replace("-", _MINUS) if abs(value) < 10**digits else f"{value:,.0f}"


def figures(value: float | None, digits: int = 3) -> str:
    """A measured number: the last digit stands there even where it is a zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return (
        f"{value:#.{digits}g}".rstrip(".").replace("-", _MINUS) if abs(value) < 10**digits else number(value)
    )


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value + 0.0:+.3g}".replace("-", _MINUS)


def percent(value: float | None) -> str:
    """A share from 0 to 1."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.3g}\N{NARROW NO-BREAK SPACE}%"


def size(value: float | None) -> str:
    """Bytes."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for unit, factor in _UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{value:.0f}\N{NARROW NO-BREAK SPACE}B"


def times(value: float | None) -> str:
    """A factor."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2f}\N{MULTIPLICATION SIGN}"


def ratio(value: float | None, of: float | None) -> float | None:
    """The one divided by the other; None where that is no number."""
    if value is None or of is None or not of or not math.isfinite(value) or not math.isfinite(of):
        return None
    return value / of


def counted(count: int, one: str, many: str = "") -> str:
    """So many of something."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
