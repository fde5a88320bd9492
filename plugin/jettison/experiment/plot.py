"""The course of an experiment as an SVG: every e-value that decides, and the bounds of the difference.

Written here, since a library for two panels of lines would be the largest dependency of the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from jettison.experiment.history import Snapshot
from jettison.experiment.settings import Settings

_WIDTH, _HEIGHT = 760, 520
_LEFT, _RIGHT, _TOP, _GAP = 64, 150, 56, 48
_PANEL = (_HEIGHT - _TOP - 2 * _GAP) / 2
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Told apart by colour-blind readers. Source: Okabe and Ito, Color Universal Design (2008)."""
_LOWEST = 1e-3
"""Chosen: an e-value below that says no more than "not at all"."""

Scale = Callable[[float], float]
Point = tuple[float, float]


def plot(settings: Settings, looks: Sequence[Snapshot]) -> str:
    """The SVG's text; with one look or none it says that more are needed."""
    title = f"{settings.name}: {looks[-1].decision if looks else 'no look yet'}"
    body = [_text(_LEFT, 24, title, "title")]
    if looks:
        first, last = looks[0].at, looks[-1].at
        body.append(_text(_LEFT, 42, f"{len(looks)} looks from {first} to {last}", "small"))
        x = _scale(0, max(1, *(look.units for look in looks)), _LEFT, _WIDTH - _RIGHT)
        body += _evidence(settings, looks, x)
        body += _figures(settings, looks, x)
        body += _units_axis(max(1, *(look.units for look in looks)), x)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", _STYLE, *body, "</svg>", ""])


def _evidence(settings: Settings, looks: Sequence[Snapshot], x: Scale) -> Iterator[str]:
    """The upper panel: e-values on a logarithmic scale, with what is asked of the main ones."""
    names = [name for name in looks[-1].log_e if _is_told(name, looks)]
    values = [_log10(look.log_e.get(name, 0.0)) for look in looks for name in names]
    asked = -math.log10(settings.alpha)
    low, high = math.floor(min([*values, 0.0])), math.ceil(max([*values, asked + 0.5]))
    y = _scale(low, high, _TOP + _PANEL, _TOP)
    yield _text(_LEFT, _TOP - 4, "e-values: how strongly the units speak for each claim", "head")
    for power in range(low, high + 1, max(1, (high - low) // 6)):
        yield _rule(y(power), "grid")
        yield _text(_LEFT - 8, y(power) + 4, _power(power), "tick")
    yield _rule(y(asked), "asked")
    yield _text(_WIDTH - _RIGHT + 6, y(asked) - 4, f"{1 / settings.alpha:.4g} is asked", "small")
    ends = _spread([y(_log10(looks[-1].log_e[name])) for name in names])
    for index, name in enumerate(names):
        colour = _COLOURS[index % len(_COLOURS)]
        points = [(x(look.units), y(_log10(look.log_e.get(name, 0.0)))) for look in looks]
        yield _line(points, colour)
        yield _text(_WIDTH - _RIGHT + 6, ends[index] + 4, name, "name", colour)


def _figures(settings: Settings, looks: Sequence[Snapshot], x: Scale) -> Iterator[str]:
    """The lower panel: the figure with bounds that hold at every look at once, and the margin."""
    is_difference = settings.evidence == "labels"
    known = [(look.units, look.figure) for look in looks if look.figure and look.figure.value is not None]
    margin = -settings.margin if is_difference else settings.margin
    what = "difference" if is_difference else "share of disagreements"
    top = _TOP + _PANEL + _GAP
    yield _text(_LEFT, top - 4, f"{what}, with bounds that hold at every look at once", "head")
    reach = _reach([figure.value or 0.0 for _, figure in known], settings.margin)
    y = _scale(-reach if is_difference else 0.0, reach, top + _PANEL, top)
    for value in _ticks(reach, is_difference=is_difference):
        yield _rule(y(value), "grid")
        yield _text(_LEFT - 8, y(value) + 4, f"{value:+.3g}" if is_difference else f"{value:.3g}", "tick")
    yield _rule(y(margin), "asked")
    yield _text(_WIDTH - _RIGHT + 6, y(margin) + 4, f"margin {margin:+.4g}", "small")
    clipped = _scale_within(y, top, top + _PANEL)
    band = [(x(units), clipped(figure.high)) for units, figure in known]
    band += [(x(units), clipped(figure.low)) for units, figure in reversed(known)]
    if band:
        yield f'<polygon class="band" points="{_points(band)}"/>'
        yield _line([(x(units), clipped(figure.value or 0.0)) for units, figure in known], _COLOURS[0])


def _units_axis(most: int, x: Scale) -> Iterator[str]:
    bottom = _TOP + 2 * _PANEL + _GAP
    for part in range(5):
        units = most * part / 4
        yield _text(x(units), bottom + 18, f"{units:,.0f}", "unit")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "units judged", "unit")


def _is_told(name: str, looks: Sequence[Snapshot]) -> bool:
    """Whether it is drawn: the claims about quality, and guards that were ever moved."""
    is_main = name in ("quality", "quality-against", "agreement")
    return is_main or any(look.log_e.get(name, 0.0) > 0 for look in looks)


def _log10(log_e: float) -> float:
    return max(log_e, math.log(_LOWEST)) / math.log(10)


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -4 < power < 5 else f"1e{power}"


def _reach(values: Sequence[float], margin: float) -> float:
    return 1.15 * max([2 * margin, *(abs(value) for value in values)])


def _ticks(reach: float, *, is_difference: bool) -> list[float]:
    power = 10 ** math.floor(math.log10(reach))
    step = next(power * part for part in (0.5, 0.2, 0.1) if reach / (power * part) >= 2)
    count = int(reach / step)
    return [step * place for place in range(-count if is_difference else 0, count + 1)]


def _spread(places: Sequence[float], apart: float = 14.0) -> list[float]:
    """The places moved down so that no two names stand on each other."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    found, last = list(places), -math.inf
    for index in order:
        last = found[index] = max(places[index], last + apart)
    return found


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _scale_within(scale: Scale, top: float, bottom: float) -> Scale:
    return lambda value: min(max(scale(value), top), bottom)


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(points: Sequence[Point], colour: str) -> str:
    ends = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points[-1:])
    return f'<polyline class="line" stroke="{colour}" points="{_points(points)}"/>{ends}'


def _rule(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, colour: str = "") -> str:
    fill = f' fill="{colour}"' if colour else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{fill}>{escape(text)}</text>'


_STYLE = """<style>
svg { background: #fff; font: 12px sans-serif; }
.title { font-size: 16px; font-weight: bold; }
.head { font-weight: bold; }
.small, .tick, .unit { font-size: 11px; fill: #555; }
.tick { text-anchor: end; }
.unit { text-anchor: middle; }
.grid { stroke: #e3e3e3; }
.asked { stroke: #222; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 2; }
.band { fill: #0072b2; fill-opacity: 0.15; }
</style>"""
