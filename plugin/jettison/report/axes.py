"""Scales of a chart: from figures to places, and the round figures written along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    """A place along an axis, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear scale: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value, kept within ten widths of the axis, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, -10.0), 10.0) * (self.end - self.start), 1)

    def ticks(self, wanted: int = 5) -> tuple[Tick, ...]:
        """Round figures along it, about as many as wanted.

        Source: P. Heckbert, Nice Numbers for Graph Labels, Graphics Gems (1990).
        """
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(nice for nice in _STEPS if nice * power >= rough * 0.999)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        found = (index * step for index in range(first, last + 1))
        return tuple(Tick(self.at(value), f"{value + 0.0:.{digits}f}") for value in found)


def axis_over(values: Iterable[float], start: float, end: float, *, margin: float = 0.08) -> Axis:
    """An axis with all finite values on it, and that share of its length free at both ends."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    spread = high - low
    if not math.isfinite(spread) or spread <= abs(high) * 1e-9:
        spread = abs(high) * 0.1 or 1.0
        low, high = low - spread / 2, low + spread / 2
    return Axis(low - margin * spread, high + margin * spread, start, end)
