"""Activations whose size depends on the sample, and that are empty for some: that is no overflow."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import (
    calibrated,
    feature_net,
    model_of,
    normal,
    piece_of,
    quality_db,
    samples_for,
)

from jettison.compress.quantization.calibrate import calibrate
from jettison.compress.quantization.correct import bias_corrections
from jettison.compress.quantization.equalize import channel_maxima
from jettison.compress.quantization.quantize import QuantizeFull, place
from jettison.compress.quantization.static import layer_integers
from jettison.core.errors import SamplesError

WIDTH = 32


def picking() -> ir.Model:
    """Scores, and the sum of what two layers make of the scores above 1, of which some samples have none."""
    net, x = feature_net(WIDTH)
    scores = net.named("Gemm", x, net.const(normal(WIDTH, WIDTH)), to="scores")
    is_large = net.op("Greater", scores, net.const(np.float32(1.0)))
    places = net.op("Transpose", net.op("NonZero", is_large), perm=[1, 0])
    picked = net.op("Unsqueeze", net.op("GatherND", scores, places), net.const(np.array([1])))
    hidden = net.named(
        "Relu", net.named("MatMul", picked, net.const(normal(1, WIDTH)), to="wide"), to="hidden"
    )
    summed = net.op("MatMul", hidden, net.const(normal(WIDTH, WIDTH)), name="inner")
    y = net.op("Add", scores, net.op("ReduceSum", summed, net.const(np.array([0])), keepdims=1))
    net.named("Relu", y, to="y")
    net.output("y", ["batch", WIDTH])
    return model_of(net)


def growing(count: int = 40) -> dict[str, np.ndarray]:
    """Features from near 0, which leave no score above 1, to large ones."""
    return {"features": normal(count, WIDTH) * np.linspace(0.001, 1, count, dtype=np.float32)[:, None]}


def test_samples_that_leave_nothing_have_no_extremes() -> None:
    model, arrays = picking(), growing()
    found = calibrated(model, arrays).histograms
    some = calibrated(model, {"features": arrays["features"][20:]}).histograms
    assert (found["hidden"].low, found["hidden"].high) == (some["hidden"].low, some["hidden"].high)
    assert found["hidden"].total > 0


def test_a_value_that_is_always_empty_counts_as_always_zero() -> None:
    found = calibrated(picking(), {"features": growing()["features"] * 1e-3}).histograms["hidden"]
    assert (found.low, found.high, found.total) == (0.0, 0.0, 1)


def test_a_sample_that_leaves_nothing_adds_nothing_to_maxima_and_no_error() -> None:
    model, arrays = picking(), growing(24)
    large = {"features": arrays["features"][[len(row[row > 1]) > 0 for row in scores_of(model, arrays)]]}
    assert 0 < len(large["features"]) < 24
    for name, found in channel_maxima(model, samples_for(model, arrays), threads=1).items():
        np.testing.assert_array_equal(
            found, channel_maxima(model, samples_for(model, large), threads=1)[name]
        )
    integers = layer_integers(model, calibrated(model, arrays), place(model.graph, "cpu"))
    both = [
        bias_corrections(model, samples_for(model, some), integers=integers, threads=1)["inner"]
        for some in (arrays, large)
    ]
    assert np.abs(both[0]).max() > 0
    np.testing.assert_allclose(both[0] * 24, both[1] * len(large["features"]), rtol=1e-5)


def scores_of(model: ir.Model, arrays: dict[str, np.ndarray]) -> np.ndarray:
    weight = next(node for node in model.graph if node.name == "node_scores").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return arrays["features"] @ weight.const_value.numpy()


@pytest.mark.parametrize("repair", ["measure", "all"])
def test_such_a_model_is_quantized_and_repaired(repair: str) -> None:
    """Above 25 dB: rounding alone leaves more than that of so small a network."""
    model, arrays = picking(), growing(48)
    result = QuantizeFull(repair=repair)(piece_of(model), samples_for(model, arrays))
    assert sum(layer.quantized for layer in result.layers) >= 2
    assert quality_db(model, result.model, {"features": arrays["features"][-1:]})[1] > 25


def test_an_overflow_is_still_told() -> None:
    model, huge = picking(), np.full((4, WIDTH), 3e38, np.float32)
    with pytest.raises(SamplesError, match="became NaN or infinite"):
        calibrate(model, samples_for(model, {"features": huge}), threads=1)
