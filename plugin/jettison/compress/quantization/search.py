"""Which layers to quantize: the front between predicted time and predicted damage.

For a weight w the search minimizes T(S) / T(all float) + w * D(S) / D(all integer), T from the cost model
with its border costs, D the sum of layer damages. Borders make single layers poor moves, so it moves whole
segments of neighbouring layers as well, from several starts, and every choice it meets goes on the front.
Ablation: docs/adr (search); measured in benchmarks/guarantee.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_WEIGHTS = tuple(float(weight) for weight in np.geomspace(0.02, 20.0, 13))
_SEGMENTS = (1, 2, 3, 5, 8)
_MOST_SWEEPS = 6

Cost = Callable[[frozenset[str]], float]
"""The predicted cost of quantizing exactly these layers."""


@dataclass(frozen=True)
class Point:
    """One choice of layers with its predicted cost and damage."""

    layers: frozenset[str]
    cost: float
    damage: float


@dataclass
class Search:
    """Walks from choice to choice; `met` holds every choice that was priced.

    `order` is the order of layers in the graph, in which segments are neighbours.
    """

    order: Sequence[str]
    damages: Mapping[str, float]
    cost: Cost
    met: dict[frozenset[str], Point] = field(default_factory=dict)

    def front(self) -> list[Point]:
        """The choices that no other beats in both cost and damage, the cheapest first."""
        for start in self._starts():
            choice = start
            for weight in _WEIGHTS:
                choice = self._descend(choice, weight)
        return pareto(self.met.values())

    def neighbours(self, point: Point) -> list[Point]:
        """The cheaper choices that one more segment in integers makes, the least damage per gain first."""
        moved = {point.layers | segment for segment in self._segments()} - {point.layers}
        cheaper = [found for layers in moved if (found := self.price(layers)).cost < point.cost]
        return sorted(cheaper, key=lambda found: (found.damage - point.damage) / (point.cost - found.cost))

    def price(self, layers: frozenset[str]) -> Point:
        """The choice with its predicted figures."""
        if layers not in self.met:
            damage = sum(self.damages[name] for name in layers)
            self.met[layers] = Point(layers, self.cost(layers), damage)
        return self.met[layers]

    def _starts(self) -> Iterator[frozenset[str]]:
        yield frozenset(self.order)
        yield frozenset()

    def _descend(self, start: frozenset[str], weight: float) -> frozenset[str]:
        """The best choice that moves of segments reach from `start`."""
        cost_unit = max(self.price(frozenset()).cost, 1e-12)
        damage_unit = max(self.price(frozenset(self.order)).damage, 1e-30)

        def value(layers: frozenset[str]) -> float:
            point = self.price(layers)
            return point.cost / cost_unit + weight * point.damage / damage_unit

        best, best_value = start, value(start)
        for _ in range(_MOST_SWEEPS):
            before = best_value
            for segment in self._segments():
                for moved in (best - segment, best | segment):
                    if moved != best and (found := value(moved)) < best_value:
                        best, best_value = moved, found
            if best_value >= before:
                break
        return best

    def _segments(self) -> Iterator[frozenset[str]]:
        for length in _SEGMENTS:
            for first in range(0, len(self.order) - length + 1, max(1, length // 2)):
                yield frozenset(self.order[first : first + length])


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both figures, by growing cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda found: (found.cost, found.damage)):
        if not front or point.damage < front[-1].damage:
            front.append(point)
    return front


def spread(front: Sequence[Point], count: int) -> list[Point]:
    """At most `count` points of the front, ends included; the untouched model is none.

    Even along the front with decibels and cost each scaled to 1, so that neither its steep end, where a
    little time buys much accuracy, nor its flat one is passed over.
    """
    front = [point for point in front if point.layers]
    if len(front) <= count:
        return front
    decibels = np.log([max(point.damage, 1e-30) for point in front])
    costs = np.array([point.cost for point in front])
    steps = np.abs(np.diff(decibels)) / max(float(np.ptp(decibels)), 1e-12)
    steps += np.abs(np.diff(costs)) / max(float(np.ptp(costs)), 1e-12)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0.0, along[-1], count)
    return [front[index] for index in sorted({int(np.abs(along - place).argmin()) for place in wanted})]
