"""Histograms: exact extremes, and counts that no order, split or growth of the range can change."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jettison.compress.quantization.histogram import HALF_BINS, Histogram, histogram_of, range_exponent

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TAMED = st.one_of(FLOATS, st.floats(-4, 4, width=32), st.just(0.0))
VALUES = arrays(np.float32, st.integers(1, 60), elements=TAMED)


def histogram(values: np.ndarray) -> Histogram:
    return histogram_of(values, low=float(values.min()), high=float(values.max()))


def same(one: Histogram, other: Histogram) -> bool:
    exact = (one.exponent, one.low, one.high, one.zeros) == (
        other.exponent,
        other.low,
        other.high,
        other.zeros,
    )
    return exact and np.array_equal(one.counts, other.counts)


@given(VALUES, VALUES)
def test_merging_is_commutative_to_the_bit(a: np.ndarray, b: np.ndarray) -> None:
    assert same(histogram(a).merged(histogram(b)), histogram(b).merged(histogram(a)))


@given(VALUES, VALUES, VALUES)
def test_merging_is_associative_to_the_bit(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = histogram(a), histogram(b), histogram(c)
    assert same(x.merged(y).merged(z), x.merged(y.merged(z)))


@given(VALUES, st.lists(st.integers(1, 59), max_size=6), st.randoms(use_true_random=False))
def test_any_split_and_any_order_gives_the_histogram_of_all_at_once(values, cuts, random) -> None:
    parts = [part for part in np.split(values, sorted(cuts)) if part.size]
    random.shuffle(parts)
    merged = histogram(parts[0])
    for part in parts[1:]:
        merged = merged.merged(histogram(part))
    assert same(merged, histogram(values))


@given(VALUES, st.integers(0, 30))
def test_a_range_that_grew_counts_as_if_it_had_been_as_large_from_the_start(values, growth: int) -> None:
    grown = histogram(values).widened(histogram(values).exponent + growth)
    limit = math.ldexp(0.75, grown.exponent)
    at_once = histogram_of(values, low=-limit, high=limit)
    assert grown.exponent == at_once.exponent
    assert np.array_equal(grown.counts, at_once.counts)


@given(VALUES)
def test_nothing_is_lost_and_each_bin_holds_what_lies_in_it(values: np.ndarray) -> None:
    found = histogram(values)
    assert found.total == values.size == found.magnitudes.sum()
    assert found.zeros == np.count_nonzero(values == 0)
    edges = np.arange(-HALF_BINS, HALF_BINS + 1) * found.bin_width
    exact = values.astype(np.float64)
    for index in np.flatnonzero(found.counts):
        inside = (exact >= edges[index]) & (exact < edges[index + 1])
        assert np.count_nonzero(inside) == found.counts[index]


@given(VALUES)
def test_the_range_is_the_smallest_power_of_two_that_holds_all(values: np.ndarray) -> None:
    found = histogram(values)
    largest = max(abs(found.low), abs(found.high))
    assert largest < math.ldexp(1.0, found.exponent)
    assert found.exponent == -100 or largest >= math.ldexp(1.0, found.exponent - 1)


@pytest.mark.parametrize(
    ("largest", "exponent"), [(0.0, -100), (1e-40, -100), (0.5, 0), (1.0, 1), (3.4e38, 128)]
)
def test_the_exponent_of_a_range(largest: float, exponent: int) -> None:
    assert range_exponent(-largest, 0.0) == range_exponent(0.0, largest) == exponent


def test_the_smallest_number_keeps_its_bin_beside_the_largest() -> None:
    tiny, huge = np.array([-1e-38], np.float32), np.array([1e10], np.float32)
    together = np.concatenate([tiny, huge])
    assert same(histogram(tiny).merged(histogram(huge)), histogram(together))


def test_a_bin_edge_belongs_to_the_bin_above_it() -> None:
    found = histogram_of(np.array([-1.0, 0.0, 1.0], np.float32), low=-1.0, high=1.0)
    assert found.bin_width == 2.0 / HALF_BINS
    assert list(np.flatnonzero(found.counts)) == [HALF_BINS // 2, HALF_BINS, HALF_BINS + HALF_BINS // 2]
    assert found.centers[HALF_BINS] == found.bin_width / 2


def test_magnitudes_fold_the_negative_half_onto_the_positive() -> None:
    found = histogram_of(np.array([-0.9, 0.9], np.float32), low=-0.9, high=0.9)
    (index,) = np.flatnonzero(found.magnitudes)
    assert found.magnitudes[index] == 2
    assert index * found.bin_width <= 0.9 < (index + 1) * found.bin_width
