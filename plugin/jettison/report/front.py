"""The Pareto front: every variant by its score and by what it costs, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jettison.report.axes import Axis, Tick, axis_over
from jettison.report.run_file import BASELINE, Target, Variant
from jettison.report.words import figures, is_known, number, size

WIDTH, HEIGHT = 460, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 446, 14, 298
_MEGA = 1e6
_LETTER, _LINE = 6.4, 13
_LONGEST_LABEL = 22
_SHIFTS = (0, -14, 14, -28, 28, -42, 42)
_MOST_LABELS = 16

Kind = Literal["baseline", "chosen", "accepted", "rejected"]


@dataclass(frozen=True)
class Dot:
    """One variant on the chart.

    Args:
        name: Its name.
        x: Place to the right.
        y: Place downwards.
        low: Place of the lower bound of its score; None where there is none.
        kind: What the gate said of it.
        told: Its figures in words.
        label: Where its name stands: x, y, and the side that is fixed; None where there is no room.
    """

    name: str
    x: float
    y: float
    low: float | None
    kind: Kind
    told: str
    label: tuple[float, float, Literal["start", "end"]] | None = None

    @property
    def shown(self) -> str:
        """The name as it is written beside the dot."""
        return _shown(self.name)


@dataclass(frozen=True)
class Front:
    """A chart of scores against one cost, smaller costs to the left."""

    title: str
    unit: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    line: str


def fronts_of(target: Target) -> tuple[Front, ...]:
    """Score against latency where that was measured, and score against size."""
    found = (
        _front(target, "Score and latency", "latency, ms", lambda one: one.latency_ms),
        _front(target, "Score and size", "size, MB", lambda one: (one.size_bytes or 0) / _MEGA or None),
    )
    return tuple(front for front in found if front is not None)


def _front(target: Target, title: str, unit: str, cost: Callable[[Variant], float | None]) -> Front | None:
    known = [
        (variant, float(x), float(y))
        for variant in target.everyone
        if (x := cost(variant)) is not None
        and (y := variant.score) is not None
        and is_known(x)
        and is_known(y)
    ]
    if len(known) < 2:
        return None
    base = target.baseline.score
    lows = [low for variant, _, _ in known if (low := _low(variant, base)) is not None]
    across = axis_over([x for _, x, _ in known], LEFT, RIGHT)
    up = axis_over([*(y for _, _, y in known), *lows], BOTTOM, TOP)
    dots = [_dot(variant, x, y, target=target, across=across, up=up) for variant, x, y in known]
    line = _line([(dot.x, dot.y) for dot in dots if dot.kind != "rejected"])
    return Front(title, unit, across.ticks(), up.ticks(), _labelled(dots), line)


def _low(variant: Variant, base: float | None) -> float | None:
    """The lower bound of a variant's score."""
    if base is None or variant.score_delta_low is None or not is_known(base + variant.score_delta_low):
        return None
    return base + variant.score_delta_low


def _dot(variant: Variant, x: float, y: float, *, target: Target, across: Axis, up: Axis) -> Dot:
    low = _low(variant, target.baseline.score)
    told = f"score {number(variant.score)}, {figures(variant.latency_ms)} ms, {size(variant.size_bytes)}"
    if variant.latency_ms is None:
        told = f"score {number(variant.score)}, {size(variant.size_bytes)}"
    kind = kind_of(variant, target)
    return Dot(
        name=variant.name,
        x=across.at(x),
        y=up.at(y),
        low=None if low is None else up.at(low),
        kind=kind,
        told=told,
    )


def kind_of(variant: Variant, target: Target) -> Kind:
    """What the gate said of it."""
    if variant.name == target.chosen:
        return "chosen"
    if variant is target.baseline or variant.name == BASELINE:
        return "baseline"
    return "accepted" if variant.accepted else "rejected"


def best_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those places that no other one beats, from left to right: smaller is better in both."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


def _line(points: Sequence[tuple[float, float]]) -> str:
    """The front as the path of an SVG: to the right one keeps the score that one has."""
    best = best_of(points)
    if not best:
        return ""
    steps = [f"M{best[0][0]},{best[0][1]}"] + [f"H{x}V{y}" for x, y in best[1:]]
    return "".join([*steps, f"H{RIGHT}"])


def _shown(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _labelled(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """The dots with their names beside them, each where no other name or dot stands."""
    taken = [(dot.x - 6, dot.y - 6, dot.x + 6, dot.y + 6) for dot in dots]
    found: list[Dot] = []
    for dot in dots:
        place = _free(dot, taken) if len(found) < _MOST_LABELS else None
        found.append(Dot(dot.name, dot.x, dot.y, dot.low, dot.kind, dot.told, place))
    return tuple(found)


def _free(
    dot: Dot, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, Literal["start", "end"]] | None:
    """A free place for a name, which is then taken."""
    wide = _LETTER * len(dot.shown)
    sides: tuple[Literal["start", "end"], ...] = ("start", "end")
    for shift in _SHIFTS:
        for side in sides:
            x = dot.x + 10 if side == "start" else dot.x - 10
            left, right = (x, x + wide) if side == "start" else (x - wide, x)
            box = (left, dot.y + shift - 7, right, dot.y + shift - 7 + _LINE)
            inside = left >= LEFT and right <= WIDTH and box[1] >= 0 and box[3] <= BOTTOM
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                return x, round(dot.y + shift + 4, 1), side
    return None


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
