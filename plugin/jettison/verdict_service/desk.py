"""Counters in, verdicts out: what is known of every experiment, and what follows.

Nothing is told before it is on disk. The first verdict other than `continue` ends an experiment and stands:
e-values may fall again after they had reached what was asked, and a rollout has acted by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jettison.core.errors import InputError
from jettison.experiment.counters import Counters, CounterSet, counter_set
from jettison.experiment.registry import is_ending
from jettison.experiment.settings import Settings
from jettison.experiment.verdict import Verdict, decide
from jettison.verdict_service.kept import Kept, Shelf

MOST_CONTRADICTIONS = 20
"""Chosen: one makes the comparison invalid; more are for whoever looks for the cause."""


@dataclass(frozen=True)
class Standing:
    """How an experiment stands, as it is on disk.

    Args:
        settings: What is asked.
        kept: What is known.
        verdict: What follows: the one that ended it, else that of the latest counters.
    """

    settings: Settings
    kept: Kept
    verdict: Verdict


class Desk:
    """All experiments; `take` and `open` from any thread.

    Args:
        shelf: Where they are kept.
        now: The time in ISO 8601.
    """

    def __init__(self, shelf: Shelf, *, now: Callable[[], str]) -> None:
        self._shelf, self._now = shelf, now
        self._lock = threading.Lock()
        self._standings: dict[str, Standing] = {}
        self.write_error = ""

    @property
    def standings(self) -> Mapping[str, Standing]:
        """By the experiment's id; replaced as a whole, never changed."""
        return self._standings

    def open(self, settings: Settings) -> None:
        """Begin with an experiment, or go on with it; one that is open stays as it is.

        Raises:
            InputError: Its file holds no state.
        """
        with self._lock:
            if settings.id not in self._standings:
                kept = self._shelf.read(settings.id)
                verdict = kept.ending or decide(settings, kept.counters)
                self._put(Standing(settings, kept, verdict))

    def find(self, name: str) -> Standing | None:
        """By id, or by a name that one experiment alone has."""
        standings = self._standings
        named = [standing for standing in standings.values() if standing.settings.name == name]
        return standings.get(name) or (named[0] if len(named) == 1 else None)

    def take(self, states: Iterable[Counters]) -> None:
        """States of nodes, in any order and as often as one likes; those of unknown experiments are dropped.

        Raises:
            OSError: They cannot be written. What is told stays as it was, until they come again.
        """
        by_experiment: dict[str, list[Counters]] = {}
        for state in states:
            by_experiment.setdefault(state.experiment, []).append(state)
        with self._lock:
            try:
                for experiment, some in by_experiment.items():
                    if (standing := self._standings.get(experiment)) is not None:
                        self._take(standing, some)
            except OSError as error:
                self.write_error = error.strerror or str(error)
                raise
            self.write_error = ""

    def _take(self, standing: Standing, states: list[Counters]) -> None:
        counters, contradictions = _merged(standing.kept.counters, states)
        known = standing.kept.contradictions
        contradictions = (*known, *(text for text in contradictions if text not in known))
        contradictions = contradictions[:MOST_CONTRADICTIONS]
        if (counters, contradictions) == (standing.kept.counters, known):
            return
        self._keep(standing, counters, contradictions)

    def _keep(self, standing: Standing, counters: CounterSet, contradictions: tuple[str, ...]) -> None:
        update: dict[str, object] = {"counters": counters, "contradictions": contradictions}
        verdict = standing.kept.ending
        if verdict is None:
            verdict = _verdict(standing.settings, counters, contradictions)
            if is_ending(verdict.decision):
                update |= {"ending": verdict, "ended": self._now()}
        kept = standing.kept.model_copy(update=update)
        self._shelf.write(kept)
        self._put(Standing(standing.settings, kept, verdict))

    def _put(self, standing: Standing) -> None:
        self._standings = {**self._standings, standing.settings.id: standing}


def _verdict(settings: Settings, counters: CounterSet, contradictions: tuple[str, ...]) -> Verdict:
    """What follows; counters that contradict each other prove nothing but harm."""
    verdict = decide(settings, counters)
    is_harm = any(entry.role == "guard" and entry.reached for entry in verdict.e_values)
    if is_harm or not contradictions:
        return verdict
    reasons = (*contradictions, *verdict.reasons)
    return verdict.model_copy(update={"decision": "invalid", "reasons": reasons})


def _merged(known: CounterSet, states: list[Counters]) -> tuple[CounterSet, tuple[str, ...]]:
    """All together; those that contradict what is known are left out and told."""
    try:
        return counter_set((*known.states, *states), experiment=known.experiment), ()
    except InputError:
        contradictions = []
        for state in states:
            known, text = _with(known, state)
            contradictions += [text] if text else []
        return known, tuple(contradictions)


def _with(known: CounterSet, state: Counters) -> tuple[CounterSet, str]:
    """One state more, or why not."""
    try:
        return counter_set((*known.states, state), experiment=known.experiment), ""
    except InputError as error:
        return known, f"{error.what}: {error.detail}"
