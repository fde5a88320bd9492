"""Plans agree with the product's own e-processes, and with the figures that the method was chosen by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from jettison.experiment.eprocess import bet_sizes, log_e_above, log_e_below
from jettison.experiment.planning import (
    QualityTest,
    Question,
    Units,
    fixed_sample,
    least_units,
    plan,
    stopping_times,
)

QUESTION = Question(margin=0.01, planned_disagreement=0.04)
BETS = bet_sizes(0.01, 0.04)
PROOF = QualityTest(-0.01, BETS, 0.05, sign=1)
HARM = QualityTest(-0.01, BETS, 0.05, sign=-1)


class Told:
    """A generator that draws what the test says: gaps between disagreements, and who is better."""

    def __init__(self, gaps, better):
        self.gaps, self.better = iter(gaps), iter(better)

    def geometric(self, _, count):
        return np.array([next(self.gaps) for _ in range(count)])

    def random(self, count):
        return np.array([0.0 if next(self.better) else 1.0 for _ in range(count)])


def by_hand(scores, sign):
    """The first unit after which the verdict's own function is there, one unit after the other."""
    log_e = log_e_above if sign > 0 else log_e_below
    for end in range(1, len(scores) + 1):
        seen = scores[:end]
        outcomes = [(value, seen.count(value)) for value in (-1, 0, 1)]
        if log_e(outcomes, mean=-0.01, bets=BETS) >= math.log(20):
            return end
    return 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("test", "mean"), [(PROOF, 0.01), (HARM, -0.03)])
def test_the_short_cut_stops_where_a_look_after_every_unit_does(test, mean, seed):
    rng = np.random.default_rng(seed)
    gaps = [int(gap) for gap in rng.geometric(0.04, 60)]
    better = [bool(draw < (1 + mean / 0.04) / 2) for draw in rng.random(60)]
    scores = [
        score
        for gap, is_better in zip(gaps, better, strict=True)
        for score in [0] * (gap - 1) + [1 if is_better else -1]
    ]
    horizon = len(scores) - 1
    found = stopping_times(test, Units(0.04, mean), 1, horizon=horizon, rng=Told(gaps, better))
    assert found.tolist() == [by_hand(scores[:horizon], test.sign)]


def test_the_fixed_sample_is_that_of_the_textbook():
    assert fixed_sample(QUESTION) == 3426
    assert fixed_sample(QUESTION.model_copy(update={"power": 0.8})) == 2474


def test_the_least_units_are_those_of_the_verdict():
    assert least_units(PROOF) == by_hand([0] * 500, 1) == 462


def test_a_plan_has_the_figures_of_the_method():
    """4,000 experiments: the median is known to 1.7 %, the means to 1 %."""
    found = plan(QUESTION)
    assert found.experiments == 4000
    assert found.promoted.share >= 0.99
    assert found.promoted.median / found.fixed_sample == pytest.approx(0.735, rel=0.05)
    assert found.promoted.mean / found.fixed_sample == pytest.approx(0.86, rel=0.03)
    assert found.rolled_back.mean / found.fixed_sample == pytest.approx(0.187, rel=0.03)
    assert found.labels == math.ceil(found.promoted.enough * 0.04)
    assert (found.max_units, found.hours, found.harm) == (3 * 3426, None, 0.03)


def test_a_plan_is_the_same_for_the_same_seed():
    asked = QUESTION.model_copy(update={"margin": 0.03})
    assert plan(asked) == plan(asked)
    assert plan(asked) != plan(asked.model_copy(update={"seed": 1}))


def test_hours_follow_from_the_rate():
    found = plan(Question(margin=0.05, planned_disagreement=0.1, rate=50))
    assert found.hours == found.promoted.enough / 50


def test_a_candidate_at_the_margin_is_hardly_ever_promoted():
    found = plan(QUESTION.model_copy(update={"difference": -0.01}))
    assert found.promoted.share <= 0.06  # 0.05, and two deviations of 4,000 experiments
    assert (found.promoted.median, found.promoted.enough, found.labels) == (None, None, None)


def test_rare_disagreements_leave_time_for_the_least_units():
    found = plan(Question(margin=0.005, planned_disagreement=0.001))
    assert found.least > found.fixed_sample
    assert found.max_units == 3 * found.least
    assert found.promoted.share > 0.95


def test_progress_is_told():
    seen = []

    def reporter(title):
        return lambda done, total: seen.append((title, done, total))

    plan(QUESTION.model_copy(update={"margin": 0.05}), reporter)
    assert seen[-1] == ("experiments on paper", 4000, 4000)


@pytest.mark.parametrize("change", [{"margin": 0}, {"power": 1}, {"rate": 0}, {"alpha": 0.5}, {"harm": 0}])
def test_impossible_questions_are_refused(change):
    with pytest.raises(ValidationError):
        Question.model_validate(QUESTION.model_dump() | change)
