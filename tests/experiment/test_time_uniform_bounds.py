"""Bounds that hold at all times are the same e-process, read the other way round."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jettison.experiment.eprocess import bet_sizes, log_e_above
from jettison.experiment.intervals import lower_bound, upper_bound

BETS = bet_sizes(0.01, 0.04)
counts = st.tuples(*[st.integers(0, 3000)] * 3)


def told(better, same, worse):
    return [(1.0, better), (0.0, same), (-1.0, worse)]


@given(counts)
def test_the_lower_bound_passes_the_margin_when_the_verdict_promotes(some):
    log_e = log_e_above(told(*some), mean=-0.01, bets=BETS)
    assume(abs(log_e - math.log(20)) > 1e-6)  # at equality the halving decides by its last step
    assert (lower_bound(told(*some), bets=BETS, alpha=0.05) > -0.01) == (log_e > math.log(20))


@given(counts)
def test_the_mean_lies_between_the_bounds(some):
    assume(sum(some))
    mean = (some[0] - some[2]) / sum(some)
    low, high = (bound(told(*some), bets=BETS, alpha=0.05) for bound in (lower_bound, upper_bound))
    assert -1 <= low <= mean <= high <= 1


@given(counts)
def test_exchanged_models_have_exchanged_bounds(some):
    better, same, worse = some
    low = lower_bound(told(*some), bets=BETS, alpha=0.05)
    assert upper_bound(told(worse, same, better), bets=BETS, alpha=0.05) == -low


def test_nothing_seen_is_nothing_known():
    assert lower_bound([], bets=BETS, alpha=0.05) == pytest.approx(-1)
    assert upper_bound([], bets=BETS, alpha=0.05) == pytest.approx(1)


def test_bounds_close_to_a_quarter_of_the_margin_and_no_further():
    widths = [upper_bound(told(20 * n, 960 * n, 20 * n), bets=BETS, alpha=0.05) for n in (1, 10, 1000, 10**6)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.01 / 4, rel=0.02)
