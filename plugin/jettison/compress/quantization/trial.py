"""Joint evaluations of choices of layers: few of them, each once, and an answer whatever cuts them short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jettison.compress.passes import Measurement
from jettison.compress.quantization.search import Point, Search

Judge = Callable[[frozenset[str]], Measurement]
"""The joint evaluation of the model with exactly these layers in integers."""


@dataclass
class Trial:
    """Evaluates points until one holds the tolerance, as many as were allowed.

    `is_cut_short`: the time ran out before all was tried that would have been. `is_incomplete`: the front was
    not searched through, for want of time or of evaluations. `are_too_few`: the samples cannot prove the
    tolerance of any choice, so that scores alone decided.
    """

    judge: Judge
    tolerance: float
    budget: int
    is_out_of_time: Callable[[], bool] = lambda: False
    measured: dict[frozenset[str], Measurement] = field(default_factory=dict)
    is_cut_short: bool = False
    is_incomplete: bool = False
    are_too_few: bool = False

    def fastest(self, front: Sequence[Point]) -> Point | None:
        """The cheapest point of the front that holds; None where not even the one with least damage does.

        The cheapest one is judged first, so that nothing else is tried where integers cost no accuracy. Then
        by halving, since more damage is taken to score less. Where that is cut short before anything held,
        the one with the least damage is judged in its place, beyond the time if need be.
        """
        if self.holds(front[0]):
            return front[0]
        low, high, best = 1, len(front) - 1, None
        while low <= high and self._may_go_on(reserve=best is None):
            middle = (low + high) // 2
            if self.holds(front[middle]):
                best, high = front[middle], middle - 1
            else:
                low = middle + 1
        self.is_incomplete = low <= high
        if best is None and self.is_incomplete and self.holds(front[-1]):
            best = front[-1]
        return best

    def take_back(self, best: Point, search: Search) -> Point:
        """Cheaper choices around the best one, the most promising first, while evaluations are left."""
        for point in search.neighbours(best):
            if not self._may_go_on():
                break
            if point.cost < best.cost and self.holds(point):
                best = point
        return best

    def holds(self, point: Point) -> bool:
        """Whether the score of that choice, at worst, stays within the tolerance.

        Where the samples are too few to prove that of any choice, the score itself decides: the verdict is
        not theirs, and a choice by an impossible rule would keep nearly all layers in float.
        """
        if point.layers not in self.measured:
            self.measured[point.layers] = self.judge(point.layers)
        found = self.measured[point.layers]
        if found.best_low < -self.tolerance:
            self.are_too_few = True
            return found.score_delta >= -self.tolerance
        return found.score_delta_low >= -self.tolerance

    def _may_go_on(self, *, reserve: bool = False) -> bool:
        """Whether there is an evaluation left, beside one held in reserve, and time for it."""
        if len(self.measured) + reserve >= self.budget:
            return False
        self.is_cut_short = self.is_cut_short or self.is_out_of_time()
        return not self.is_cut_short
