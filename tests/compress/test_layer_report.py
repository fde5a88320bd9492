"""What the report says of each layer, read from the two models and measured on them."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import (
    calibrated,
    feature_net,
    features,
    image,
    model_of,
    piece_of,
    quantized,
    residual_network,
    run,
    samples_for,
)

from jettison.compress.passes import PassResult
from jettison.compress.quantization.dynamic import quantize_dynamically
from jettison.compress.quantization.equalize import channel_maxima, equalized
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.histogram import histogram_of
from jettison.compress.quantization.layer_format import clip_share, coarse
from jettison.compress.quantization.layer_noise import layer_sqnr_db
from jettison.compress.quantization.layer_report import Known, LayerReport, report_layers
from jettison.compress.quantization.layers import find_layers
from jettison.core.tensors import Arrays
from jettison.evaluate.sqnr import CAP_DB, sqnr_db
from jettison.graph.cast import cast_nodes, simulate_cast
from zoo.builder import Net, image_net


def reported(
    model: ir.Model, variant: ir.Model, arrays: Arrays, known: Known | None = None
) -> dict[str, LayerReport]:
    found = report_layers(model, variant, samples_for(model, arrays), known=known, threads=1)
    return {layer.node: layer for layer in found}


def full(model: ir.Model, arrays: Arrays, **settings) -> tuple[PassResult, dict[str, LayerReport]]:
    """The quantized model, and the report on it with all that the pass knew."""
    result = quantized(model, arrays, **settings)
    known = Known(result.layers, calibrated(model, arrays))
    return result, reported(model, result.model, arrays, known)


def two_products(seed: int = 0) -> ir.Model:
    net, x = feature_net()
    net.rng = np.random.default_rng(seed)
    x = net.op("Relu", net.gemm(x, (32, 64)), name="clamp")
    net.gemm(x, (64, 16), to="scores")
    net.output("scores", ["batch", 16])
    return model_of(net)


def test_every_weighted_layer_is_reported_in_the_order_of_the_graph():
    model, arrays = residual_network(), image(count=4)
    result, _ = full(model, arrays)
    found = report_layers(model, result.model, samples_for(model, arrays))
    assert [layer.node for layer in found] == [layer.name for layer in find_layers(model.graph)]
    assert [layer.kind for layer in found] == ["Conv"] * 7 + ["Gemm"]


def test_a_quantized_layer_tells_its_formats_its_reason_and_a_quarter_of_its_bytes():
    _, layers = full(residual_network(), image(count=4))
    assert all(layer.quantized for layer in layers.values())
    assert {layer.reason for layer in layers.values()} == {"integers carry it"}
    assert {layer.weight.element_type for layer in layers.values()} == {"int8"}
    assert {layer.input.element_type for layer in layers.values()} == {"uint8"}
    conv = next(
        layer for layer in layers.values() if layer.weight.baseline_size_bytes == 4 * (32 * 32 * 9 + 32)
    )
    per_channel = 4 + 1 + 4 + 4 + 4
    assert conv.weight.size_bytes == 32 * 32 * 9 + 32 * per_channel


def test_noise_includes_the_losses_of_earlier_layers():
    model, arrays = residual_network(), image(count=4)
    _, layers = full(model, arrays)
    levels = [layer.sqnr_db for layer in layers.values()]
    assert all(25 < level < 55 for level in levels)
    assert levels[0] == max(levels)


def test_a_layer_that_was_damaged_is_found_where_the_noise_rises():
    model, arrays = residual_network(), image(count=4)
    damaged = model.clone()
    names = [layer.name for layer in find_layers(model.graph)]
    victim = list(find_layers(damaged.graph))[2]
    weight = victim.weight.const_value.numpy()
    victim.weight.const_value = ir.tensor(-weight, name=victim.weight.name)
    levels = layer_sqnr_db(model, damaged, samples_for(model, arrays))
    assert [levels[name] for name in names[:2]] == [CAP_DB, CAP_DB]
    assert all(levels[name] < 20 for name in names[2:])
    assert levels[names[2]] < 0


def test_fp8_counts_as_quantized():
    model, arrays = residual_network(), image(count=40)
    step = QuantizeFloat8()
    piece = piece_of(model, "sm89")
    result = step(piece, samples_for(model, arrays))
    layers = reported(model, result.model, arrays, Known(result.layers, simulation=result.simulation))
    told = {layer.node: layer.quantized for layer in result.layers}
    assert any(told.values())
    for name, layer in layers.items():
        assert layer.quantized == told[name], name
        assert (layer.weight.element_type == "float8_e4m3fn") == told[name]


def test_noise_is_held_against_the_float_model_that_the_layers_stand_for():
    """An equalized model computes the same by other layers: against the baseline they look broken."""
    model, arrays = residual_network(), image(count=4)
    equal = equalized(model, channel_maxima(model, samples_for(model, arrays), threads=1)).model
    known = Known(counterpart=equal)
    own = [layer.sqnr_db for layer in reported(model, equal, arrays, known).values()]
    wrong = [layer.sqnr_db for layer in reported(model, equal, arrays).values()]
    assert own == [CAP_DB] * len(own)
    assert min(wrong) < 20


def test_identical_models_have_no_noise_no_range_and_the_same_size():
    model, arrays = residual_network(), image(count=2)
    for layer in reported(model, model, arrays).values():
        assert layer.sqnr_db == CAP_DB
        assert not layer.quantized
        assert layer.reason is None
        assert layer.time is None
        assert layer.weight.size_bytes == layer.weight.baseline_size_bytes
        assert (layer.weight.element_type, layer.input.element_type) == ("float32", "float32")
        assert layer.input.model_dump(exclude={"element_type"}) == dict.fromkeys(
            ("low", "high", "seen_low", "seen_high", "clip_share", "seen")
        )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_range_by_extremes_covers_all_that_was_seen_and_clips_nothing(sign):
    _, layers = full(two_products(), {"features": sign * features()["features"]})
    for layer in layers.values():
        found = layer.input
        step = (found.high - found.low) / 255
        assert found.low - step / 2 <= found.seen_low <= found.seen_high <= found.high + step / 2
        assert found.clip_share == 0.0


def test_a_narrow_range_clips_the_share_that_the_values_show():
    model, arrays = two_products(), features(count=64)
    result, layers = full(model, arrays, ranges="percentile", percentile=90.0)
    found = layers[next(layer.node for layer in result.layers)].input
    values = arrays["features"]
    half = (found.high - found.low) / 255 / 2
    outside = np.mean((values < found.low - half) | (values > found.high + half))
    assert found.clip_share == pytest.approx(outside, abs=0.005)
    assert 0.05 < found.clip_share < 0.15
    assert found.seen_high == values.max()


def test_symmetric_integers_of_tensorrt_reach_one_step_further_down():
    _, layers = full(two_products(), features(), target="sm89")
    for layer in layers.values():
        assert layer.input.element_type == "int8"
        assert layer.input.low == pytest.approx(-128 / 127 * layer.input.high)


def test_a_layer_kept_in_float_says_why_and_has_no_noise_of_its_own():
    model, arrays = two_products(), features()
    names = [layer.name for layer in find_layers(model.graph)]
    _, layers = full(model, arrays, keep_float=(names[0],))
    first, second = layers.values()
    assert (first.quantized, second.quantized) == (False, True)
    assert first.reason == "left in float as asked"
    assert (first.weight.element_type, first.input.low) == ("float32", None)
    assert first.sqnr_db == CAP_DB
    assert second.sqnr_db < 60


def test_layers_that_the_dynamic_quantizer_renamed_are_found():
    model, arrays = two_products(), features()
    result = quantize_dynamically(model)
    layers = reported(model, result.model, arrays, Known(result.layers))
    for layer in layers.values():
        assert layer.quantized
        assert layer.reason == "integers at run time"
        assert layer.weight.element_type == "int8"
        assert layer.weight.size_bytes < layer.weight.baseline_size_bytes / 3
        assert layer.input.low is None
        assert 20 < layer.sqnr_db < 60


@pytest.mark.parametrize("is_simulated", [False, True])
def test_sixteen_bits_halve_the_bytes_and_their_noise_is_measured(is_simulated):
    model, arrays = residual_network(), image(count=2)
    known = Known(simulation=simulate_cast(model, "float16") if is_simulated else None)
    for layer in reported(model, cast_nodes(model, "float16"), arrays, known).values():
        assert (layer.weight.element_type, layer.input.element_type) == ("float16", "float16")
        assert 2 * layer.weight.size_bytes == layer.weight.baseline_size_bytes
        assert not layer.quantized
        assert 50 < layer.sqnr_db < 90


def test_noise_is_measured_on_the_simulation_and_formats_on_the_variant():
    model, arrays = two_products(), features()
    layers = reported(model, cast_nodes(model, "float16"), arrays, Known(simulation=two_products(seed=1)))
    for layer in layers.values():
        assert layer.weight.element_type == "float16"
        assert layer.sqnr_db < 3


def test_the_rounding_of_an_output_for_what_follows_is_not_its_layers_noise():
    net, x = image_net("one")
    net.conv(x, (16, 16), to="out")
    net.output("out", ["batch", 16, 16, 16])
    model, arrays = model_of(net), image(count=2)
    result = quantized(model, arrays)
    (layer,) = reported(model, result.model, arrays).values()
    rounded_db = sqnr_db(run(model, arrays), run(result.model, arrays, optimize=False))
    assert layer.sqnr_db > rounded_db + 0.5


def test_a_layer_of_another_shape_or_name_is_not_compared():
    model, arrays = two_products(), features()
    net, x = feature_net()
    x = net.op("Relu", net.gemm(x, (32, 48)), name="clamp")
    net.gemm(x, (48, 16), to="scores")
    net.output("scores", ["batch", 16])
    smaller, larger = reported(model, model_of(net), arrays).values()
    assert smaller.sqnr_db is None
    assert smaller.weight.size_bytes < smaller.weight.baseline_size_bytes
    assert larger.sqnr_db is not None
    other = model.clone()
    for node in list(other.graph):
        node.name = f"new_{node.name}"
        node.outputs[0].name = f"new_{node.outputs[0].name}"
    for layer in reported(model, other, arrays).values():
        assert (layer.sqnr_db, layer.weight.element_type, layer.weight.size_bytes) == (None, None, None)


def test_an_output_of_zeros_has_no_ratio():
    net, x = image_net("zeros")
    zero = net.const(np.zeros((16, 16, 1, 1)))
    net.named("Conv", x, zero, to="out")
    net.output("out", ["batch", 16, 16, 16])
    model = model_of(net)
    (layer,) = reported(model, model, image(count=1)).values()
    assert layer.sqnr_db is None


def test_a_model_without_weights_has_no_layers():
    net = Net("none")
    net.named("Relu", net.input("features", ["batch", 32]), to="out")
    net.output("out", ["batch", 32])
    model = model_of(net)
    assert reported(model, model, features()) == {}


def test_a_fixed_batch_is_filled_up():
    net = Net("fixed")
    net.gemm(net.input("features", [5, 32]), (32, 16), to="scores")
    net.output("scores", [5, 16])
    model = model_of(net)
    (layer,) = reported(model, model, features(count=3)).values()
    assert layer.sqnr_db == CAP_DB


def test_few_of_many_samples_are_run_and_progress_counts_them():
    model, told = two_products(), []
    samples = samples_for(model, features(count=64))
    layer_sqnr_db(model, model, samples, most=8, progress=lambda done, total: told.append((done, total)))
    assert told == [(index + 1, 8) for index in range(8)]


def test_time_is_told_where_there_is_something_to_time_with():
    model, arrays = residual_network(), image(count=1)
    result, _ = full(model, arrays)
    layers = reported(model, result.model, arrays, Known(inputs=arrays)).values()
    shares = [(layer.time.baseline_share, layer.time.variant_share) for layer in layers]
    for column in zip(*shares, strict=True):
        assert all(share > 0 for share in column)
        assert 0.5 < sum(column) <= 1
    assert all(layer.time.baseline_us > 0 for layer in layers)


def test_times_of_the_two_models_are_kept_apart():
    def product(width: int) -> ir.Model:
        net, x = feature_net()
        net.gemm(net.op("Relu", net.gemm(x, (32, width)), name="clamp"), (width, 16), to="scores")
        net.output("scores", ["batch", 16])
        return model_of(net)

    arrays = features(count=1)
    for layer in reported(product(16), product(16384), arrays, Known(inputs=arrays)).values():
        assert layer.time.variant_us > 3 * layer.time.baseline_us


def test_the_report_is_plain_json_without_nan():
    model, arrays = residual_network(), image(count=2)
    result, layers = full(model, arrays)
    for layer in [
        *layers.values(),
        *reported(model, result.model, arrays, Known(inputs=image(count=1))).values(),
    ]:
        text = layer.model_dump_json()
        json.loads(text, parse_constant=pytest.fail)
        assert LayerReport.model_validate_json(text) == layer


@given(st.integers(0, 2**32 - 1), st.floats(-3, 0), st.floats(0, 3))
def test_clip_share_is_exact_to_the_counts_of_the_bins_at_the_ends(seed, low, high):
    values = np.random.default_rng(seed).normal(size=500).astype(np.float32)
    histogram = histogram_of(values, low=float(values.min()), high=float(values.max()))
    width = histogram.bin_width
    fewer = np.mean((values < low - width) | (values > high + width))
    more = np.mean((values < low + width) | (values > high - width))
    assert fewer - 1e-9 <= clip_share(histogram, low, high) <= more + 1e-9
    assert clip_share(histogram, histogram.low, histogram.high) == 0.0


def test_clip_share_of_a_constant_is_all_or_nothing():
    histogram = histogram_of(np.full(10, 0.5, np.float32), low=0.5, high=0.5)
    assert clip_share(histogram, 0.0, 1.0) == 0.0
    assert clip_share(histogram, 0.0, 0.5) == 0.0
    assert clip_share(histogram, 0.0, 0.4) == 1.0


def test_a_coarse_histogram_holds_every_value_in_few_bins():
    values = np.concatenate([np.linspace(-3, 5, 4001), np.full(4001, 4.99)]).astype(np.float32)
    found = coarse(histogram_of(values, low=-3.0, high=5.0))
    assert len(found.shares) <= 48
    assert found.low <= -3 < -2.9 < found.low + (found.high - found.low) / len(found.shares)
    assert found.high >= 5.0
    assert sum(found.shares) == pytest.approx(1, abs=0.01)  # each share is kept to three digits
    width = (found.high - found.low) / len(found.shares)
    assert found.shares[int((4.99 - found.low) / width)] > 0.5


def test_a_histogram_of_nothing_has_no_coarse_form():
    assert coarse(histogram_of(np.zeros(0, np.float32), low=0.0, high=0.0)) is None
