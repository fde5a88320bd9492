"""Weights in 4-bit blocks: the nearest integers, and clipping for the least error of the output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import feature_net, model_of, normal, samples_for

from jettison.compress.quantization.block_moments import block_moments
from jettison.compress.quantization.block_weights import INT4, output_error, quantize_blocks
from jettison.core.errors import SamplesError
from jettison.graph.moments import Moment

WEIGHTS = arrays(np.float32, (32, 3), elements=st.floats(-1e4, 1e4, width=32))
FEATURES = Moment("features", 32, 16)


def moments_of(rows: np.ndarray, block: int) -> np.ndarray:
    """H_g = sum of x_g x_g^T over the rows, straight from its definition."""
    blocks = rows.reshape(len(rows), -1, block)
    return np.einsum("tgb,tgc->gbc", blocks, blocks).astype(np.float32)


@settings(max_examples=60)
@given(weight=WEIGHTS)
def test_round_to_nearest_is_off_by_half_a_step_at_most(weight: np.ndarray) -> None:
    found = quantize_blocks(weight, 16)
    assert found.values.dtype == INT4
    assert found.scales.shape == (2, 3)
    steps = np.repeat(found.scales, 16, axis=0)
    assert (np.abs(found.dequantized() - weight) <= steps / 2 * (1 + 1e-5)).all()
    assert np.abs(found.values.astype(np.int8)).max() <= 7


def test_the_largest_weight_of_a_block_is_seven_steps() -> None:
    weight = normal(64, 8)
    found = quantize_blocks(weight, 16)
    np.testing.assert_allclose(found.scales * 7, np.abs(weight.reshape(4, 16, 8)).max(axis=1), rtol=1e-6)
    assert (np.abs(found.values.astype(np.int8)).reshape(4, 16, 8).max(axis=1) == 7).all()


def test_a_dead_block_has_a_scale_above_zero() -> None:
    weight = normal(32, 2)
    weight[:16, 0] = 0
    found = quantize_blocks(weight, 16, np.ones((2, 16, 16), np.float32))
    assert found.scales.min() > 0
    assert not found.values[:16, 0].astype(np.int8).any()


def test_shorter_blocks_are_nearer_to_the_weights() -> None:
    weight = normal(256, 16)
    errors = [
        np.square(quantize_blocks(weight, block).dequantized() - weight).sum() for block in (128, 32, 16)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_error_is_that_of_the_output() -> None:
    """(w_q - w)^T H (w_q - w) is the squared difference of the products, summed over the samples."""
    rows, weight = normal(200, 16), normal(16, 4, seed=1)
    scales = np.abs(weight).max(axis=0) / 7
    rounded = np.clip(np.rint(weight / scales), -8, 7) * scales
    expected = np.square(rows @ rounded - rows @ weight).sum(axis=0)
    np.testing.assert_allclose(output_error(weight, scales, moments_of(rows, 16)[0]), expected, rtol=1e-3)


@settings(max_examples=60)
@given(weight=WEIGHTS, rows=arrays(np.float32, (8, 32), elements=st.floats(-10, 10, width=32)))
def test_clipping_never_adds_to_the_error_of_a_block(weight: np.ndarray, rows: np.ndarray) -> None:
    """Up to float32's rounding of a sum of 256 products of up to 1e10."""
    moments = moments_of(rows, 16)
    plain, clipped = quantize_blocks(weight, 16), quantize_blocks(weight, 16, moments)
    for block in range(2):
        part = slice(16 * block, 16 * block + 16)
        before, after = (
            output_error(weight[part], found.scales[block], moments[block]) for found in (plain, clipped)
        )
        assert (after <= before).all()


def test_clipping_spares_the_weights_that_meet_large_activations() -> None:
    """A large weight whose input is always zero must not set the step of the others."""
    weight = normal(16, 1, scale=0.1)
    weight[0] = 1.0
    rows = normal(100, 16)
    rows[:, 0] = 0
    plain, clipped = quantize_blocks(weight, 16), quantize_blocks(weight, 16, moments_of(rows, 16))
    errors = [np.square(rows @ (found.dequantized() - weight)).sum() for found in (plain, clipped)]
    assert errors[1] < errors[0] / 2
    assert clipped.scales[0, 0] == pytest.approx(plain.scales[0, 0] * 0.55), "AWQ clips to 0.55 at most"


def test_unseen_rows_gain_from_clipping_too() -> None:
    weight, rows = normal(128, 64, scale=0.05), normal(600, 128, seed=1) * np.geomspace(0.1, 3, 128)
    moments = moments_of(rows[:300].astype(np.float32), 128)
    errors = [
        np.square(rows[300:] @ (quantize_blocks(weight, 128, given).dequantized() - weight)).sum()
        for given in (None, moments)
    ]
    assert errors[1] < 0.85 * errors[0]


def test_moments_are_summed_in_the_graph_over_all_rows_of_all_samples() -> None:
    net, x = feature_net()
    net.named("Relu", x, to="y")
    net.output("y", ["batch", 32])
    model, rows = model_of(net), normal(20, 32)
    wanted = (FEATURES, Moment("y", 32, 32))
    found = block_moments(model, samples_for(model, {"features": rows}), wanted, threads=1)
    np.testing.assert_allclose(found[FEATURES] * 20, moments_of(rows, 16), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found[wanted[1]] * 20, moments_of(np.maximum(rows, 0), 32), rtol=1e-4, atol=1e-4
    )


def test_values_that_overflow_are_told() -> None:
    net, x = feature_net()
    net.named("Exp", x, to="y")
    net.output("y", ["batch", 32])
    model = model_of(net)
    samples = samples_for(model, {"features": np.full((2, 32), 80, np.float32)})
    with pytest.raises(SamplesError, match=r"value 'y' became NaN or infinite\. Check the model in float"):
        block_moments(model, samples, [Moment("y", 32, 16)], threads=1)


def test_nothing_is_run_where_nothing_is_asked() -> None:
    net, x = feature_net()
    net.named("Relu", x, to="y")
    net.output("y", ["batch", 32])
    assert block_moments(model_of(net), None, []) == {}  # type: ignore[arg-type]  # no sample is read
