"""From histograms to ranges, and from ranges to scales: the laws of clipping and rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import normal

from jettison.compress.quantization.histogram import Histogram, histogram_of
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.ranges import Range, RangeMethod, range_of
from jettison.compress.quantization.static import activation_scale
from jettison.graph.qdq import Scale

METHODS: tuple[RangeMethod, ...] = ("max", "percentile", "mse", "kl")
DIALECTS: tuple[Dialect, ...] = ("cpu", "tensorrt")

ENDS = st.floats(-1e4, 1e4, width=32).filter(lambda end: end == 0 or abs(end) > 1e-3)
VALUES = arrays(
    np.float32, st.integers(1, 300), elements=st.one_of(st.floats(-100, 100, width=32), st.just(0.0))
)


def histogram(values: np.ndarray) -> Histogram:
    return histogram_of(values, low=float(values.min()), high=float(values.max()))


def there_and_back(values: np.ndarray, scale: Scale) -> np.ndarray:
    """X_q = clip(round(X / s) + z), X ~ (X_q - z) * s, in float32 as ONNX says."""
    kind = np.iinfo(scale.zero_point.dtype)
    zero, step = int(scale.zero_point), np.float32(scale.values)
    integers = np.clip(np.rint(values / step) + zero, kind.min, kind.max)
    return ((integers - zero) * step).astype(np.float32)


def sqnr_db(values: np.ndarray, scale: Scale) -> float:
    error = there_and_back(values, scale).astype(np.float64) - values
    return 10 * np.log10(np.square(values, dtype=np.float64).sum() / np.square(error).sum())


@pytest.mark.parametrize("dialect", DIALECTS)
@given(low=ENDS, high=ENDS, share=st.floats(0, 1))
def test_rounding_is_off_by_half_a_step_at_most_inside_the_range(
    dialect: Dialect, low: float, high: float, share: float
) -> None:
    found = Range(low=min(low, high, 0.0), high=max(low, high, 0.0))
    scale = activation_scale(found, dialect)
    inside = np.float32(found.low + (found.high - found.low) * share)
    error = abs(float(there_and_back(inside, scale)) - float(inside))
    rounding = 1e-5 * max(abs(found.low), abs(found.high))  # of float32 in the division and the product
    assert error <= float(scale.values) / 2 + rounding


@pytest.mark.parametrize("dialect", DIALECTS)
@given(low=ENDS, high=ENDS)
def test_zero_is_exact_and_the_scale_is_positive(dialect: Dialect, low: float, high: float) -> None:
    scale = activation_scale(Range(low=min(low, 0.0), high=max(high, 0.0)), dialect)
    assert float(there_and_back(np.float32(0), scale)) == 0.0
    assert scale.values > 0
    assert scale.values.dtype == np.float32


@given(low=ENDS, high=ENDS)
def test_tensorrts_scale_is_symmetric(low: float, high: float) -> None:
    scale = activation_scale(Range(low=min(low, 0.0), high=max(high, 0.0)), "tensorrt")
    assert (scale.zero_point.dtype, int(scale.zero_point)) == (np.int8, 0)


@given(high=st.floats(1e-3, 1e4))
def test_integers_of_a_range_from_zero_never_reach_beyond_it(high: float) -> None:
    """Else ONNX Runtime keeps the Relu or Clip that made the range, and the layer before it, in float."""
    scale = activation_scale(Range(low=0.0, high=high), "cpu")
    assert int(scale.zero_point) == 0
    assert np.float32(255) * scale.values <= np.float32(high)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_value_that_is_always_zero_has_a_scale(dialect: Dialect) -> None:
    found = range_of(histogram(np.zeros(10, np.float32)), "max")
    assert (found.low, found.high) == (0.0, 0.0)
    assert activation_scale(found, dialect).values > 0


@pytest.mark.parametrize("method", METHODS)
@given(values=VALUES)
def test_a_range_holds_zero_and_never_reaches_beyond_the_extremes(
    method: RangeMethod, values: np.ndarray
) -> None:
    found = range_of(histogram(values), method)
    assert min(float(values.min()), 0.0) <= found.low <= 0.0 <= found.high <= max(float(values.max()), 0.0)


@given(values=VALUES)
def test_max_covers_every_value(values: np.ndarray) -> None:
    found = range_of(histogram(values), "max")
    assert found == Range(low=min(float(values.min()), 0.0), high=max(float(values.max()), 0.0))


@given(values=VALUES, percentile=st.floats(50.1, 100.0))
def test_percentile_covers_that_share_of_the_magnitudes(values: np.ndarray, percentile: float) -> None:
    found = range_of(histogram(values), "percentile", percentile=percentile)
    covered = np.count_nonzero((values >= found.low) & (values <= found.high))
    assert covered >= np.floor(percentile / 100 * values.size)


def scale_of(values: np.ndarray, method: RangeMethod, dialect: Dialect) -> Scale:
    found = range_of(histogram(values), method, symmetric=dialect == "tensorrt")
    return activation_scale(found, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(seed=st.integers(0, 999), degrees=st.floats(1.5, 30), clamped=st.booleans())
def test_mse_is_never_worse_than_max_on_what_it_has_seen(
    dialect: Dialect, seed: int, degrees: float, clamped: bool
) -> None:
    """Heavy tails make it clip; a quarter is for the chance in 3,000 rounding errors (seen: 1.11)."""
    values = np.random.default_rng(seed).standard_t(degrees, 3000).astype(np.float32)
    values = np.maximum(values, 0) if clamped else values
    scales = [scale_of(values, method, dialect) for method in ("mse", "max")]
    mse, largest = (float(np.mean((there_and_back(values, scale) - values) ** 2)) for scale in scales)
    assert mse <= 1.25 * largest


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("clamped", [False, True])
def test_mse_finds_the_best_clip_there_is(dialect: Dialect, clamped: bool) -> None:
    """Found by trying them all; a range behind a Relu leaves TensorRT's integers half unused."""
    values = np.maximum(with_outlier(), 0) if clamped else with_outlier()
    low = float(values.min())
    tried = [Range(low=max(low, -clip), high=clip) for clip in np.linspace(2.0, 40.0, 77)]
    best = max(sqnr_db(values, activation_scale(found, dialect)) for found in tried)
    assert sqnr_db(values, scale_of(values, "mse", dialect)) == pytest.approx(best, abs=0.05)


def with_outlier(size: int = 200_000) -> np.ndarray:
    values = normal(size)
    values[size // 2] = 40.0
    return values


def test_an_outlier_at_40_sigma_is_clipped_by_mse_which_then_beats_max() -> None:
    values = with_outlier()
    figures = {method: sqnr_db(values, scale_of(values, method, "tensorrt")) for method in METHODS}
    assert range_of(histogram(values), "max").high == 40.0
    assert range_of(histogram(values), "mse", symmetric=True).high < 20.0
    assert figures["max"] == pytest.approx(20.9, abs=0.1)  # 10 log10(12 (127 / 40)^2)
    assert figures["percentile"] == pytest.approx(21.9, abs=0.1)
    assert figures["mse"] == pytest.approx(24.0, abs=0.1)


def test_the_method_is_the_same_for_scaled_values() -> None:
    """Twice the values, twice the range: the bins are the same ones."""
    values = with_outlier(20_000)
    for method in METHODS:
        one, two = range_of(histogram(values), method), range_of(histogram(2 * values), method)
        assert (two.low, two.high) == pytest.approx((2 * one.low, 2 * one.high))


def test_values_behind_a_relu_are_not_given_a_negative_half() -> None:
    values = np.maximum(normal(10_000), 0)
    for method in METHODS:
        assert range_of(histogram(values), method).low == 0.0


def test_zeros_that_no_rounding_harms_make_mse_clip_less() -> None:
    """A mostly zero activation: its rounding noise counts for the others only."""
    values = with_outlier(2_000)
    sparse = np.concatenate([values, np.zeros(40_000, np.float32)])
    dense = np.concatenate([values, np.full(40_000, 1e-3, np.float32)])
    assert range_of(histogram(sparse), "mse").high > range_of(histogram(dense), "mse").high


def test_a_union_covers_both() -> None:
    assert Range(low=-1, high=2).union(Range(low=-3, high=1)) == Range(low=-3, high=2)
