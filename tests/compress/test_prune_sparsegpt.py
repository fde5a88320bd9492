"""SparseGPT: valid groups, zeros that stay, and outputs nearer than by magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.compress.pruning import sparsegpt
from jettison.compress.pruning.masks import two_of_four
from jettison.compress.pruning.sparsegpt import pruned_with_feedback

SEEDS = st.integers(0, 2**32 - 1)


def problem(seed: int, *, groups: int = 2, channels: int = 6, inner: int = 24) -> tuple[np.ndarray, ...]:
    """Rows, and covariances of inputs that share few causes, as neighbouring pixels do."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(0, 1, (groups, inner, 4))
    covariances = causes @ causes.transpose(0, 2, 1) + 0.05 * np.eye(inner)
    return rng.normal(0, 1, (groups, channels, inner)), covariances


def errors(rows: np.ndarray, found: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(w - v) H (w - v)^T of each row."""
    difference = rows - found
    return np.einsum("gci,gij,gcj->gc", difference, covariances, difference)


def by_magnitude(rows: np.ndarray) -> np.ndarray:
    return np.where(two_of_four(np.abs(rows).astype(np.float32), 2), 0, rows)


@settings(max_examples=30)
@given(seed=SEEDS, inner=st.integers(1, 40).map(lambda fours: 4 * fours))
def test_every_four_has_two_zeros(seed: int, inner: int) -> None:
    """Beyond 128 columns errors are passed on from block to block."""
    rows, covariances = problem(seed, inner=inner)
    found = pruned_with_feedback(rows, covariances)
    assert (np.count_nonzero(found.reshape(-1, 4) == 0, axis=1) >= 2).all()
    assert np.isfinite(found).all()


@settings(max_examples=30)
@given(seed=SEEDS, share=st.floats(0.1, 0.9))
def test_zeros_stay_zeros(seed: int, share: float) -> None:
    rows, covariances = problem(seed)
    rows[np.random.default_rng(seed).random(rows.shape) < share] = 0
    assert not pruned_with_feedback(rows, covariances)[rows == 0].any()


@settings(max_examples=30)
@given(seed=SEEDS)
def test_the_error_of_the_outputs_is_smaller_than_by_magnitude(seed: int) -> None:
    """Greedy in its choice, so single rows may lose; in sum 60 rows with inputs so alike never do."""
    rows, covariances = problem(seed, groups=3, channels=20)
    plain = errors(rows, by_magnitude(rows), covariances)
    found = errors(rows, pruned_with_feedback(rows, covariances), covariances)
    assert found.sum() < 0.5 * plain.sum()
    assert (found < plain).mean() > 0.8


@settings(max_examples=30)
@given(seed=SEEDS)
def test_settling_the_kept_weights_together_brings_more(seed: int) -> None:
    """What settling minimizes has a little on its diagonal, hence the hundredth."""
    rows, covariances = problem(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsegpt, "_STEPS", 0)
        before = errors(rows, pruned_with_feedback(rows, covariances), covariances)
    after = errors(rows, pruned_with_feedback(rows, covariances), covariances)
    assert (after <= 1.01 * before + 1e-9).all()
    assert after.sum() < before.sum()


@settings(max_examples=20)
@given(seed=SEEDS, factor=st.floats(1e-3, 1e6))
def test_independent_inputs_of_equal_size_mean_magnitude(seed: int, factor: float) -> None:
    rows, _ = problem(seed)
    identity = factor * np.broadcast_to(np.eye(24), (2, 24, 24))
    np.testing.assert_allclose(pruned_with_feedback(rows, identity), by_magnitude(rows), atol=1e-12)


def test_inputs_that_vary_more_count_for_more() -> None:
    rows = np.array([[[1.0, 1.1, 1.2, 1.3]]])
    found = pruned_with_feedback(rows, np.diag([100.0, 50.0, 1.0, 1.0])[None])
    np.testing.assert_array_equal(found != 0, [[[True, True, False, False]]])


def test_rows_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, covariances = problem(5)
    whole = pruned_with_feedback(rows, covariances)
    monkeypatch.setattr(sparsegpt, "_MOST_WEIGHTS", 1)
    np.testing.assert_allclose(pruned_with_feedback(rows, covariances), whole, rtol=1e-9, atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, covariances = problem(6, inner=64)
    whole = pruned_with_feedback(rows, covariances)
    monkeypatch.setattr(sparsegpt, "_BLOCK", 8)
    np.testing.assert_allclose(pruned_with_feedback(rows, covariances), whole, rtol=1e-7, atol=1e-9)


def test_inputs_that_never_change_are_no_obstacle() -> None:
    rows, covariances = problem(7)
    covariances[:, 8:16] = covariances[:, :, 8:16] = 0
    assert np.isfinite(pruned_with_feedback(rows, covariances)).all()
    assert np.isfinite(pruned_with_feedback(rows, np.zeros_like(covariances))).all()
