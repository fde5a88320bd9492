"""McNemar's exact test and interval: against sums of binomials, and scipy where it is installed."""

from __future__ import annotations

import math

import pytest

from jettison.experiment.mcnemar import binomial_at_most, incomplete_beta, mcnemar


def binomial_sum(events, total, share):
    return math.fsum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(events + 1))


@pytest.mark.parametrize("total", [1, 7, 60])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_the_binomial_tail_is_its_sum(total, share):
    for events in range(total + 1):
        expected = binomial_sum(events, total, share)
        assert binomial_at_most(events, total, share) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_five_against_none():
    found = mcnemar(0, 95, 5)
    assert found.p_value == pytest.approx(2 / 32)
    assert found.share == 0
    assert (found.share_low, found.share_high) == pytest.approx((0, 1 - 0.025 ** (1 / 5)))


def test_no_disagreement_says_nothing():
    found = mcnemar(0, 100, 0)
    assert (found.p_value, found.share, found.share_low, found.share_high) == (1, None, 0, 1)


def test_exchanged_models_have_exchanged_intervals():
    one, other = mcnemar(30, 0, 12), mcnemar(12, 0, 30)
    assert one.p_value == other.p_value
    assert one.share_low == pytest.approx(1 - other.share_high, abs=1e-12)


def test_counts_of_a_billion_end_in_time_and_keep_six_digits():
    found = mcnemar(5 * 10**8, 0, 5 * 10**8 + 30_000)
    z = 30_000 / math.sqrt(10**9 + 30_000)
    assert found.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)  # the normal limit
    assert found.share_low < 0.5 < found.share_high


@pytest.mark.parametrize(("x", "expected"), [(-0.1, 0), (0, 0), (1, 1), (1.5, 1), (0.5, 0.5)])
def test_the_beta_function_at_its_ends_and_middle(x, expected):
    assert incomplete_beta(3, 3, x) == pytest.approx(expected)


@pytest.mark.parametrize(("better", "worse"), [(0, 5), (3, 7), (48, 52), (2000, 2300), (10**6, 10**6 + 2000)])
def test_scipy_finds_the_same(better, worse):
    stats = pytest.importorskip("scipy.stats")
    known = stats.binomtest(better, better + worse)
    interval = known.proportion_ci(0.95, method="exact")
    found = mcnemar(better, 10, worse)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-7)
    assert (found.share_low, found.share_high) == pytest.approx((interval.low, interval.high), abs=1e-9)
