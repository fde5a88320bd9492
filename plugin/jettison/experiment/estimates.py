"""How large the difference is: beside the verdict, which needs none of it."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from jettison.experiment.eprocess import Outcomes
from jettison.experiment.evidence import log_e_agreement, outcomes_against, outcomes_for
from jettison.experiment.intervals import lower_bound, upper_bound
from jettison.experiment.mcnemar import McNemar, mcnemar
from jettison.experiment.settings import Rules
from jettison.experiment.tally import Tally

_HALVINGS = 40


class Bounds(BaseModel):
    """A figure with bounds that hold whenever one looks, each with probability 1 - alpha."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float
    high: float


class Estimates(BaseModel):
    """What the counters say in figures.

    Args:
        difference: The candidate's mean score minus the baseline's; None where agreement is the evidence.
        disagreement: The share of units answered differently; None where units are judged by labels.
        mcnemar: The table of wholly better and wholly worse units and its exact test, for a single look.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: Bounds | None
    disagreement: Bounds | None
    mcnemar: McNemar | None


def estimates(rules: Rules, whole: Tally) -> Estimates:
    """The figures of all units."""
    if rules.evidence == "agreement":
        return Estimates(difference=None, disagreement=_disagreement(rules, whole), mcnemar=None)
    table = mcnemar(whole.better, whole.same, whole.worse + whole.candidate_lost, confidence=1 - rules.alpha)
    return Estimates(difference=_difference(rules, whole), disagreement=None, mcnemar=table)


def _difference(rules: Rules, whole: Tally) -> Bounds:
    against, favourable = outcomes_against(whole), outcomes_for(whole)
    return Bounds(
        value=_mean(whole, against, favourable),
        low=lower_bound(against, bets=rules.bets, alpha=rules.alpha),
        high=upper_bound(favourable, bets=rules.bets, alpha=rules.alpha),
    )


def _mean(whole: Tally, against: Outcomes, favourable: Outcomes) -> float | None:
    """Over the units whose score is known, to the half of a thousandth that their bins leave open."""
    count = whole.judged + whole.candidate_lost
    if not count:
        return None
    low, high = (math.fsum(value * units for value, units in some) for some in (against, favourable))
    return (low + whole.pending + high - whole.pending) / (2 * count)


def _disagreement(rules: Rules, whole: Tally) -> Bounds:
    different, count = (
        whole.disagree + whole.candidate_lost,
        whole.agree + whole.disagree + whole.candidate_lost,
    )
    return Bounds(value=different / count if count else None, low=0.0, high=_highest(rules, whole))


def _highest(rules: Rules, whole: Tally) -> float:
    """The smallest share that is refuted at 1/alpha: e rises with the share that it speaks against."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if log_e_agreement(whole, middle) >= -math.log(rules.alpha):
            high = middle
        else:
            low = middle
    return high
