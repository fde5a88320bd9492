"""The verdict: what follows from the counters, as a value that carries all that it was made from.

It is a pure function of settings and counters. Rules, from the first that applies:

1. `rollback`, where a guard of the candidate's own conduct (latency, errors) has proven harm; this holds even
   where the comparison is invalid, since it is the side on which a mistake costs least.
2. `invalid`, where the split, lost answers or an A/A experiment show that nothing can be concluded.
3. `rollback`, where the candidate is proven worse than the margin, or a slice is.
4. `promote`, where every condition is proven, `min_units` are there and each guard has seen anything at all.
5. `exhausted`, where `max_units` are judged; it is not a promotion.
6. `continue`.

An A/A experiment promotes nothing: it ends as `exhausted` when its road has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from jettison.core.errors import InputError
from jettison.experiment.counter_file import counters_of, document_of
from jettison.experiment.counters import CounterSet
from jettison.experiment.eprocess import FORMULAS
from jettison.experiment.estimates import Estimates, estimates
from jettison.experiment.evidence import EValue, e_values
from jettison.experiment.reasons import failed, held_up, instead, proven, unproven
from jettison.experiment.settings import Rules, Settings
from jettison.experiment.tally import Tally

Decision = Literal["continue", "promote", "rollback", "exhausted", "invalid"]


def _counters(document: object) -> CounterSet:
    if isinstance(document, CounterSet):
        return document
    return counters_of(document, what="counters of the verdict")


CounterDocument = Annotated[CounterSet, PlainValidator(_counters), PlainSerializer(document_of)]


class Verdict(BaseModel):
    """What was decided and why, complete enough for anyone to decide it again.

    Args:
        decision: What follows.
        reasons: Why, in words.
        experiment: The id, or "" where bare counts were judged.
        units: Whose score is known, a lost answer of the candidate counting as one.
        pending: Units that wait for a label or an answer; judged as worse for a promotion, and as better for
            a rollback.
        estimates: How large the difference is, with its bounds.
        e_values: Every test.
        formulas: The version of the formulas.
        settings: What was asked.
        counters: What was counted, by node.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    decision: Decision
    reasons: tuple[str, ...]
    experiment: str
    units: int
    pending: int
    estimates: Estimates
    e_values: tuple[EValue, ...]
    formulas: int
    settings: Settings | Rules
    counters: CounterDocument


def decide(settings: Rules, counters: CounterSet) -> Verdict:
    """The verdict on an experiment, or on bare counts where `settings` are rules only.

    Raises:
        InputError: The counters are of another experiment.
    """
    experiment = settings.id if isinstance(settings, Settings) else ""
    if counters.experiment != experiment:
        raise InputError(
            "verdict",
            detail=f"expected counters of experiment {experiment!r}, found {counters.experiment!r}",
            fix="Judge counters by the settings they were counted under; changed ones are a new experiment",
        )
    whole, found = counters.tally(), e_values(settings, counters)
    decision, reasons = _conclusion(settings, counters, found)
    return Verdict(
        decision=decision,
        reasons=reasons,
        experiment=experiment,
        units=units_of(settings, whole),
        pending=pending_of(settings, whole),
        estimates=estimates(settings, whole),
        e_values=found,
        formulas=FORMULAS,
        settings=settings,
        counters=counters,
    )


def units_of(rules: Rules, whole: Tally) -> int:
    """How many units count: judged ones, or compared ones where agreement is the evidence."""
    seen = whole.judged if rules.evidence == "labels" else whole.agree + whole.disagree
    return seen + whole.candidate_lost


def pending_of(rules: Rules, whole: Tally) -> int:
    """How many units are not known yet."""
    return whole.pending if rules.evidence == "labels" else whole.unanswered


def _conclusion(
    rules: Rules, counters: CounterSet, found: Sequence[EValue]
) -> tuple[Decision, tuple[str, ...]]:
    reached = {
        role: [e for e in found if e.role == role and e.reached] for role in ("guard", "invalid", "rollback")
    }
    harm, invalid, worse = reached["guard"], reached["invalid"], reached["rollback"]
    if harm:
        return "rollback", proven([*harm, *invalid, *worse])
    if invalid:
        return "invalid", failed([*invalid, *worse])
    if worse:
        return "rollback", proven(worse)
    return _undisputed(rules, counters, [e for e in found if e.role == "promote"])


def _undisputed(
    rules: Rules, counters: CounterSet, conditions: Sequence[EValue]
) -> tuple[Decision, tuple[str, ...]]:
    """What follows where nothing speaks against the candidate or the comparison."""
    whole = counters.tally()
    units, pending = units_of(rules, whole), pending_of(rules, whole)
    lacking = (*unproven(conditions), *held_up(rules, counters, units=units, pending=pending))
    is_proven = all(e.reached for e in conditions) and not held_up(rules, counters, units=units, pending=0)
    if is_proven and rules.is_aa:
        return "exhausted", ("A/A passed: there is nothing to promote", *proven(conditions))
    if is_proven:
        return "promote", proven(conditions)
    if rules.max_units is not None and units >= rules.max_units:
        reached = f"{units} units are judged, max_units is {rules.max_units}"
        return "exhausted", (reached, *lacking, *instead(rules))
    return "continue", lacking
