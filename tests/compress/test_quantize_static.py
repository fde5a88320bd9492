"""Static quantization: what the written model holds, how small it is, and what it leaves alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import (
    MAP,
    calibrated,
    conv,
    float_kernels,
    image,
    is_portable,
    model_of,
    normal,
    quality_db,
    quantized,
    real_operators,
    residual_network,
    run,
)

from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.ranges import range_of
from jettison.compress.quantization.static import (
    RangeChoice,
    activation_ranges,
    activation_scale,
    quantize_static,
)
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.model import open_model
from jettison.graph.save import model_bytes, save_model
from zoo.builder import image_net

DIALECTS = ["cpu", "tensorrt"]


def stored(model: ir.Model, dtype: type) -> dict[str, np.ndarray]:
    """The initializers of that element type, by name."""
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    return {name: array for name, array in arrays.items() if array.dtype == dtype}


def wide_network() -> ir.Model:
    net, x = image_net("wide", 16)
    x = net.op("Relu", net.conv(x, (16, 96)))
    x = net.op("Relu", net.conv(x, (96, 96)))
    net.head(net.op("Relu", net.conv(x, (96, 96))), 96)
    return model_of(net)


@pytest.mark.parametrize("target", DIALECTS)
def test_the_file_is_about_a_quarter_of_the_float_one(tmp_path: Path, target: str) -> None:
    model = wide_network()
    save_model(model, tmp_path / "float.onnx")
    save_model(quantized(model, image(), target=target).model, tmp_path / "int8.onnx")
    sizes = [(tmp_path / name).stat().st_size for name in ("float.onnx", "int8.onnx")]
    assert sizes[1] < 0.3 * sizes[0]


@pytest.mark.parametrize("target", DIALECTS)
def test_what_is_written_can_be_checked_opened_and_run(tmp_path: Path, target: str) -> None:
    model, path = residual_network(), tmp_path / "int8.onnx"
    found = quantized(model, image(), target=target).model
    save_model(found, path)
    onnx.checker.check_model(path, full_check=True)
    assert model_bytes(open_model(path)) == model_bytes(found)
    outputs = OnnxRuntimeRunner(path, threads=1).run(image(16, 3))
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (3, 16)}


@pytest.mark.parametrize("target", DIALECTS)
def test_the_model_given_stays_as_it_is(target: str) -> None:
    model = model_bytes(residual_network())
    quantized(residual_network(), image(), target=target)
    assert model_bytes(residual_network()) == model


@pytest.mark.parametrize("target", DIALECTS)
@pytest.mark.parametrize("ranges", ["max", "percentile", "mse", "kl"])
def test_two_runs_write_the_same_bytes(target: str, ranges: str) -> None:
    first, second = (
        model_bytes(quantized(residual_network(), image(), target=target, ranges=ranges).model)
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("target", DIALECTS)
def test_float_weights_are_gone_and_biases_follow_the_dialect(target: str) -> None:
    found = quantized(wide_network(), image(), target=target).model
    assert Counter(array.ndim for array in stored(found, np.int8).values() if array.ndim > 1) == {4: 3, 2: 1}
    assert max(array.ndim for array in stored(found, np.float32).values()) <= 1
    biases = [array for array in stored(found, np.int32).values() if array.any()]
    assert len(biases) == (4 if target == "cpu" else 0)
    read = {value.name for node in found.graph for value in node.inputs if value is not None}
    assert set(found.graph.initializers) <= read


def test_activations_are_unsigned_with_a_zero_point_on_cpu() -> None:
    found = quantized(residual_network(), image()).model
    scales = [node for node in found.graph if node.op_type == "QuantizeLinear"]
    zero_points = {node.name: node.inputs[2].const_value.numpy() for node in scales}  # type: ignore[union-attr]
    assert {array.dtype for array in zero_points.values()} == {np.dtype(np.uint8)}
    assert zero_points["image_QuantizeLinear"] > 0
    assert 0 in {int(array) for array in zero_points.values()}, "behind a Relu"


def shared(*, second_bias: float = 0.0) -> ir.Model:
    """Two convolutions with the same weights, of which one channel is dead."""
    net, x = image_net("shared", 16)
    weight, bias = net.he((16, 16, 3, 3), 144), net.rng.normal(0, 0.1, 16)
    weight[3], bias[3] = 0, second_bias
    name, geometry = net.const(weight, "weight"), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    x = net.op("Relu", net.op("Conv", x, name, **geometry))
    x = net.op("Relu", net.op("Conv", x, name, net.const(bias), **geometry))
    conv(net, x, "out")
    net.output("out", MAP)
    return model_of(net)


@pytest.mark.parametrize("target", DIALECTS)
def test_shared_weights_are_stored_once(target: str) -> None:
    found = quantized(shared(), image(), target=target).model
    assert len([array for array in stored(found, np.int8).values() if array.ndim == 4]) == 2
    assert is_near(shared(), found, image())


def is_near(model: ir.Model, found: ir.Model, arrays: Arrays) -> bool:
    return quality_db(model, found, arrays)[1] > 30


def test_a_bias_that_does_not_fit_the_shared_scales_gets_weights_of_its_own() -> None:
    model = shared(second_bias=50.0)
    found = quantized(model, image()).model
    assert len([array for array in stored(found, np.int8).values() if array.ndim == 4]) == 3
    assert is_near(model, found, image())


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6, -1e6])
def test_the_bias_of_a_dead_channel_fits_32_bits(size: float) -> None:
    """Its scale is the smallest there is; a bias of any size stands on it."""
    net, x = image_net("dead", 16)
    weight, bias = net.he((16, 16, 3, 3), 144), net.rng.normal(0, 0.1, 16)
    weight[5], bias[5] = 0, size
    net.named("Conv", x, net.const(weight), net.const(bias), to="out", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.output("out", MAP)
    model = model_of(net)
    found = quantized(model, image()).model
    (integers,) = (array for array in stored(found, np.int32).values() if array.any())
    assert np.abs(integers.astype(np.int64)).max() < 1.001 * 2**30
    kernel, simulation = (run(found, image(), optimize=flag)["out"][:, 5] for flag in (True, False))
    step = abs(size) / 127 + 1e-3  # the output's own scale covers the large channel
    np.testing.assert_allclose(simulation, size, atol=step)
    np.testing.assert_allclose(kernel, size, atol=step)


def test_a_residual_network_has_not_one_float_matrix_kernel() -> None:
    found = quantized(residual_network(), image()).model
    assert not float_kernels(found)
    assert not {"Add", "Relu", "DequantizeLinear"} & set(real_operators(found))


def test_depthwise_weights_are_left_whole_since_their_kernel_adds_in_32_bits() -> None:
    net, x = image_net("depthwise", 16)
    weight = np.abs(net.he((16, 1, 3, 3), 9)) + 1
    x = net.op("Sigmoid", net.op("Add", x, net.const(np.float32(3))))
    net.named("Conv", x, net.const(weight), to="out", kernel_shape=[3, 3], group=16)
    net.output("out", ["batch", 16, 14, 14])
    model = model_of(net)
    found = quantized(model, image()).model
    (integers,) = (array for array in stored(found, np.int8).values() if array.ndim == 4)
    pairs = np.sort(np.abs(integers.reshape(16, 9).astype(int)), axis=1)[:, -2:].sum(axis=1)
    assert (integers.reshape(16, -1).max(axis=1) == 127).all()
    assert (pairs > 128).all()
    assert is_portable(*quality_db(model, found, image(seed=1)))


@pytest.mark.parametrize("target", DIALECTS)
def test_names_that_are_taken_are_not_taken_twice(target: str) -> None:
    """A model may itself have an `image_scale` beside its `image`."""
    net, x = image_net("clash", 16)
    for name in ("image_scale", "image_quantized", "image_dequantized", "out_float"):
        net.initializers.append(onnx.numpy_helper.from_array(np.ones((1, 16, 1, 1), np.float32), name))
        x = net.op("Mul", x, name)
    y = net.op("Add", x, conv(net, "image", "a"))
    conv(net, y, "out")
    net.output("out", MAP)
    model = model_of(net)
    assert is_near(model, quantized(model, image(), target=target).model, image())


@pytest.mark.parametrize("target", DIALECTS)
def test_a_layer_that_is_read_inside_a_branch_is_quantized(target: str) -> None:
    from zoo.session import cleaned

    model = cleaned("if_on_data")
    found = quantized(model, image(), target=target)
    assert all(layer.quantized for layer in found.layers)
    assert is_near(model, found.model, image())


def test_tied_values_get_the_range_that_covers_them_all() -> None:
    net, x = image_net("tied", 16)
    small, large = conv(net, x, "small"), net.named("Mul", x, net.const(np.float32(100)), to="large")
    net.conv(net.named("Concat", small, large, to="joined", axis=1), (32, 16), to="out")
    net.output("out", MAP)
    model = model_of(net)
    placement = place(model.graph, "cpu")
    ranges = activation_ranges(calibrated(model, image()), placement, RangeChoice())
    assert placement.ties == (("joined", "large", "small"),)
    assert ranges["small"] == ranges["large"] == ranges["joined"]
    extreme = 100 * image()["image"].max()
    assert ranges["small"].high == pytest.approx(extreme)


def test_the_range_method_decides_the_scales() -> None:
    model, arrays = residual_network(), image()
    arrays["image"][0, 0, 0, 0] = 40.0
    calibration, placement = calibrated(model, arrays), place(model.graph, "cpu")
    scales = set()
    for choice in (RangeChoice("max"), RangeChoice("percentile", 99.0), RangeChoice("percentile", 99.9)):
        found = quantize_static(model, calibration, placement, choice=choice)
        scales.add(found.graph.initializers["image_scale"].const_value.numpy().item())  # type: ignore[union-attr]
    assert len(scales) == 3
    assert max(scales) == pytest.approx((40.0 - arrays["image"].min()) / 255, rel=1e-5)


@pytest.mark.parametrize("target", DIALECTS)
def test_a_dialect_clips_for_the_step_that_its_integers_will_have(target: str) -> None:
    """Behind a Relu, TensorRT's symmetric integers use half of their range: the step is twice as long."""
    model, arrays = residual_network(), image()
    found = quantized(model, arrays, target=target, ranges="mse").model
    site = next(node for node in found.graph if node.op_type == "QuantizeLinear" and "relu" in str(node.name))
    histogram = calibrated(model, arrays).histogram(str(site.inputs[0].name))  # type: ignore[union-attr]
    scales = [
        activation_scale(range_of(histogram, "mse", symmetric=symmetric), target).values  # type: ignore[arg-type]
        for symmetric in (target == "tensorrt", target != "tensorrt")
    ]
    written = site.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    assert written == scales[0] != scales[1]


def test_integers_follow_the_equation_of_the_docstring() -> None:
    """X_q = clip(round(X / s) + z), by hand, for the input of the first layer."""
    model, arrays = residual_network(), image(16, 4, seed=3)
    found = quantized(model, image()).model.clone()
    scale, zero_point = (
        found.graph.initializers[f"image_{part}"].const_value.numpy()
        for part in ("scale", "zero_point")  # type: ignore[union-attr]
    )
    pair = next(node for node in found.graph if node.name == "image_QuantizeLinear")
    found.graph.outputs.clear()
    found.graph.outputs.append(pair.outputs[0])
    expected = np.clip(np.rint(arrays["image"] / scale) + zero_point, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(run(found, arrays)["image_quantized"], expected)


def test_a_sample_outside_the_range_is_clipped_and_not_wrapped() -> None:
    model = residual_network()
    found = quantized(model, image()).model
    loud = {"image": normal(2, 16, 16, 16) * 100}
    for optimize in (True, False):
        assert np.isfinite(run(found, loud, optimize=optimize)["logits"]).all()
    kernel, simulation = (run(found, loud, optimize=flag)["logits"] for flag in (True, False))
    np.testing.assert_allclose(kernel, simulation, atol=0.05 * np.abs(simulation).max())
