"""How often verdicts err, by small seeded simulations; benchmarks/verdict.py has the large ones.

Each limit is the promised level and three deviations of the number of experiments: a right level fails in
about one of a thousand seeds, and the seed is fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from jettison.experiment.eprocess import HIGHER_ODDS, LOWER_ODDS, bet_sizes, log_e_rate
from jettison.experiment.mismatch import log_e_split
from jettison.experiment.planning import QualityTest, Units, stopping_times

EXPERIMENTS, ALPHA = 2000, 0.05
BETS = bet_sizes(0.01, 0.04)


def limit(level, experiments):
    return level + 3 * math.sqrt(level * (1 - level) / experiments)


def share_stopped(sign, difference, disagreement=0.04, bets=BETS):
    rng = np.random.default_rng(1)
    test, units = QualityTest(-0.01, bets, ALPHA, sign=sign), Units(disagreement, difference)
    return (stopping_times(test, units, EXPERIMENTS, horizon=8565, rng=rng) > 0).mean()


@pytest.mark.parametrize("disagreement", [0.01, 0.04, 0.2])
@pytest.mark.parametrize("sign", [1, -1])
def test_at_the_margin_either_verdict_errs_within_alpha_whatever_was_planned(sign, disagreement):
    assert share_stopped(sign, -0.01, disagreement) <= limit(ALPHA, EXPERIMENTS)


def test_beyond_the_margin_it_errs_less():
    assert share_stopped(1, -0.02) < 0.01 < share_stopped(1, -0.01)


def test_an_equal_candidate_is_promoted_and_not_rolled_back():
    assert share_stopped(1, 0.0) >= 0.95
    assert share_stopped(-1, 0.0) <= 0.01


def first_reached(trials, probability, odds):
    """The trial after which the e-value is there, for each row of events."""
    events, times = trials.cumsum(axis=1), []
    for row in events:
        looks = range(10, row.size + 1, 10)
        hit = (n for n in looks if log_e_rate([(probability, int(row[n - 1]), n)], odds) >= -math.log(ALPHA))
        times.append(next(hit, 0))
    return np.array(times)


@pytest.mark.parametrize(
    ("odds", "probability"), [(HIGHER_ODDS, 0.05), (LOWER_ODDS, 0.05), (HIGHER_ODDS, 0.5)]
)
def test_rates_err_within_alpha_at_their_border(odds, probability):
    trials = np.random.default_rng(2).random((400, 1500)) < probability
    assert (first_reached(trials, probability, odds) > 0).mean() <= limit(ALPHA, 400)


@pytest.mark.parametrize(("late", "most"), [(0.02, 1350), (0.05, 150)])
def test_a_missed_latency_limit_is_found_as_soon_as_promised(late, most):
    trials = np.random.default_rng(3).random((200, 8000 if late < 0.05 else 1000)) < late
    times = first_reached(trials, 0.01, HIGHER_ODDS)
    assert (times > 0).all()
    assert np.median(times) <= most


def test_a_sound_split_gives_no_alarm_and_lost_units_do():
    rng = np.random.default_rng(4)

    def alarms(share):
        given = (rng.random((300, 4000)) < share).cumsum(axis=1)
        return [
            any(log_e_split([(0.5, int(row[n - 1]), n)]) >= math.log(1000) for n in range(100, 4001, 100))
            for row in given
        ]

    assert not any(alarms(0.5))  # expected: 0.3 of 300 at most
    assert all(alarms(0.43))
