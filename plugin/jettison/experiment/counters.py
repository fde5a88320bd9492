"""The counters of an experiment: one state a node, merged in any order, as often as one likes.

A node counts for itself and hands on its whole state under a number that grows. Of two states of one node
the later one counts, so a state that comes twice, late or by two roads changes nothing; over nodes the
tallies are added. Standard library only: the router keeps these inside Triton.

Source: G-Counter in M. Shapiro et al., A comprehensive study of convergent and commutative replicated data
types, INRIA 7506 (2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

from jettison.core.errors import InputError
from jettison.experiment.tally import Tally

WHOLE = "all"
"""The slice that every unit belongs to."""


@dataclass(frozen=True)
class Counters:
    """What one node has counted for one experiment, by slice.

    Args:
        experiment: The experiment's id.
        node: Its name, unique in the experiment.
        epoch: A number that the node raises when it has lost its counts and begins anew from zero, so that
            what it counted before stays.
        sequence: The number of the state; it grows with every state that the node hands on.
        slices: (slice, its tally), sorted by name; `WHOLE` has every unit.
        signature: HMAC of all else, or "" where nobody signed.
    """

    experiment: str
    node: str
    epoch: int = 0
    sequence: int = 0
    slices: tuple[tuple[str, Tally], ...] = ()
    signature: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What two states share of which only the later one counts."""
        return self.node, self.epoch

    def counting(self, more: Mapping[str, Tally]) -> Counters:
        """The node's next state: more units, by slice; no longer signed."""
        tallies = dict(self.slices)
        for name, tally in more.items():
            tallies[name] = tallies.get(name, Tally()) + tally
        return replace(self, sequence=self.sequence + 1, slices=tuple(sorted(tallies.items())), signature="")

    def is_within(self, later: Counters) -> bool:
        """Whether no count is higher than in `later`."""
        grown = dict(later.slices)
        return all(tally.is_within(grown.get(name, Tally())) for name, tally in self.slices)


@dataclass(frozen=True)
class CounterSet:
    """The counters of some nodes of one experiment: the latest state that is known of each.

    Args:
        experiment: The experiment's id.
        states: One a node and epoch, sorted by them.
    """

    experiment: str
    states: tuple[Counters, ...] = field(default=())

    def tally(self, name: str = WHOLE) -> Tally:
        """The sum over the nodes for one slice; empty where no node has seen it."""
        found = (tally for state in self.states for part, tally in state.slices if part == name)
        return reduce(Tally.__add__, found, Tally())

    @property
    def nodes(self) -> int:
        """How many nodes are in it."""
        return len({state.node for state in self.states})


def counter_set(states: Iterable[Counters], *, experiment: str) -> CounterSet:
    """The states as a set, of each node and epoch the latest.

    Raises:
        InputError: A state is of another experiment; two states of one node contradict each other.
    """
    latest: dict[tuple[str, int], Counters] = {}
    for state in states:
        if state.experiment != experiment:
            raise InputError(
                f"counters of node {state.node!r}",
                detail=f"expected experiment {experiment}, found {state.experiment}",
                fix="Merge and judge each experiment by itself",
            )
        known = latest.get(state.key)
        latest[state.key] = state if known is None else _later(known, state)
    return CounterSet(experiment, tuple(latest[key] for key in sorted(latest)))


def merge(first: CounterSet, *others: CounterSet) -> CounterSet:
    """All that any of them knows; order and repetition change nothing.

    Raises:
        InputError: They are of different experiments, or two states of one node contradict each other.
    """
    states = (state for some in (first, *others) for state in some.states)
    return counter_set(states, experiment=first.experiment)


def _later(one: Counters, other: Counters) -> Counters:
    earlier, later = sorted((one, other), key=lambda state: (state.sequence, state.signature))
    if earlier.is_within(later) and (earlier.sequence < later.sequence or later.is_within(earlier)):
        return later
    raise InputError(
        f"counters of node {one.node!r}",
        detail=(
            f"states {earlier.sequence} and {later.sequence} of epoch {one.epoch} contradict each other: "
            f"a count fell, or differs at the same number"
        ),
        fix="Give every node a name of its own, and let a node that lost its counts raise its epoch",
    )
