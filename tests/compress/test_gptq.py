"""Rounding with error feedback: plain where inputs are independent, never worse in sum, and pair-safe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.compress.quantization import gptq
from jettison.compress.quantization.gptq import rounded_with_feedback
from jettison.compress.quantization.weights import channel_scales, pair_excess

SEEDS = st.integers(0, 2**32 - 1)


def rows_of(seed: int, *, groups: int = 2, channels: int = 5, inner: int = 24) -> tuple[np.ndarray, ...]:
    """Weights and their scales; inner may be odd."""
    rows = np.random.default_rng(seed).normal(0, 1, (groups, channels, inner)).astype(np.float32)
    scales = channel_scales(rows.reshape(-1, inner)).reshape(groups, channels)
    return rows, scales


def correlated(seed: int, groups: int, inner: int) -> np.ndarray:
    """Covariances of inputs that share few causes, as neighbouring pixels do."""
    causes = np.random.default_rng(seed).normal(0, 1, (groups, inner, 3))
    return causes @ causes.transpose(0, 2, 1) + 0.05 * np.eye(inner)


def plainly(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rows / scales[..., None]), -127, 127)


def errors(values: np.ndarray, rows: np.ndarray, scales: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(w - s q) H (w - s q)^T of each row."""
    difference = rows - values * scales[..., None]
    return np.einsum("gci,gij,gcj->gc", difference, covariances, difference)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, inner=st.integers(1, 40), factor=st.floats(1e-3, 1e6))
def test_independent_inputs_mean_plain_rounding(seed: int, inner: int, factor: float) -> None:
    rows, scales = rows_of(seed, inner=inner)
    variances = factor * np.random.default_rng(seed).uniform(0.1, 9, (2, inner))
    found = rounded_with_feedback(rows, scales, variances[:, :, None] * np.eye(inner), pair_safe=False)
    np.testing.assert_array_equal(found, plainly(rows, scales))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, share=st.floats(0.05, 0.95), pair_safe=st.booleans())
def test_weights_of_zero_stay_zero(seed: int, share: float, pair_safe: bool) -> None:
    """Pruned weights: whatever the errors before them ask for, and beside a pair's first one too."""
    rows, scales = rows_of(seed)
    rows[np.random.default_rng(seed).random(rows.shape) < share] = 0
    found = rounded_with_feedback(rows, scales, correlated(seed, 2, 24), pair_safe=pair_safe)
    assert not found[rows == 0].any()
    if pair_safe:
        assert not pair_excess(found.reshape(-1, 24).astype(np.float32)).any()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_the_error_of_the_output_is_smaller_in_sum_and_for_most_rows(seed: int) -> None:
    """Greedy, so single rows may lose; of 60 rows with inputs so alike hardly one does."""
    rows, scales = rows_of(seed, groups=3, channels=20)
    covariances = correlated(seed, 3, 24)
    found = rounded_with_feedback(rows, scales, covariances, pair_safe=False)
    plain = errors(plainly(rows, scales), rows, scales, covariances)
    better = errors(found, rows, scales, covariances)
    assert better.sum() < 0.5 * plain.sum()
    assert (better < plain).mean() > 0.6


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, inner=st.integers(1, 40))
def test_pairs_stay_safe_even_where_feedback_pushes(seed: int, inner: int) -> None:
    rows, scales = rows_of(seed, channels=30, inner=inner)
    rows = np.abs(rows)
    found = rounded_with_feedback(rows, scales * 0.9, correlated(seed, 2, inner), pair_safe=True)
    assert not pair_excess(found.reshape(-1, inner)).any()
    assert np.abs(found).max() <= 127


def test_without_pair_safety_pairs_may_be_unsafe() -> None:
    """So the law above can fail."""
    rows, scales = rows_of(0, channels=30)
    found = rounded_with_feedback(np.abs(rows), scales, correlated(0, 2, 24), pair_safe=False)
    assert pair_excess(found.reshape(-1, 24)).any()


def test_the_result_is_whole_numbers_in_the_shape_of_the_rows() -> None:
    rows, scales = rows_of(0)
    found = rounded_with_feedback(rows, scales, correlated(0, 2, 24), pair_safe=False)
    assert found.shape == rows.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.rint(found))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_neither_blocks_nor_slices_change_the_result(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums in another order may tip a half: not one of these 240 numbers is so near to it."""
    rows, scales = rows_of(3)
    whole = rounded_with_feedback(rows, scales, correlated(3, 2, 24), pair_safe=True)
    monkeypatch.setattr(gptq, "_BLOCK", size)
    monkeypatch.setattr(gptq, "_MOST_WEIGHTS", size)
    found = rounded_with_feedback(rows, scales, correlated(3, 2, 24), pair_safe=True)
    np.testing.assert_array_equal(found, whole)


def test_inputs_that_never_change_and_dead_channels_are_rounded_plainly() -> None:
    rows, scales = rows_of(1)
    rows[0, 2] = 0
    covariances = correlated(1, 2, 24)
    covariances[0, :, :12] = covariances[0, :12, :] = 0
    covariances[1] = 0
    found = rounded_with_feedback(rows, scales, covariances, pair_safe=False)
    assert not found[0, 2].any()
    np.testing.assert_array_equal(found[0, :, :12], plainly(rows, scales)[0, :, :12])
    np.testing.assert_array_equal(found[1], plainly(rows, scales)[1])
    assert (found[0, :, 12:] != plainly(rows, scales)[0, :, 12:]).any()
