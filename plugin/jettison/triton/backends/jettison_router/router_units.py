"""Units that are open, and the counts of those that are complete.

A unit (a clip, a study) is what is independent of the next one; its requests are not. So what its requests
give is gathered until it is complete, and counted once. Standard library only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

WHOLE = "all"
"""The slice that every unit belongs to."""
PAIR_WEIGHT = 5000
"""Where every unit goes to both, errors are counted at half of the buckets."""
MOST_SLICES = 64
"""Chosen: more names than that are a client's mistake, such as a time; they count in the whole only."""

AGREE, DISAGREE, BASELINE_LOST, CANDIDATE_LOST, ANSWERED = range(5)
"""What a request gave: the answers compared, one of them missing, or nothing that is compared."""

Tally = dict[str, int]
Arm = dict[str, int]
Differing = tuple[str, list[str]]
"""The id of a unit that was counted as `disagree`, and its slices besides the whole."""


class Event(NamedTuple):
    """What became of one request.

    Args:
        unit: Its unit's id.
        outcome: One of the five above.
        weight: The candidate's, where one of the two answered; 0 where both were asked.
        is_candidates: Whether the candidate had it, where one of the two did.
        slice: The part of the units that it belongs to besides the whole; "" for none.
        baseline_errors: 1 where the baseline failed.
        candidate_errors: 1 where the candidate failed.
        within_limit: 1 where the candidate answered in time.
        over_limit: 1 where it was late.
    """

    unit: str
    outcome: int
    weight: int = 0
    is_candidates: bool = False
    slice: str = ""
    baseline_errors: int = 0
    candidate_errors: int = 0
    within_limit: int = 0
    over_limit: int = 0


@dataclass
class Counts:
    """Whole numbers of one slice that only grow: plain ones, and the arms by weight."""

    plain: Tally = field(default_factory=dict)
    arms: dict[int, Arm] = field(default_factory=dict)

    def add(self, name: str, count: int = 1) -> None:
        """That many more."""
        if count:
            self.plain[name] = self.plain.get(name, 0) + count

    def add_arm(self, weight: int, name: str, count: int = 1) -> None:
        """That many more at a weight; nothing where one of the two has all the traffic."""
        if count and 0 < weight < 2 * PAIR_WEIGHT:
            arm = self.arms.setdefault(weight, {})
            arm[name] = arm.get(name, 0) + count


@dataclass
class Unit:
    """What an open unit gave so far; nothing in it depends on the order of its requests but `first`."""

    first: Event
    last_s: float
    requests: int = 0
    outcomes: set[int] = field(default_factory=set)
    slices: set[str] = field(default_factory=set)


class Units:
    """The open units of one experiment, and all counts.

    Args:
        idle_s: A unit without a request for so long is complete.
        max_requests: So is one with so many.
        most_open: More than that complete the oldest.
        counts: What was counted before, by slice; grows in place.
    """

    def __init__(
        self,
        *,
        idle_s: float,
        max_requests: int,
        most_open: int,
        counts: dict[str, Counts] | None = None,
    ) -> None:
        self._idle_s, self._max_requests, self._most_open = idle_s, max_requests, most_open
        self.counts = {} if counts is None else counts
        self._open: OrderedDict[str, Unit] = OrderedDict()
        self._closed: OrderedDict[str, None] = OrderedDict()
        self.newly_closed: list[str] = []
        self.newly_differing: list[Differing] = []
        self.late = 0

    @property
    def most_closed(self) -> int:
        """So many complete units are remembered, to know a late request of one."""
        return 4 * self._most_open

    def add(self, event: Event, now_s: float) -> None:
        """One request more; of a complete unit only its errors and its latency count."""
        self._count_request(event)
        if self._max_requests == 1:
            self._count_unit(Unit(event, now_s, 1, {event.outcome}, {event.slice}))
            return
        if event.unit in self._closed:
            self.late += 1
            return
        unit = self._open.pop(event.unit, None) or Unit(event, now_s)
        unit.requests, unit.last_s = unit.requests + 1, now_s
        unit.outcomes.add(event.outcome)
        unit.slices.add(event.slice)
        self._open[event.unit] = unit
        if unit.requests >= self._max_requests:
            self._close(event.unit)
        while len(self._open) > self._most_open:
            self._close(next(iter(self._open)))

    def close_idle(self, now_s: float) -> None:
        """Complete the units that have had no request for long; the idlest stand first."""
        while self._open:
            oldest = next(iter(self._open))
            if now_s - self._open[oldest].last_s < self._idle_s:
                return
            self._close(oldest)

    def close_all(self) -> None:
        """Complete every unit."""
        for name in list(self._open):
            self._close(name)

    def __len__(self) -> int:
        return len(self._open)

    def remember(self, closed: Iterable[str]) -> None:
        """Units that were counted before, the latest last."""
        self._closed.update(OrderedDict.fromkeys(closed))

    def remembered(self) -> list[str]:
        """Ids of complete units, the latest last."""
        return list(self._closed)

    def _close(self, name: str) -> None:
        self._count_unit(self._open.pop(name))
        self._closed[name] = None
        self.newly_closed.append(name)
        while len(self._closed) > self.most_closed:
            self._closed.popitem(last=False)

    def _count_request(self, event: Event) -> None:
        weight = event.weight or PAIR_WEIGHT
        for counts in self._slices({event.slice}):
            counts.add("within_limit", event.within_limit)
            counts.add("over_limit", event.over_limit)
            counts.add_arm(weight, "baseline_errors", event.baseline_errors)
            counts.add_arm(weight, "candidate_errors", event.candidate_errors)

    def _count_unit(self, unit: Unit) -> None:
        for counts in self._slices(unit.slices):
            if unit.first.weight:
                name = "candidate_units" if unit.first.is_candidates else "baseline_units"
                counts.add_arm(unit.first.weight, name)
            for name in _lines(unit.outcomes):
                counts.add(name)
        if "disagree" in _lines(unit.outcomes):
            self.newly_differing.append((unit.first.unit, sorted(unit.slices - {"", WHOLE})))

    def _slices(self, names: set[str]) -> Iterator[Counts]:
        yield self.counts.setdefault(WHOLE, Counts())
        for name in names - {"", WHOLE}:
            if name in self.counts or len(self.counts) <= MOST_SLICES:
                yield self.counts.setdefault(name, Counts())


def _lines(outcomes: set[int]) -> tuple[str, ...]:
    """The counts that grow by one for a unit of which both were asked.

    An answer that the candidate owes outweighs those that it gave; one that the baseline owes leaves nothing
    to compare for that request only.
    """
    if CANDIDATE_LOST in outcomes:
        return "offered", "candidate_lost"
    if DISAGREE in outcomes:
        return "offered", "disagree"
    if AGREE in outcomes:
        return "offered", "agree", "same"
    return ("offered", "baseline_lost") if BASELINE_LOST in outcomes else ()
