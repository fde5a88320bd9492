"""FP8 scales: what rounding costs, exactly; scales that float16 can store; weights by channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import normal

from jettison.compress.quantization.float8_scales import (
    FLOAT8,
    LARGEST,
    SMALLEST_SCALE,
    activation_scale,
    rounding_errors,
    scale_of,
    stored_weight,
)
from jettison.compress.quantization.histogram import Histogram, histogram_of

WEIGHTS = arrays(np.float32, (3, 8), elements=st.floats(-1e4, 1e4, width=32))


def histogram(values: np.ndarray) -> Histogram:
    return histogram_of(values, low=float(values.min()), high=float(values.max()))


def there_and_back(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Rounded to the nearest E4M3 number, saturating; in float64 but for the rounding itself."""
    return np.clip(values / scale, -LARGEST, LARGEST).astype(np.float32).astype(FLOAT8).astype(float) * scale


def long_tailed(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, 100_000).astype(np.float32)


@pytest.mark.parametrize(
    "values", [normal(100_000), long_tailed(), np.abs(normal(100_000))], ids=["normal", "long", "half"]
)
def test_expected_error_is_the_error_that_is_measured(values: np.ndarray) -> None:
    """Bins are 1/2048 of the range and values lie evenly in them, but for a few at the far end of a tail."""
    scales = np.abs(values).max() / LARGEST * np.array([0.3, 0.6, 0.9, 1.0, 1.3, 1.9])
    measured = [np.square(there_and_back(values, scale) - values).mean() for scale in scales]
    np.testing.assert_allclose(rounding_errors(histogram(values), scales), measured, rtol=0.01)


def test_zeros_round_to_themselves() -> None:
    values = normal(1000)
    with_zeros = np.concatenate([values, np.zeros(3000, np.float32)])
    scales = np.array([0.01])
    whole, thinned = (rounding_errors(histogram(found), scales)[0] for found in (values, with_zeros))
    assert thinned == pytest.approx(whole / 4)


def test_max_cuts_nothing_off_and_uses_the_whole_range() -> None:
    values = normal(1000)
    scale = float(activation_scale([histogram(values)], "max"))
    assert np.abs(values).max() / scale == pytest.approx(LARGEST)


@pytest.mark.parametrize("values", [normal(20_000), long_tailed()], ids=["normal", "long"])
def test_mse_leaves_no_more_noise_than_max(values: np.ndarray) -> None:
    errors = {
        ranges: np.square(there_and_back(values, float(scale)) - values).mean()
        for ranges in ("max", "mse")
        for scale in [activation_scale([histogram(values)], ranges)]
    }
    assert errors["mse"] < errors["max"]


def test_mse_does_not_clip_a_long_tail_as_integers_would() -> None:
    """FP8 has the same precision at every size, so that a large value costs the small ones nothing."""
    values = long_tailed()
    scale = float(activation_scale([histogram(values)], "mse"))
    assert scale * LARGEST > 0.9 * np.abs(values).max()


@pytest.mark.parametrize("ranges", ["max", "mse"])
def test_tied_values_get_one_scale_that_fits_them_all(ranges: str) -> None:
    small, large = normal(1000, scale=0.1), normal(1000, seed=1, scale=10)
    tied = activation_scale([histogram(small), histogram(large)], ranges)
    joined = activation_scale([histogram(large), histogram(small)], ranges)
    assert tied == joined
    assert float(tied) * LARGEST > 0.9 * np.abs(large).max()


@given(largest=st.floats(0, 1e6, width=32))
def test_no_scale_is_zero_and_float16_holds_all_but_the_tiniest(largest: float) -> None:
    scale = scale_of(largest)
    assert scale.dtype == np.float32
    assert scale > 0
    assert scale * np.float32(LARGEST) >= np.float32(largest) * np.float32(0.999999)
    if largest == 0 or largest >= SMALLEST_SCALE:
        assert scale >= SMALLEST_SCALE


def test_raising_a_scale_to_what_float16_holds_costs_nothing() -> None:
    """Weights of a hundredth: max / 448 would be 2e-5, a subnormal float16."""
    weight = normal(64, 256, scale=0.002)
    raised, _ = stored_weight(weight, 0, "max")
    scaled = (there_and_back(weight, np.abs(weight).max() / LARGEST) - weight).astype(float)
    found = raised.astype(np.float32) * np.float32(SMALLEST_SCALE) - weight
    assert np.square(found).sum() < 1.1 * np.square(scaled).sum()


@settings(max_examples=60)
@given(weight=WEIGHTS, ranges=st.sampled_from(["max", "mse"]))
def test_a_stored_weight_is_off_by_half_a_step_at_most(weight: np.ndarray, ranges: str) -> None:
    """A step is 1/8 of the power of two below a number; the 1e-5 are float32's own rounding."""
    values, scales = stored_weight(weight, 0, ranges)
    assert values.dtype == FLOAT8
    error = np.abs(values.astype(float) * scales[:, None] - weight)
    assert (error <= np.maximum(np.abs(weight) / 16, scales[:, None] * 2.0**-10) * (1 + 1e-5)).all()


@settings(max_examples=60)
@given(weight=WEIGHTS)
def test_nearest_scales_are_never_further_from_the_weights(weight: np.ndarray) -> None:
    errors = []
    for ranges in ("max", "mse"):
        values, scales = stored_weight(weight, 0, ranges)
        errors.append(np.square(values.astype(float) * scales[:, None] - weight).sum(axis=1))
    assert (errors[1] <= errors[0] * (1 + 1e-5)).all()


@pytest.mark.parametrize(("shape", "axis"), [((8, 4, 3, 3), 0), ((4, 8, 3, 3), 1), ((4, 8), 1)])
def test_each_channel_has_a_scale(shape: tuple[int, ...], axis: int) -> None:
    weight = normal(*shape) * np.arange(1, 9).reshape(
        [-1 if index == axis else 1 for index in range(len(shape))]
    )
    values, scales = stored_weight(weight.astype(np.float32), axis, "max")
    others = tuple(index for index in range(len(shape)) if index != axis)
    assert scales.shape == (8,)
    assert (np.abs(values.astype(np.float32)).max(axis=others) == LARGEST).all()
