"""Figures in sentences that hold: a number below a limit never reads as the limit because it was rounded."""

from __future__ import annotations

_DIGITS = 17
"""Significant digits that tell every float64 from its neighbours. Source: IEEE 754-2019, section 5.12.2."""


_ROUNDED = 12
"""Digits that leave out what binary fractions add to a share as it was written: 0.57 * 100 is not 57."""


def beyond(value: float, limit: float, *, decimals: int | None = None, sign: str = "") -> str:
    """The value with as few digits as keep it on its side of the limit.

    Args:
        value: The figure.
        limit: What the sentence holds it against.
        decimals: Fixed decimals to begin with; four significant digits where there is None.
        sign: `+` to show the sign of positive figures too.
    """
    fewest, form = (4, "g") if decimals is None else (decimals, "f")
    texts = (f"{value:{sign}.{digits}{form}}" for digits in range(fewest, _DIGITS + 1))
    return next((text for text in texts if _side(float(text), limit) == _side(value, limit)), repr(value))


def exact(value: float) -> str:
    """The value as its author wrote it: 1, 0.01, 1e-05."""
    return repr(float(value)).removesuffix(".0")


def counted(count: int, noun: str) -> str:
    """A number of things: 1 sample, 2 samples."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share as a percentage that does not round to 100 %: 95%, 99.9%."""
    texts = (f"{share * 100:.{digits}g}" for digits in range(_ROUNDED, _DIGITS + 1))
    told = next((text for text in texts if _side(float(text), 100) == _side(share, 1)), repr(share * 100))
    return f"{told}%"


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)
