"""The service's own metrics: verdicts, evidence, counts, and how its sources do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import get_args

from jettison.experiment.tally import PLAIN
from jettison.experiment.verdict import Decision
from jettison.verdict_service.desk import Desk, Standing
from jettison.verdict_service.exposition import Family, exposition
from jettison.verdict_service.poller import Poller

VALUES: Mapping[Decision, int] = {"promote": 1, "continue": 0, "exhausted": 0, "rollback": -1, "invalid": 0}
"""Of `ab_verdict`: what a rollout acts on; `ab_decision` tells the others apart."""

Labelled = Iterator[tuple[Mapping[str, str], float]]


def text_of(desk: Desk, poller: Poller, pushes: int) -> str:
    """All metrics in Prometheus' text form."""
    return exposition((*_of_experiments(tuple(desk.standings.values())), *_of_service(desk, poller, pushes)))


def _of_experiments(standings: tuple[Standing, ...]) -> Iterator[Family]:
    decisions = get_args(Decision)
    yield Family(
        "ab_verdict", "gauge", "1 promote, -1 rollback, 0 anything else",
        ((_labels(one), VALUES[one.verdict.decision]) for one in standings),
    )  # fmt: skip
    yield Family(
        "ab_decision", "gauge", "1 at what was decided",
        (
            (_labels(one) | {"decision": name}, float(one.verdict.decision == name))
            for one in standings
            for name in decisions
        ),
    )  # fmt: skip
    yield Family(
        "ab_units", "gauge", "Units that are judged",
        ((_labels(one), one.verdict.units) for one in standings),
    )  # fmt: skip
    yield Family(
        "ab_units_pending", "gauge", "Units that wait for a label or an answer",
        ((_labels(one), one.verdict.pending) for one in standings),
    )  # fmt: skip
    yield Family(
        "ab_evidence_log_e", "gauge", "The natural logarithm of each test's e-value", _evidence(standings)
    )
    yield Family(
        "ab_evidence_log_threshold", "gauge", "What is asked of it",
        (
            (_labels(one) | {"test": entry.name, "role": entry.role}, math.log(entry.threshold))
            for one in standings
            for entry in one.verdict.e_values
        ),
    )  # fmt: skip
    yield Family(
        "ab_difference", "gauge", "Candidate minus baseline, with its bounds", _differences(standings)
    )
    yield Family(
        "ab_counted", "gauge", "Counts over all nodes",
        (
            (_labels(one) | {"count": name}, getattr(one.kept.counters.tally(), name))
            for one in standings
            for name in PLAIN
        ),
    )  # fmt: skip
    yield Family(
        "ab_nodes", "gauge", "Nodes that have counted",
        ((_labels(one), one.kept.counters.nodes) for one in standings),
    )  # fmt: skip
    yield Family(
        "ab_contradictions", "gauge", "States of nodes that cannot both be true",
        ((_labels(one), len(one.kept.contradictions)) for one in standings),
    )  # fmt: skip


def _of_service(desk: Desk, poller: Poller, pushes: int) -> Iterator[Family]:
    yield Family(
        "ab_source_last_good_seconds", "gauge", "When a source was read without a problem, since 1970",
        (({"source": name}, time_s) for name, time_s in sorted(poller.good_looks.items())),
    )  # fmt: skip
    yield Family(
        "ab_source_failures_total", "counter", "Looks at a source that met a problem",
        (({"source": name}, count) for name, count in sorted(poller.failed_looks.items())),
    )  # fmt: skip
    yield Family("ab_problems", "gauge", "Problems at the last look", (({}, len(poller.problems)),))
    yield Family("ab_state_is_written", "gauge", "0 while the disk refuses", (({}, not desk.write_error),))
    yield Family("ab_pushes_total", "counter", "Counters that nodes sent and that were kept", (({}, pushes),))


def _labels(standing: Standing) -> dict[str, str]:
    return {"experiment": standing.settings.id, "name": standing.settings.name}


def _evidence(standings: tuple[Standing, ...]) -> Labelled:
    for one in standings:
        for entry in one.verdict.e_values:
            yield _labels(one) | {"test": entry.name, "role": entry.role}, entry.log_e


def _differences(standings: tuple[Standing, ...]) -> Labelled:
    for one in standings:
        bounds = one.verdict.estimates.difference or one.verdict.estimates.disagreement
        if bounds is not None:
            value = math.nan if bounds.value is None else bounds.value
            for name, number in (("value", value), ("low", bounds.low), ("high", bounds.high)):
                yield _labels(one) | {"bound": name}, number
