"""An order that keeps more: always a permutation, never a loss, and found where there is one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.compress.pruning import permutation
from jettison.compress.pruning.permutation import better_order, kept_magnitude, stacked


def rows_of(seed: int, stripes: int, rows: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(0, 1, (1, 4 * stripes)))
    return np.abs(rng.normal(0, 1, (rows, 4 * stripes)) * spread).astype(np.float32)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), stripes=st.integers(1, 12))
def test_an_order_is_a_permutation_and_keeps_more(seed: int, stripes: int) -> None:
    rows = rows_of(seed, stripes)
    order = better_order(rows)
    if order is not None:
        np.testing.assert_array_equal(np.sort(order), np.arange(4 * stripes))
        assert kept_magnitude(rows, order) > kept_magnitude(rows)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_of_eight_channels_the_best_order_is_found(seed: int) -> None:
    rows = rows_of(seed, 2)
    best = max(
        kept_magnitude(rows, np.array([*first, *(at for at in range(8) if at not in first)]))
        for first in itertools.combinations(range(8), 4)
    )
    order = better_order(rows)
    found = kept_magnitude(rows) if order is None else kept_magnitude(rows, order)
    assert found == pytest.approx(best, rel=1e-5)


def test_large_channels_that_meet_are_taken_apart() -> None:
    """Four large channels in one group keep half of their magnitude, two and two in two groups all of it."""
    rows = np.full((6, 16), 0.01, np.float32)
    rows[:, 4:8] = 1
    order = better_order(rows)
    assert order is not None
    assert kept_magnitude(rows) == pytest.approx(0.5, abs=0.03)
    assert kept_magnitude(rows, order) > 0.98


def test_channels_that_are_all_alike_keep_their_order() -> None:
    assert better_order(np.ones((5, 32), np.float32)) is None
    assert better_order(rows_of(0, 1)) is None


def test_the_same_rows_give_the_same_order() -> None:
    rows = rows_of(3, 9)
    np.testing.assert_array_equal(better_order(rows), better_order(rows.copy()))


def test_pairs_weighed_a_few_at_a_time_give_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(4, 9)
    whole = better_order(rows)
    monkeypatch.setattr(permutation, "_HELD_NUMBERS", 1)
    np.testing.assert_array_equal(better_order(rows), whole)


def test_a_part_of_the_rows_stands_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(5, 8, rows=400)
    monkeypatch.setattr(permutation, "_MOST_NUMBERS", 32 * 40)
    order = better_order(rows)
    assert order is not None
    assert kept_magnitude(rows, order) > kept_magnitude(rows)


def test_kept_magnitude_is_that_of_the_two_largest_of_each_four() -> None:
    rows = np.array([[4, 1, 3, 2, 0, 0, 5, 0]], np.float32)
    assert kept_magnitude(rows) == pytest.approx((4 + 3 + 5) / 15)


def test_weights_of_any_scale_count_alike() -> None:
    one, other = rows_of(1, 2), rows_of(2, 2, rows=30)
    found = stacked([(one, 1), (1000 * other.T.reshape(8, 30), 0)])
    assert found.shape == (42, 8)
    assert found[:12].sum() == pytest.approx(1, rel=1e-5)
    assert found[12:].sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(found[12:], other / other.sum(), rtol=1e-4)
