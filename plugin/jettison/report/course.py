"""The course of an experiment on live traffic: e-values over the units that were judged.

The values come from the command line, which reads verdicts and histories; this floor knows neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jettison.report.axes import Axis, Tick, axis_over
from jettison.report.words import is_known

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 706, 12, 222
_MOST_POINTS = 300
COLOURS = 6
"""Lines with a colour of their own; more of them begin again, with their name at hand."""


@dataclass(frozen=True)
class EValue:
    """One test: what it would show, and how far it has come; `threshold` is of e, not of its logarithm."""

    name: str
    role: str
    claim: str
    log_e: float
    threshold: float
    reached: bool


@dataclass(frozen=True)
class Look:
    """What was seen at one time: the units judged, and the logarithm of each e-value."""

    at: str
    units: int
    log_e: Mapping[str, float]


@dataclass(frozen=True)
class Course:
    """A verdict, and the looks before it."""

    experiment: str
    decision: str
    reasons: tuple[str, ...]
    units: int
    pending: int
    tests: tuple[EValue, ...]
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Line:
    """One test's e-value as the path of an SVG, and its number among the colours."""

    name: str
    path: str
    colour: int


@dataclass(frozen=True)
class CourseChart:
    """All lines, and the places of the thresholds that they have to reach."""

    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    lines: tuple[Line, ...]
    thresholds: tuple[Tick, ...]


def chart_of(course: Course) -> CourseChart | None:
    """The chart, in powers of ten; None where fewer than two looks are known."""
    looks = _thinned(course.looks)
    known = [_tens(value) for look in looks for value in look.log_e.values() if is_known(value)]
    if len(looks) < 2 or not known:
        return None
    asked = sorted(
        {test.threshold for test in course.tests if is_known(test.threshold) and test.threshold > 0}
    )
    heights = [math.log10(value) for value in asked]
    across = axis_over([float(look.units) for look in looks], LEFT, RIGHT, margin=0.0)
    up = axis_over([*known, *heights, 0.0], BOTTOM, TOP)
    lines = (_line(test.name, index, looks, across=across, up=up) for index, test in enumerate(course.tests))
    marks = zip(asked, heights, strict=True)
    return CourseChart(
        across.ticks(6),
        up.ticks(5),
        tuple(line for line in lines if line.path),
        tuple(Tick(up.at(height), f"{value:g}") for value, height in marks),
    )


def _thinned(looks: Sequence[Look]) -> Sequence[Look]:
    step = max(1, -(-len(looks) // _MOST_POINTS))
    return [*looks[:-1:step], *looks[-1:]]


def _tens(log_e: float) -> float:
    return log_e / math.log(10)


def _line(name: str, index: int, looks: Sequence[Look], *, across: Axis, up: Axis) -> Line:
    values = ((look.units, look.log_e.get(name)) for look in looks)
    points = [(units, value) for units, value in values if is_known(value)]
    path = "L".join(f"{across.at(units)},{up.at(_tens(value))}" for units, value in points)
    return Line(name, f"M{path}" if len(points) > 1 else "", index % COLOURS)
