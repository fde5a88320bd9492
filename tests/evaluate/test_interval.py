from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.core.errors import RecipeError
from jettison.evaluate.bootstrap import lower_bound
from jettison.evaluate.interval import BOOTSTRAP, TANGO, paired_interval
from jettison.evaluate.proportions import exact_upper, tango_lower


def binary(better: int, worse: int, samples: int):
    variant, baseline = np.zeros(samples), np.zeros(samples)
    variant[:better] = 1
    baseline[better : better + worse] = 1
    return variant, baseline


def most_likely_z(better: int, worse: int, samples: int, delta: float) -> float:
    """Tango's statistic with the constrained maximum found by search instead of by his formula."""
    shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    same = 1 - 2 * shares - delta
    likelihood = (samples - better - worse) * np.log(same)
    likelihood += better * np.log(shares + delta) + worse * np.log(shares)
    share = shares[np.argmax(likelihood)]
    return (better - worse - samples * delta) / math.sqrt(samples * (2 * share + delta * (1 - delta)))


@pytest.mark.parametrize(("better", "worse", "samples"), [(3, 7, 50), (12, 5, 100), (1, 9, 40), (20, 1, 60)])
def test_at_the_lower_bound_the_likelihood_gives_exactly_the_quantile(better, worse, samples):
    low = tango_lower(better, worse, samples, confidence=0.95)
    assert most_likely_z(better, worse, samples, low) == pytest.approx(1.6449, abs=2e-3)


def test_without_any_difference_the_bound_is_the_rule_of_three():
    found = paired_interval(*binary(0, 0, 300))
    assert found.delta == 0.0
    assert found.low == pytest.approx(-(1 - 0.05 ** (1 / 300)), rel=1e-9)
    assert found.low == pytest.approx(-3 / 300, rel=0.01)
    assert found.high == -found.low
    assert (found.better, found.same, found.worse, found.samples) == (0, 300, 0, 300)


@pytest.mark.parametrize(("events", "samples"), [(0, 10), (1, 20), (3, 50), (19, 20)])
def test_the_exact_bound_leaves_five_percent_below(events, samples):
    share = exact_upper(events, samples, confidence=0.95)
    tail = sum(math.comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in range(events + 1))
    assert tail == pytest.approx(0.05, rel=1e-9)


def test_the_exact_bound_of_all_is_one():
    assert exact_upper(7, 7, confidence=0.95) == 1.0


@cache
def lows(samples: int, most: int) -> dict[tuple[int, int], float]:
    return {
        (better, worse): tango_lower(better, worse, samples, confidence=0.95)
        for better in range(most + 1)
        for worse in range(most + 1)
        if better + worse <= samples
    }


def exact_coverage(samples: int, most: int, *, better: float, worse: float) -> float:
    """The probability that the bound holds, summed over all outcomes of the trinomial distribution."""
    table = lows(samples, most)
    b, c = (np.array(side) for side in zip(*table, strict=True))
    factorial = np.array([math.lgamma(k + 1) for k in range(samples + 1)])
    logs = factorial[samples] - factorial[b] - factorial[c] - factorial[samples - b - c]
    logs = logs + b * math.log(better) + c * math.log(worse) + (samples - b - c) * math.log1p(-better - worse)
    weights = np.exp(logs)
    assert weights.sum() == pytest.approx(1, abs=2e-3)
    return float(weights[np.array(list(table.values())) <= better - worse + 1e-12].sum())


@pytest.mark.parametrize(
    ("ratio", "floor"),
    [(1e-9, 0.95 - 1e-6), (0.1, 0.938), (0.3, 0.938), (0.7, 0.938), (1.0, 0.938), (5.0, 0.91)],
)
@pytest.mark.parametrize(("samples", "most"), [(30, 30), (200, 20)])
def test_the_binary_bound_errs_as_its_docstring_says(samples, most, ratio, floor):
    """`ratio` is that of samples that get better to samples that get worse, in truth."""
    rates = [rate for rate in np.arange(0.1, 12.0, 0.1) if rate * (1 + ratio) < 9]
    coverages = [
        exact_coverage(samples, most, better=ratio * rate / samples, worse=rate / samples) for rate in rates
    ]
    assert min(coverages) >= floor


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 100), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_binary_intervals_mirror_contain_and_widen(better, worse, same, confidence):
    samples = max(1, better + worse + same)
    found = paired_interval(*binary(better, worse, samples), confidence=confidence)
    mirrored = paired_interval(*binary(worse, better, samples), confidence=confidence)
    wider = paired_interval(*binary(better, worse, samples), confidence=0.995)
    assert found.method == TANGO
    assert -1 <= found.low <= found.delta <= found.high <= 1
    assert found.high - found.low > 0
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    assert wider.low <= found.low


def test_more_samples_of_the_same_shares_narrow_the_interval():
    lows_seen = [paired_interval(*binary(k, 2 * k, 100 * k)).low for k in (1, 3, 10, 100)]
    assert lows_seen == sorted(lows_seen)


def coverage(draw, mean: float, repetitions: int = 200) -> float:
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(repetitions):
        differences = draw(generator)
        hits += lower_bound(differences, scale=1.0, confidence=0.95, seed=0) <= mean + 1e-9
    return hits / repetitions


@pytest.mark.parametrize("samples", [10, 25, 60])
def test_the_bootstrap_bound_holds_for_a_skewed_loss(samples):
    # 0.95 less three standard errors of 200 repetitions
    assert coverage(lambda some: -some.exponential(0.01, samples), -0.01) >= 0.904


@pytest.mark.parametrize("samples", [5, 20, 60])
def test_the_bootstrap_bound_holds_for_normal_differences_and_is_not_wide(samples):
    found = coverage(lambda some: some.normal(0, 0.05, samples), 0.0)
    assert found >= 0.904
    if samples == 60:
        assert found <= 0.985


@pytest.mark.parametrize("events", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("samples", [20, 60])
def test_the_bound_holds_where_losses_are_rare(samples, events):
    share = events / samples
    assert coverage(lambda some: -0.37 * (some.random(samples) < share), -0.37 * share) >= 0.904


def test_equal_differences_do_not_give_a_zero_width():
    same = np.full(100, 0.7)
    found = paired_interval(same, same)
    assert found.method == BOOTSTRAP
    assert found.low == pytest.approx(-0.7 * (1 - 0.05 ** (1 / 100)))
    # differences of 0.1 that are unequal in the last bit only
    baseline = np.linspace(0.3, 0.9, 100)
    shifted = paired_interval(baseline - 0.1, baseline)
    assert shifted.low < -0.1 - 0.01


def test_one_sample_proves_next_to_nothing():
    assert paired_interval(np.array([0.9]), np.array([0.9])).low == pytest.approx(-0.95 * 0.9)
    assert paired_interval(np.array([1.0]), np.array([1.0])).low == pytest.approx(-0.95)


def test_scores_that_are_all_zero_read_as_binary():
    found = paired_interval(np.full(10, -0.0), np.zeros(10))
    assert found.method == TANGO
    assert found.low < 0.0 < found.high


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_general_intervals_mirror_contain_and_forget_the_order(seed, samples):
    generator = np.random.default_rng(seed)
    baseline, variant = generator.random(samples), generator.random(samples)
    found = paired_interval(variant, baseline)
    order = generator.permutation(samples)
    assert found.low <= found.delta <= found.high
    assert found.high > found.low
    assert all(math.isfinite(bound) for bound in (found.low, found.high))
    assert paired_interval(variant[order], baseline[order]) == found
    mirrored = paired_interval(baseline, variant)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    assert mirrored.worse == found.better


def test_memory_stays_bounded_and_large_sets_are_possible():
    generator = np.random.default_rng(0)
    baseline = np.ones(30_000)
    found = paired_interval(baseline - generator.exponential(0.01, 30_000), baseline)
    assert found.low == pytest.approx(found.delta - 1.645 * 0.01 / math.sqrt(30_000), rel=0.02)


def test_impossible_settings_are_refused():
    with pytest.raises(RecipeError, match=r"confidence: expected above 0.5 and below 1, found 1.0"):
        paired_interval(*binary(1, 1, 10), confidence=1.0)
    with pytest.raises(RecipeError, match=r"one score per sample for both, found \(3,\) and \(4,\)"):
        paired_interval(np.zeros(3), np.zeros(4))
    with pytest.raises(RecipeError, match=r"one score per sample for both, found \(0,\) and \(0,\)"):
        paired_interval(np.zeros(0), np.zeros(0))
