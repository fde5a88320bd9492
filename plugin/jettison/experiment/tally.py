"""What is counted: whole numbers that only grow, and that add up over nodes in any order.

Everything that a verdict says is computed from these. They are small (a score takes one of 4,001 bins), they
are exact, and they do not depend on the margin, so that an auditor can ask other questions of them.
Standard library only: the router counts inside Triton.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

from jettison.core.errors import InputError

MOST_COUNTED = 2**53
"""Whole numbers above that are no longer exact as float64, with which the formulas reckon."""

BUCKETS = 10_000
"""Traffic is given out by hash in so many buckets; a weight is how many of them the candidate has."""

_STEPS = 1000
"""A score is kept to a thousandth: what lies between two is counted as lying between them."""


@dataclass(frozen=True)
class Arms:
    """Split traffic at one weight of the candidate, or the errors of pairs at half of `BUCKETS`.

    Args:
        baseline_units: Units that were given to the baseline; 0 where every unit goes to both.
        candidate_units: Units that were given to the candidate.
        baseline_errors: Requests that failed there.
        candidate_errors: Requests that failed here.
    """

    baseline_units: int = 0
    candidate_units: int = 0
    baseline_errors: int = 0
    candidate_errors: int = 0

    def __add__(self, other: Arms) -> Arms:
        return Arms(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(Arms)))


_Count = TypeVar("_Count", int, Arms)
_Keyed = tuple[tuple[int, _Count], ...]


@dataclass(frozen=True)
class Tally:
    """The counts of one slice of the units, such as all of them, or those with a pedestrian.

    A unit (clip, study, device-hour) is counted once in each line that applies.

    Args:
        better: Units on which the candidate was right and the baseline was not.
        same: Units on which either was as good, also those on which both answered alike, as soon as they did.
        worse: Units on which the baseline was right and the candidate was not.
        scores: Units with a score between those three: (bin, units), see `bin_of`.
        agree: Units on which both answered alike, labels or not.
        disagree: Units on which they did not.
        offered: Units of which both were asked.
        baseline_lost: Those without an answer of the baseline, which cannot be compared.
        candidate_lost: Those with an answer of the baseline only; counted in no line above.
        within_limit: Requests that the candidate answered within the latency limit.
        over_limit: Requests that took it longer.
        arms: (weight of the candidate in buckets, its `Arms`).
    """

    better: int = 0
    same: int = 0
    worse: int = 0
    scores: tuple[tuple[int, int], ...] = ()
    agree: int = 0
    disagree: int = 0
    offered: int = 0
    baseline_lost: int = 0
    candidate_lost: int = 0
    within_limit: int = 0
    over_limit: int = 0
    arms: tuple[tuple[int, Arms], ...] = ()

    def __add__(self, other: Tally) -> Tally:
        sums = {name: getattr(self, name) + getattr(other, name) for name in PLAIN}
        scores, arms = _added(self.scores, other.scores), _added(self.arms, other.arms)
        return Tally(**sums, scores=scores, arms=arms)

    @property
    def judged(self) -> int:
        """Units whose score is known."""
        return self.better + self.same + self.worse + sum(count for _, count in self.scores)

    @property
    def pending(self) -> int:
        """Units of which both were asked and whose score is not known yet, nor an answer lost.

        They are disagreements that wait for a label, or answers under way. To leave them out would favour the
        candidate, since agreements are known at once.
        """
        begun = max(self.offered - self.baseline_lost, self.agree + self.disagree + self.candidate_lost)
        return max(0, begun - self.judged - self.candidate_lost)

    @property
    def unanswered(self) -> int:
        """Units of which both were asked and of which nothing is known, not even a lost answer."""
        known = self.baseline_lost + self.candidate_lost + self.agree + self.disagree
        return max(0, self.offered - known)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Every count under a name of its own."""
        yield from ((name, getattr(self, name)) for name in PLAIN)
        yield from ((f"scores.{place}", count) for place, count in self.scores)
        for weight, arms in self.arms:
            yield from ((f"arms.{weight}.{part.name}", getattr(arms, part.name)) for part in fields(Arms))

    def is_within(self, later: Tally) -> bool:
        """Whether every count is at most that of `later`, as it must be of one node's earlier state."""
        grown = dict(later.counts())
        return all(count <= grown.get(name, 0) for name, count in self.counts())


PLAIN = tuple(part.name for part in fields(Tally) if part.name not in ("scores", "arms"))
"""The names of the counts that are plain numbers."""


def unit_tally(score: float) -> Tally:
    """The tally of one unit with that score: 1 better, 0 the same, -1 worse, or the mean of its parts.

    Raises:
        InputError: The score is not from -1 to 1.
    """
    place = bin_of(score)
    whole = {2 * _STEPS: Tally(better=1), 0: Tally(same=1), -2 * _STEPS: Tally(worse=1)}
    return whole.get(place) or Tally(scores=((place, 1),))


def bin_of(score: float) -> int:
    """The bin of a score from -1 to 1: an even number for a whole number of thousandths, an odd one between.

    Bin 2k holds k/1000 itself, bin 2k + 1 what lies between it and (k + 1)/1000. The verdict takes the end
    that speaks against what it would conclude, which costs nothing where most units score 0.

    Raises:
        InputError: The score is not from -1 to 1.
    """
    if not -1 <= score <= 1:
        raise InputError(
            "score of a unit",
            detail=f"expected a number from -1 (worse) to 1 (better), found {score!r}",
            fix="Reduce each unit to one score in that range, such as the mean over its frames",
        )
    nearest = round(score * _STEPS)
    if nearest / _STEPS == score:
        return 2 * nearest
    return 2 * math.floor(score * _STEPS) + 1


def scores_at_least(tally: Tally) -> list[tuple[float, int]]:
    """The fractional scores with their bins' lower ends: what every unit scored at least."""
    return [((place // 2) / _STEPS, count) for place, count in tally.scores]


def scores_at_most(tally: Tally) -> list[tuple[float, int]]:
    """The fractional scores with their bins' upper ends: what every unit scored at most."""
    return [(((place + 1) // 2) / _STEPS, count) for place, count in tally.scores]


def fractional_bins() -> range:
    """The bins of scores between -1 and 1; 0 among them, which has a count of its own."""
    return range(1 - 2 * _STEPS, 2 * _STEPS)


def _added(first: _Keyed[_Count], second: _Keyed[_Count]) -> _Keyed[_Count]:
    sums = dict(first)
    for key, value in second:
        sums[key] = sums[key] + value if key in sums else value
    return tuple(sorted(sums.items(), key=lambda entry: entry[0]))
