"""Small charts: latencies as strips, a histogram with its clip, the noise of all layers as one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jettison.report.axes import Axis, Tick, axis_over
from jettison.report.run_file import Layer, LayerInput, Target
from jettison.report.words import is_known

STRIP_WIDTH, STRIP_LEFT, STRIP_RIGHT = 720, 8, 712
ROW = 26
_QUANTILES = 9
"""As `evaluate/speed.py` keeps them: 1, 5, 10, 25, 50, 75, 90, 95 and 99 %."""

SPARK_WIDTH, SPARK_HEIGHT = 150, 30
PROFILE_WIDTH, PROFILE_HEIGHT, PROFILE_LEFT = 920, 118, 40
_PROFILE_BOTTOM, _PROFILE_TOP = 100, 8
_MOST_POINTS = 460
"""Of a line: two units of width each."""


@dataclass(frozen=True)
class Strip:
    """One variant's latencies: places of nine quantiles, and the figures of the middle and the outer ones."""

    name: str
    y: float
    places: tuple[float, ...]
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Strips:
    """Latencies of all variants under one scale."""

    height: int
    across: tuple[Tick, ...]
    rows: tuple[Strip, ...]


def latencies_of(target: Target) -> Strips | None:
    """The strips of a target's variants; None where no distribution was kept."""
    known = [
        (variant.name, [value for value in variant.latency_quantiles_ms if value is not None])
        for variant in target.everyone
    ]
    known = [
        (name, values) for name, values in known if len(values) == _QUANTILES and all(map(is_known, values))
    ]
    if not known:
        return None
    axis = axis_over([value for _, values in known for value in values], STRIP_LEFT, STRIP_RIGHT, margin=0.03)
    rows = tuple(
        Strip(
            name,
            index * ROW + ROW / 2,
            tuple(axis.at(value) for value in values),
            values[0],
            values[_QUANTILES // 2],
            values[-1],
        )
        for index, (name, values) in enumerate(known)
    )
    return Strips(len(rows) * ROW, axis.ticks(8), rows)


@dataclass(frozen=True)
class Spark:
    """A histogram as the path of an SVG, and the places of the chosen range's ends."""

    path: str
    low: float | None
    high: float | None


def spark_of(told: LayerInput) -> Spark | None:
    """The histogram of a layer's input; heights by the square root of the shares, so that tails are seen."""
    seen = told.seen
    if seen is None or seen.low is None or seen.high is None or not seen.low < seen.high:
        return None
    shares = [share if is_known(share) else 0.0 for share in seen.shares]
    ends = [end for end in (told.low, told.high) if is_known(end)]
    if not any(share > 0 for share in shares) or not is_known(seen.high - seen.low):
        return None
    axis = axis_over([seen.low, seen.high, *ends], 1, SPARK_WIDTH - 1, margin=0.01)
    clip = (axis.at(min(ends)), axis.at(max(ends))) if len(ends) == 2 else (None, None)
    return Spark(_bars(shares, Axis(0, len(shares), axis.at(seen.low), axis.at(seen.high))), *clip)


def _bars(shares: Sequence[float], axis: Axis) -> str:
    highest = math.sqrt(max(shares))
    steps = [f"M{axis.start},{SPARK_HEIGHT}"]
    for index, share in enumerate(shares):
        top = SPARK_HEIGHT - math.sqrt(max(share, 0.0)) / highest * (SPARK_HEIGHT - 3)
        steps.append(f"V{top:.1f}H{axis.at(index + 1)}")
    return "".join([*steps, f"V{SPARK_HEIGHT}Z"])


@dataclass(frozen=True)
class Profile:
    """The noise of all layers in their order: a line, which rests where a layer has no figure."""

    path: str
    up: tuple[Tick, ...]
    layers: int
    together: int


def profile_of(layers: Sequence[Layer]) -> Profile | None:
    """The line of a variant; of many layers each point is the worst of its neighbours."""
    together = max(1, -(-len(layers) // _MOST_POINTS))
    worst = [_worst(layers[start : start + together]) for start in range(0, len(layers), together)]
    known = [value for value in worst if value is not None]
    if len(known) < 2:
        return None
    up = axis_over([0.0, *known], _PROFILE_BOTTOM, _PROFILE_TOP, margin=0.04)
    across = Axis(0, len(worst), PROFILE_LEFT, PROFILE_WIDTH)
    steps, pen = [], "M"
    for index, value in enumerate(worst):
        if value is None:
            pen = "M"
            continue
        steps.append(f"{pen}{across.at(index)},{up.at(value)}H{across.at(index + 1)}")
        pen = "L"
    return Profile("".join(steps), up.ticks(3), len(layers), together)


def _worst(layers: Sequence[Layer]) -> float | None:
    known = [layer.sqnr_db for layer in layers if is_known(layer.sqnr_db)]
    return min(known, default=None)
