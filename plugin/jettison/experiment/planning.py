"""How many units an experiment will take, by running it many times on paper.

The e-processes of the verdict, looked at after every unit. Units on which both do the same only make the
proof grow, so it is enough to draw how many of them lie between two disagreements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jettison.core.progress import Progress, Reporter, silent
from jettison.experiment.eprocess import LARGEST_STAKE, bet_sizes

_HORIZON = 6
"""How many times the units of a fixed-sample test (or `least`) an experiment runs on paper at most."""

_EXPERIMENTS = 4000
_MOST_EVENTS = 4e6
"""Disagreements drawn in all, which take some seconds; where each experiment has many, fewer are run."""

_FEWEST_EXPERIMENTS = 500


class Question(BaseModel):
    """What is to be planned.

    Args:
        margin: How much worse the candidate may be.
        planned_disagreement: The share of units on which the two differ, in truth as in the bets.
        alpha: The level of both tests.
        difference: The candidate's true mean score minus the baseline's; 0 for one as good.
        harm: How much worse the candidate is that shall be stopped; three margins where there is None.
        power: The share of experiments that shall be promoted by then.
        rate: Units an hour, over all nodes, or None.
        seed: Of the experiments on paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(gt=0, lt=1)
    planned_disagreement: float = Field(gt=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    difference: float = Field(default=0.0, ge=-1, le=1)
    harm: float | None = Field(default=None, gt=0, le=1)
    power: float = Field(default=0.9, gt=0, lt=1)
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)


class Forecast(BaseModel):
    """When one kind of candidate gets its verdict; numbers of units, None where that is beyond the horizon.

    Args:
        share: Of the experiments that got it within the horizon.
        median: Half of them by then.
        mean: On average, the others counted as the horizon.
        enough: The asked power reached it by then.
    """

    model_config = ConfigDict(frozen=True)

    share: float
    median: int | None
    mean: int
    enough: int | None


class Plan(BaseModel):
    """What an experiment will take.

    Args:
        promoted: The candidate of the question, until it is promoted.
        rolled_back: One that is worse by `harm`, until it is rolled back.
        fixed_sample: Units of a test with one look at the end and the same power, for comparison.
        least: Units where the two never differ.
        labels: Labels that `promoted.enough` units need where only disagreements are labelled.
        max_units: A sensible setting: three times the fixed sample, or `least` where that is more.
        hours: `promoted.enough` at the given rate, or None.
        harm: How much worse that one is.
        experiments: How many were run on paper.
        question: What was planned.
    """

    model_config = ConfigDict(frozen=True)

    promoted: Forecast
    rolled_back: Forecast
    fixed_sample: int
    least: int
    labels: int | None
    max_units: int
    hours: float | None
    harm: float
    experiments: int
    question: Question


def plan(question: Question, reporter: Reporter = silent) -> Plan:
    """What the experiment will take; the same for the same seed."""
    fixed = fixed_sample(question)
    harm = min(1.0, 3 * question.margin) if question.harm is None else question.harm
    good = Units(max(question.planned_disagreement, abs(question.difference)), question.difference)
    bad = Units(max(question.planned_disagreement, harm), -harm)
    bets = bet_sizes(question.margin, question.planned_disagreement)
    proof = QualityTest(-question.margin, bets, question.alpha, sign=1)
    harmed = QualityTest(-question.margin, bets, question.alpha, sign=-1)
    usual = max(fixed, least_units(proof))
    horizon, count = _HORIZON * usual, _experiments(usual * max(good.disagreement, bad.disagreement))
    rng = np.random.default_rng(question.seed)
    meter = reporter("experiments on paper")
    good_times = stopping_times(proof, good, count, horizon=horizon, rng=rng, progress=meter)
    bad_times = stopping_times(harmed, bad, count, horizon=horizon, rng=rng)
    promoted, rolled_back = _forecast(good_times, horizon, question), _forecast(bad_times, horizon, question)
    enough = promoted.enough
    return Plan(
        promoted=promoted,
        rolled_back=rolled_back,
        fixed_sample=fixed,
        least=least_units(proof),
        labels=None if enough is None else math.ceil(enough * question.planned_disagreement),
        max_units=3 * usual,
        hours=None if enough is None or question.rate is None else enough / question.rate,
        harm=harm,
        experiments=count,
        question=question,
    )


def fixed_sample(question: Question) -> int:
    """Units of a one-sided z-test with one look: (z_alpha + z_power)^2 variance / (margin + difference)^2.

    For a candidate at the margin or beyond, that of one as good as the baseline.
    """
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - question.alpha) + normal.inv_cdf(question.power)
    gap = question.margin + question.difference
    difference = question.difference if gap > 0 else 0.0
    variance = max(question.planned_disagreement, abs(difference)) - difference**2
    return math.ceil(quantiles**2 * variance / (question.margin + difference) ** 2)


@dataclass(frozen=True)
class Units:
    """What units score in truth: how often the two differ, and the mean of the differences."""

    disagreement: float
    difference: float

    @property
    def share_better(self) -> float:
        """Of the units on which the two differ."""
        return (1 + self.difference / self.disagreement) / 2


@dataclass(frozen=True)
class QualityTest:
    """A quality test: against a mean of at most `mean` (sign 1) or at least `mean` (sign -1)."""

    mean: float
    bets: Sequence[float]
    alpha: float
    sign: int

    def log_factors(self) -> np.ndarray[Any, Any]:
        """The logarithms of the factors of a worse, an equal and a better unit: float64, (3, bets)."""
        mean = self.sign * self.mean
        stakes = np.minimum(self.bets, LARGEST_STAKE / (1 + mean))
        scores = self.sign * np.array([-1.0, 0.0, 1.0])
        return np.asarray(np.log1p((scores[:, None] - mean) * stakes))


def least_units(test: QualityTest) -> int:
    """How many equal units in a row prove it, the fewest that are ever enough where the two never differ."""
    same = test.log_factors()[1]
    many = np.array([1 << 40])
    return int(_crossing(np.zeros((1, same.size)), same, many, -math.log(test.alpha))[0])


def stopping_times(
    test: QualityTest,
    units: Units,
    experiments: int,
    *,
    horizon: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> np.ndarray[Any, Any]:
    """After how many units each experiment has its proof, 0 where not by the horizon: int64, one for each."""
    worse, same, better = test.log_factors()
    asked = -math.log(test.alpha)
    times = np.zeros(experiments, np.int64)
    running, done, wealth = np.arange(experiments), times.copy(), np.zeros((experiments, same.size))
    while running.size:
        gap = rng.geometric(units.disagreement, running.size)
        is_better = rng.random(running.size) < units.share_better
        early = _crossing(wealth, same, np.minimum(gap - 1, horizon - done), asked)
        wealth = wealth + (gap - 1)[:, None] * same + np.where(is_better[:, None], better, worse)
        late = (done + gap <= horizon) & (_log_mean(wealth) >= asked)
        found = np.where(early > 0, early, np.where(late, gap, 0))
        times[running[found > 0]] = (done + found)[found > 0]
        keep = (found == 0) & (done + gap < horizon)
        running, done, wealth = running[keep], (done + gap)[keep], wealth[keep]
        if progress is not None:
            progress(experiments - running.size, experiments)
    return times


def _crossing(
    wealth: np.ndarray[Any, Any], same: np.ndarray[Any, Any], most: np.ndarray[Any, Any], asked: float
) -> np.ndarray[Any, Any]:
    """After how many of `most` equal units the wealth reaches what is asked; 0 where it does not.

    Equal units let all bets grow, or all shrink.
    """
    found = np.zeros(most.size, np.int64)
    reached = np.flatnonzero(_log_mean(wealth + most[:, None] * same) >= asked) if same[0] > 0 else found[:0]
    if reached.size:
        low, high = np.zeros(reached.size, np.int64), most[reached]
        while (high - low > 1).any():
            middle = (low + high) // 2
            is_there = _log_mean(wealth[reached] + middle[:, None] * same) >= asked
            low, high = np.where(is_there, low, middle), np.where(is_there, middle, high)
        found[reached] = high
    return found


def _log_mean(logs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    highest = logs.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logs - highest[:, None]).mean(axis=1)))


def _experiments(events: float) -> int:
    return int(min(_EXPERIMENTS, max(_FEWEST_EXPERIMENTS, _MOST_EVENTS / max(events, 1.0))))


def _forecast(times: np.ndarray[Any, Any], horizon: int, question: Question) -> Forecast:
    reached = np.where(times > 0, times, np.inf)
    median, enough = (float(np.quantile(reached, share, method="higher")) for share in (0.5, question.power))
    return Forecast(
        share=float((times > 0).mean()),
        median=int(median) if math.isfinite(median) else None,
        mean=round(float(np.where(times > 0, times, horizon).mean())),
        enough=int(enough) if math.isfinite(enough) else None,
    )
