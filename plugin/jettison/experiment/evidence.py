"""Every e-value of an experiment: what it would show, what it has reached, and what is asked of it.

Three kinds of mistakes have a level of their own. A bad candidate is promoted in at most alpha of all
experiments: a promotion needs all its conditions, each at alpha. A good one is rolled back in at most alpha
for its quality, and in at most alpha by all guards, which split it. And a sound experiment is called invalid
in at most 0.001 for its split and in at most 0.001 for lost answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.evaluate.figures import exact, percent
from jettison.experiment.counters import CounterSet
from jettison.experiment.eprocess import (
    HIGHER_ODDS,
    LOWER_ODDS,
    Outcomes,
    Trials,
    e_value,
    log_e_above,
    log_e_below,
    log_e_rate,
)
from jettison.experiment.mismatch import log_e_split
from jettison.experiment.settings import LatencyLimit, Rules, Slice
from jettison.experiment.tally import BUCKETS, Tally, scores_at_least, scores_at_most

VALIDITY_ALPHA = 0.001
"""Of the tests that call an experiment invalid; a false alarm at one of twenty would be switched off."""

Role = Literal["promote", "rollback", "guard", "invalid"]
"""What follows where it is shown: a condition of a promotion; a rollback; one even of an invalid comparison,
since it is about what the candidate does to its users; or that nothing can be concluded."""


class EValue(BaseModel):
    """One test of an experiment.

    Args:
        name: Unique in the experiment.
        role: What follows where it is shown.
        claim: What is shown once it has reached `threshold`.
        log_e: The natural logarithm of the e-value.
        e: The e-value, at most 1e299 or so.
        threshold: What is asked of it, 1/alpha.
        reached: Whether it has reached that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    claim: str
    log_e: float
    e: float
    threshold: float
    reached: bool


def e_values(rules: Rules, counters: CounterSet) -> tuple[EValue, ...]:
    """All e-values that the rules ask for, in the order in which they are told."""
    whole = counters.tally()
    found = [*_quality(rules, whole), *_guards(rules, counters, whole), *_validity(rules, whole)]
    return tuple(found)


def outcomes_against(tally: Tally) -> Outcomes:
    """The scores of all units, those that are not known as bad as they can be."""
    worst = tally.worse + tally.candidate_lost + tally.pending
    return [(1.0, tally.better), (0.0, tally.same), (-1.0, worst), *scores_at_least(tally)]


def outcomes_for(tally: Tally) -> Outcomes:
    """The scores of all units, those that are not known as good as they can be; lost answers stay bad."""
    best, worst = tally.better + tally.pending, tally.worse + tally.candidate_lost
    return [(1.0, best), (0.0, tally.same), (-1.0, worst), *scores_at_most(tally)]


def log_e_agreement(tally: Tally, share: float) -> float:
    """The logarithm of e against "at least that share of the units is answered differently".

    Lost answers, and those that are under way, count as different.
    """
    different = tally.disagree + tally.candidate_lost + tally.unanswered
    return log_e_rate([(share, different, tally.agree + different)], LOWER_ODDS)


def _quality(rules: Rules, whole: Tally) -> Iterator[EValue]:
    margin = exact(rules.margin)
    if rules.evidence == "agreement":
        claim = f"the two answer differently on less than {margin} of the units"
        log_e = log_e_agreement(whole, rules.margin)
        yield _told("agreement", "promote", claim, log_e=log_e, alpha=rules.alpha)
        return
    log_e = log_e_above(outcomes_against(whole), mean=-rules.margin, bets=rules.bets)
    claim = f"the candidate is worse by less than {margin} on average"
    yield _told("quality", "promote", claim, log_e=log_e, alpha=rules.alpha)
    if rules.is_aa:
        yield from _itself(rules, whole)
        return
    log_e = log_e_below(outcomes_for(whole), mean=-rules.margin, bets=rules.bets)
    claim = f"the candidate is worse by more than {margin} on average"
    yield _told("quality-against", "rollback", claim, log_e=log_e, alpha=rules.alpha)


def _itself(rules: Rules, whole: Tally) -> Iterator[EValue]:
    """Of an A/A experiment: any difference at all, to either side."""
    better = log_e_above(outcomes_against(whole), mean=0, bets=rules.bets)
    worse = log_e_below(outcomes_for(whole), mean=0, bets=rules.bets)
    for name, log_e in (("better", better), ("worse", worse)):
        claim = f"the model is {name} than itself"
        yield _told(f"itself-{name}", "invalid", claim, log_e=log_e, alpha=rules.alpha / 2)


def _guards(rules: Rules, counters: CounterSet, whole: Tally) -> Iterator[EValue]:
    for part in rules.slices:
        yield from _slice(rules, part, counters.tally(part.name))
    role: Role = "invalid" if rules.is_aa else "guard"
    if rules.latency is not None:
        yield from _latency(rules, rules.latency, whole, role)
    if rules.guard_errors:
        log_e = log_e_rate(_errors(whole), HIGHER_ODDS)
        claim = "the candidate fails more often than the baseline"
        yield _told("errors", role, claim, log_e=log_e, alpha=rules.alpha / rules.guards)


def _slice(rules: Rules, part: Slice, tally: Tally) -> Iterator[EValue]:
    bets, margin = rules.slice_bets(part), exact(part.margin)
    if part.proof:
        log_e = log_e_above(outcomes_against(tally), mean=-part.margin, bets=bets)
        claim = f"in {part.name} the candidate is worse by less than {margin} on average"
        yield _told(f"slice-{part.name}", "promote", claim, log_e=log_e, alpha=rules.alpha)
    log_e = log_e_below(outcomes_for(tally), mean=-part.margin, bets=bets)
    claim = f"in {part.name} the candidate is worse by more than {margin} on average"
    role: Role = "invalid" if rules.is_aa else "rollback"
    yield _told(f"slice-{part.name}-against", role, claim, log_e=log_e, alpha=rules.alpha / rules.guards)


def _latency(rules: Rules, limit: LatencyLimit, whole: Tally, role: Role) -> Iterator[EValue]:
    late, count = whole.over_limit, whole.over_limit + whole.within_limit
    words = f"of the candidate's answers take over {exact(limit.limit_ms)} ms"
    log_e = log_e_rate([(1 - limit.quantile, late, count)], HIGHER_ODDS)
    claim = f"more than {percent(1 - limit.quantile)} {words}"
    yield _told("latency", role, claim, log_e=log_e, alpha=rules.alpha / rules.guards)
    if limit.proven_quantile is not None:
        log_e = log_e_rate([(1 - limit.proven_quantile, late, count)], LOWER_ODDS)
        claim = f"less than {percent(1 - limit.proven_quantile)} {words}"
        yield _told("latency-proof", "promote", claim, log_e=log_e, alpha=rules.alpha)


def _errors(whole: Tally) -> Trials:
    """Of all errors those of the candidate, whose share under equal rates is its share of the traffic."""
    return [
        (weight / BUCKETS, arms.candidate_errors, arms.candidate_errors + arms.baseline_errors)
        for weight, arms in whole.arms
    ]


def _validity(rules: Rules, whole: Tally) -> Iterator[EValue]:
    assigned = [
        (weight / BUCKETS, arms.candidate_units, arms.candidate_units + arms.baseline_units)
        for weight, arms in whole.arms
    ]
    claim = "the traffic was not split as planned"
    yield _told("split", "invalid", claim, log_e=log_e_split(assigned), alpha=VALIDITY_ALPHA)
    answered = whole.offered - whole.baseline_lost
    for name, lost, count in (
        ("baseline", whole.baseline_lost, whole.offered),
        ("candidate", whole.candidate_lost, answered),
    ):
        log_e = log_e_rate([(rules.max_loss, lost, max(lost, count))], HIGHER_ODDS)
        claim = f"answers of the {name} are missing for more than {percent(rules.max_loss)} of the units"
        yield _told(f"{name}-loss", "invalid", claim, log_e=log_e, alpha=VALIDITY_ALPHA / 2)


def _told(name: str, role: Role, claim: str, *, log_e: float, alpha: float) -> EValue:
    reached = log_e >= -math.log(alpha)
    return EValue(
        name=name, role=role, claim=claim, log_e=log_e, e=e_value(log_e), threshold=1 / alpha, reached=reached
    )
