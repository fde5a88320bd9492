"""Bias correction: exact means for every kind of layer, and nothing but biases of integer layers changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from layer_cases import LAYERS, coarse_integers, inputs_for, product_layer
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import calibrated, float_kernels, model_of, normal, run, samples_for

from jettison.compress.quantization.correct import bias_corrections, corrected
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.static import LayerIntegers, layer_integers, quantize_static
from jettison.core.samples import split
from jettison.core.tensors import Arrays
from jettison.graph.bias import add_to_biases
from jettison.graph.twins import Twin, compared
from zoo.builder import Net


def brute_force(model: ir.Model, arrays: Arrays, integers: LayerIntegers) -> np.ndarray[Any, Any]:
    """The mean error by ONNX's reference implementation, in float64 numpy, without any graph surgery."""
    proto = ir.to_proto(model)
    scale, zero = float(integers.activation.values), int(integers.activation.zero_point)
    limits = (0, 255) if integers.activation.zero_point.dtype == np.uint8 else (-128, 127)
    rounded = (np.clip(np.rint(arrays["x"] / np.float32(scale)) + zero, *limits) - zero) * scale
    weight = next(iter(find_layers(model.graph))).weight.name
    second = onnx.ModelProto()
    second.CopyFrom(proto)
    for tensor in second.graph.initializer:
        if tensor.name == weight:
            tensor.CopyFrom(numpy_helper.from_array(integers.weight.dequantized(), weight))
    exact = ReferenceEvaluator(proto).run(None, arrays)[0].astype(np.float64)
    found = ReferenceEvaluator(second).run(None, {"x": rounded.astype(np.float32)})[0].astype(np.float64)
    channels_last = np.moveaxis(exact - found, 1, -1) if exact.ndim == 4 else exact - found
    return channels_last.reshape(-1, channels_last.shape[-1]).mean(axis=0)


@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
@pytest.mark.parametrize("kind", LAYERS)
def test_corrections_are_the_exact_mean_error_of_each_channel(kind: str, dialect: Dialect) -> None:
    """Up to float32 sums of about a hundred products of size 1: 1e-5, where errors are above 5e-3."""
    model = LAYERS[kind]()
    arrays = inputs_for(model)
    integers = coarse_integers(model, dialect)
    found = bias_corrections(model, samples_for(model, arrays), integers=integers, threads=1)
    expected = brute_force(model, arrays, integers["node_y"])
    assert np.abs(expected).max() > 0.005
    np.testing.assert_allclose(found["node_y"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_mean_error_of_a_corrected_layer_vanishes(kind: str) -> None:
    """In exact arithmetic of the quantized model, up to float32 sums: 1e-5 of outputs of size 1."""
    model = LAYERS[kind]()
    arrays = inputs_for(model)
    calibration, placement = calibrated(model, arrays), place(model.graph, "tensorrt")
    integers = layer_integers(model, calibration, placement)
    corrections = bias_corrections(model, samples_for(model, arrays), integers=integers, threads=1)
    expected = run(model, arrays)["y"]
    errors = []
    for source in (model, corrected(model, corrections, placement)):
        found = run(quantize_static(source, calibration, placement), arrays, optimize=False)["y"]
        others = (0, 2, 3) if found.ndim == 4 else tuple(range(found.ndim - 1))
        errors.append(np.abs((expected - found).astype(np.float64).mean(axis=others)).max())
    assert errors[0] > 1e-4
    assert errors[1] < 2e-5


@pytest.mark.parametrize("kind", ["Gemm", "Gemm transB", "Gemm without bias", "MatMul"])
def test_on_cpu_the_mean_error_is_at_most_the_rounding_of_the_bias(kind: str) -> None:
    """The bias is an integer of the scale s_activation * s_weight: half of that; the output is float."""
    model = LAYERS[kind]()
    arrays = inputs_for(model)
    calibration, placement = calibrated(model, arrays), place(model.graph, "cpu")
    integers = layer_integers(model, calibration, placement)
    corrections = bias_corrections(model, samples_for(model, arrays), integers=integers, threads=1)
    quantized = quantize_static(corrected(model, corrections, placement), calibration, placement)
    difference = run(model, arrays)["y"] - run(quantized, arrays, optimize=False)["y"]
    step = integers["node_y"].activation.values * integers["node_y"].weight.scales
    assert (np.abs(difference.astype(np.float64).mean(axis=0)) <= 0.5 * step + 1e-5).all()
    assert not float_kernels(quantized)


def two_layers() -> ir.Model:
    """Two convolutions that share one bias."""
    net = Net("two", seed=6)
    x = net.input("x", ["batch", 8, 9, 10])
    bias = net.const(net.rng.normal(0, 1, 16), "bias")
    for name, source in (("first", 8), ("second", 16)):
        weight = net.const(net.he((16, source, 3, 3), source * 9), "weight")
        x = net.named("Conv", x, weight, bias, to=name)
    net.output(x, ["batch", 16, "height", "width"])
    return model_of(net)


def biases(model: ir.Model) -> Mapping[str, np.ndarray[Any, Any]]:
    return {
        layer.name: layer.bias.const_value.numpy()
        for layer in find_layers(model.graph)
        if layer.bias is not None and layer.bias.const_value is not None
    }


def test_a_layer_in_float_is_never_changed() -> None:
    model = two_layers()
    arrays = inputs_for(model)
    everything = layer_integers(model, calibrated(model, arrays), place(model.graph, "cpu"))
    corrections = bias_corrections(model, samples_for(model, arrays), integers=everything, threads=1)
    assert set(corrections) == {"node_first", "node_second"}
    for kept, quantized in (("node_first", "node_second"), ("node_second", "node_first")):
        placement = place(model.graph, "cpu", frozenset({kept}))
        found, before = biases(corrected(model, corrections, placement)), biases(model)
        np.testing.assert_array_equal(found[kept], before[kept])
        np.testing.assert_allclose(found[quantized], before[quantized] + corrections[quantized], rtol=1e-6)
    nothing = place(model.graph, "cpu", frozenset(corrections))
    assert corrected(model, corrections, nothing) is model


def test_the_model_given_stays_as_it_is_and_weights_are_shared() -> None:
    model = two_layers()
    before = {name: array.copy() for name, array in biases(model).items()}
    changed = add_to_biases(model, {"node_first": np.ones(16, np.float32)})
    for name, array in biases(model).items():
        np.testing.assert_array_equal(array, before[name])
    weights = [[layer.weight.const_value for layer in find_layers(each.graph)] for each in (model, changed)]
    assert all(left is right for left, right in zip(*weights, strict=True))


def test_corrections_are_local_whatever_else_is_quantized() -> None:
    """The second layer's correction does not depend on what happens to the first."""
    model = two_layers()
    samples = samples_for(model, inputs_for(model))
    both = layer_integers(model, calibrated(model, inputs_for(model)), place(model.graph, "cpu"))
    alone = bias_corrections(model, samples, integers={"node_second": both["node_second"]}, threads=1)
    together = bias_corrections(model, samples, integers=both, threads=1)
    np.testing.assert_allclose(alone["node_second"], together["node_second"], atol=1e-6)
    assert list(alone) == ["node_second"]
    assert bias_corrections(model, samples, integers={}) == {}


def test_of_many_samples_some_are_drawn_and_progress_counts_them() -> None:
    model = product_layer()
    arrays = inputs_for(model, 40)
    samples = samples_for(model, arrays)
    integers, steps = coarse_integers(model, "cpu"), []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))

    found = bias_corrections(model, samples, integers=integers, most=10, threads=1, progress=progress)
    drawn = split(samples, 0.25, seed=0)[0]
    expected = brute_force(model, next(drawn.batches(10)).inputs, integers["node_y"])
    np.testing.assert_allclose(found["node_y"], expected, atol=1e-5)
    assert steps == [(number, 10) for number in range(1, 11)]


def test_rows_that_only_fill_a_fixed_batch_do_not_count() -> None:
    net = Net("fixed", seed=4)
    net.input("x", [4, 20])
    net.named("Gemm", "x", net.const(net.rng.normal(0.05, 0.2, (20, 24)), "weight"), to="y")
    net.output("y", [4, 24])
    model, arrays = model_of(net), {"x": np.abs(normal(6, 20))}
    integers = coarse_integers(model, "cpu")
    whole, rest = ({"x": part} for part in (arrays["x"][:4], arrays["x"][4:]))
    found = [
        bias_corrections(model, samples_for(model, each), integers=integers, threads=1)["node_y"]
        for each in (arrays, whole, rest)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-4


def sequence_model(*, added: bool) -> ir.Model:
    """A product over sequences, its sum with a constant or not, and a Relu behind it."""
    net = Net("sequence", seed=7)
    net.input("x", ["batch", 7, 20])
    y = net.named("MatMul", "x", net.const(net.rng.normal(0.05, 0.2, (20, 24)), "weight"), to="product")
    if added:
        y = net.named("Add", net.const(net.rng.normal(0, 1, 24), "bias"), y, to="sum")
    net.named("Tanh", y, to="y")
    net.output("y", ["batch", 7, 24])
    return model_of(net)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_a_product_over_sequences_is_corrected_in_the_constant_added_to_it() -> None:
    model, amount = sequence_model(added=True), normal(24, seed=1)
    changed = add_to_biases(model, {"node_product": amount})
    assert operators(changed) == ["MatMul", "Add", "Tanh"]
    arrays = inputs_for(model)
    expected = np.tanh(np.arctanh(run(model, arrays)["y"].astype(np.float64)) + amount)
    inside = np.abs(run(model, arrays)["y"]) < 0.999
    np.testing.assert_allclose(run(changed, arrays)["y"][inside], expected[inside], atol=1e-3)


def test_a_product_without_a_constant_gets_an_addition_and_its_readers_notice_nothing() -> None:
    model = sequence_model(added=False)
    changed = add_to_biases(model, {"node_product": normal(24, seed=1)})
    assert operators(changed) == ["MatMul", "Add", "Tanh"]
    assert changed.graph.node("node_y").inputs[0].name == "product"
    assert changed.graph.node("node_y").inputs[0].producer().op_type == "Add"
    matrix = add_to_biases(product_layer("MatMul"), {"node_y": normal(24, seed=1)})
    assert operators(matrix) == ["Gemm"]
    assert [value.name for value in matrix.graph.outputs] == ["y"]


@pytest.mark.parametrize("added", [False, True])
def test_integer_kernels_stay_behind_corrections(added: bool) -> None:
    """The product and its addition run as one integer operator, with the constant that was corrected."""
    model = sequence_model(added=added)
    arrays = inputs_for(model)
    calibration, placement = calibrated(model, arrays), place(model.graph, "cpu")
    integers = layer_integers(model, calibration, placement)
    corrections = bias_corrections(model, samples_for(model, arrays), integers=integers, threads=1)
    quantized = quantize_static(corrected(model, corrections, placement), calibration, placement)
    assert not float_kernels(quantized)


def test_what_is_written_is_valid_onnx() -> None:
    for make in LAYERS.values():
        model = make()
        channels = next(iter(find_layers(model.graph))).channels
        changed = ir.to_proto(add_to_biases(model, {"node_y": np.ones(channels, np.float32)}))
        onnx.checker.check_model(changed, full_check=True)
        arrays = inputs_for(model)
        before, after = run(model, arrays)["y"], run(ir.from_proto(changed), arrays)["y"]
        np.testing.assert_allclose(after, before + 1, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_errors_are_measured_in_float_arithmetic(kind: str) -> None:
    """An integer kernel in the measuring graph would round weights, or saturate, behind our back."""
    model = LAYERS[kind]()
    (integers,) = coarse_integers(model, "cpu").values()
    (layer,) = find_layers(model.graph)
    twin = Twin(layer.name, integers.activation, integers.weight.dequantized(), layer.channels)
    measuring = compared(model, [twin])
    assert sum(float_kernels(measuring).values()) == 2
