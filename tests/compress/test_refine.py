"""GPTQ over a model: covariances to the bit, better sums for every kind of layer, bounded memory."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from layer_cases import LAYERS, coarse_integers, image_layer, inputs_for, product_layer
from onnx.reference import ReferenceEvaluator
from small_models import calibrated, image, model_of, normal, quality_db, samples_for

from jettison.compress.quantization import covariance, refine
from jettison.compress.quantization.correct import bias_corrections, corrected
from jettison.compress.quantization.covariance import Source, covariances
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.refine import refined_weights
from jettison.compress.quantization.static import LayerIntegers, layer_integers, quantize_static
from jettison.compress.quantization.weights import QuantizedWeight, kernel_order, pair_excess
from jettison.core.samples import Batch, Samples, checked
from jettison.core.tensors import Arrays
from jettison.graph.model import input_specs
from jettison.graph.patches import Patches, patches_of, tap_of
from jettison.graph.qdq import Scale
from zoo.builder import Net, image_net

REFINED = [name for name in LAYERS if name != "transposed"]
CAUSES = 4


def alike(model: ir.Model, count: int = 24) -> Arrays:
    """Inputs that share few causes, as a network's activations do, and that are never negative."""
    (shape,) = (value.shape for value in model.graph.inputs)
    sizes = [size if isinstance(size, int) else count for size in shape or ()]
    axis = 1 if len(sizes) == 4 else len(sizes) - 1
    mixed = np.tensordot(normal(*sizes[:axis], *sizes[axis + 1 :], CAUSES), normal(CAUSES, sizes[axis]), 1)
    return {"x": np.abs(np.moveaxis(mixed, -1, axis)).astype(np.float32) + 0.1}


def scale_for(arrays: Arrays, dialect: Dialect) -> Scale:
    if dialect == "cpu":
        return Scale(np.array(arrays["x"].max() / 255, np.float32), np.array(0, np.uint8))
    return Scale(np.array(arrays["x"].max() / 127, np.float32), np.array(0, np.int8))


def coarse(model: ir.Model, arrays: Arrays, dialect: Dialect) -> LayerIntegers:
    """Rounded weights of the model's one layer and a fitting scale of what it reads."""
    (integers,) = coarse_integers(model, dialect).values()
    return LayerIntegers(scale_for(arrays, dialect), integers.weight)


def rounding_errors(
    model: ir.Model, arrays: Arrays, integers: LayerIntegers, weight: QuantizedWeight
) -> np.ndarray[Any, Any]:
    """Variance, for each channel, of what rounded weights add to the outputs of the rounded inputs.

    By ONNX's reference implementation of the layer itself, without patches or covariances.
    """
    (layer,) = find_layers(model.graph)
    clone = model.clone()
    (node,) = (found for found in clone.graph if found.name == layer.name)
    difference = layer.weight.const_value.numpy() - weight.dequantized()
    node.inputs[1].const_value = ir.tensor(difference.astype(np.float32), name=node.inputs[1].name)
    scale, zero = float(integers.activation.values), int(integers.activation.zero_point)
    rounded = np.rint(arrays["x"] / np.float32(scale)) * scale
    assert zero == 0
    (found,) = ReferenceEvaluator(ir.to_proto(clone)).run(None, {"x": rounded.astype(np.float32)})
    last = np.moveaxis(found, 1, -1) if found.ndim == 4 else found
    return last.reshape(-1, last.shape[-1]).astype(np.float64).var(axis=0)


@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
@pytest.mark.parametrize("kind", REFINED)
def test_outputs_are_nearer_in_sum_and_for_most_channels(kind: str, dialect: Dialect) -> None:
    """On the samples behind the covariances, and against the layer itself, not against the covariances."""
    model = LAYERS[kind]()
    arrays = alike(model)
    integers = coarse(model, arrays, dialect)
    found = refined_weights(model, samples_for(model, arrays), integers={"node_y": integers}, threads=1)
    plain = rounding_errors(model, arrays, integers, integers.weight)
    better = rounding_errors(model, arrays, integers, found["node_y"])
    assert better.sum() < plain.sum()
    assert (better <= plain).mean() >= 0.7


@pytest.mark.parametrize("kind", REFINED)
def test_scales_stay_and_pairs_stay_safe_where_the_kernel_asks_for_it(kind: str) -> None:
    model = LAYERS[kind]()
    arrays = alike(model)
    integers = coarse(model, arrays, "cpu")
    found = refined_weights(model, samples_for(model, arrays), integers={"node_y": integers}, threads=1)
    weight = found["node_y"]
    np.testing.assert_array_equal(weight.scales, integers.weight.scales)
    assert weight.values.shape == integers.weight.values.shape
    assert weight.values.dtype == np.int8
    assert weight.axis == integers.weight.axis
    assert (weight.values != integers.weight.values).any()
    if kind != "depthwise":
        assert not pair_excess(kernel_order(weight.values.astype(np.float32), weight.axis)).any()


def test_transposed_convolutions_keep_their_plain_weights() -> None:
    model = LAYERS["transposed"]()
    arrays = inputs_for(model)
    integers = coarse_integers(model, "tensorrt")
    assert refined_weights(model, samples_for(model, arrays), integers=integers, threads=1) == {}


def test_only_layers_that_integers_carry_are_refined() -> None:
    model = product_layer()
    assert refined_weights(model, samples_for(model, inputs_for(model)), integers={}, threads=1) == {}


def source_of(model: ir.Model, arrays: Arrays, *, inner: int = 0) -> Source:
    (layer,) = find_layers(model.graph)
    patches = patches_of(layer.node, tap_of("x", scale_for(arrays, "cpu")))
    assert patches is not None
    return Source(patches, layer.inner_size, inner or layer.inner_size)


@pytest.mark.parametrize("kind", ["padded", "grouped", "depthwise", "Gemm", "MatMul over sequences"])
def test_covariances_are_those_of_the_patches_drawn_to_independence(kind: str) -> None:
    """Against numpy's own covariance of all patches that are taken, at once and in float64."""
    model = LAYERS[kind]()
    arrays = alike(model)
    source = source_of(model, arrays)
    found = covariances(model, samples_for(model, arrays), [source], threads=1)[source]
    integers = np.rint(arrays["x"] / np.float32(source.patches.tap.scale)).astype(np.uint8)
    most = max(covariance._LEAST_PATCHES, source.inner)
    columns = source.patches.columns(integers, most=most).astype(np.float64)
    count = columns.shape[2]
    for group, exact in zip(columns, found, strict=True):
        expected = np.atleast_2d(np.cov(group, bias=True))
        shrunk = expected * count / (count + source.inner)
        np.fill_diagonal(shrunk, expected.diagonal())
        np.testing.assert_allclose(exact, shrunk, atol=1e-9 * expected.max())


def in_shards(arrays: Arrays, sizes: tuple[int, ...], model: ir.Model) -> Samples:
    """The same samples, read in batches of these sizes."""
    edges = [0, *itertools.accumulate(sizes)]
    parts = [{"x": arrays["x"][start:stop]} for start, stop in itertools.pairwise(edges)]
    return checked(lambda: map(Batch, parts), source="shards", specs=input_specs(model))


@pytest.mark.parametrize("kind", ["padded", "depthwise", "MatMul over sequences"])
def test_any_split_into_batches_gives_the_same_covariances_to_the_bit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LAYERS[kind]()
    arrays = alike(model)
    source = source_of(model, arrays)
    found = [
        covariances(model, in_shards(arrays, sizes, model), [source], threads=threads)[source]
        for sizes, threads in (((24,), 1), ((1, 5, 18), 2), ((7, 7, 7, 3), 1))
    ]
    monkeypatch.setattr(covariance, "_EXACT_SUMS", 100)
    monkeypatch.setattr(covariance, "_HELD_OF_GROUPS", 100)
    found.append(covariances(model, in_shards(arrays, (24,), model), [source], threads=1)[source])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_order_of_samples_does_not_matter() -> None:
    model = LAYERS["padded"]()
    arrays = alike(model)
    source = source_of(model, arrays)
    turned = {"x": arrays["x"][::-1].copy()}
    first, second = (
        covariances(model, samples_for(model, each), [source], threads=1)[source] for each in (arrays, turned)
    )
    np.testing.assert_array_equal(first, second)


def test_wide_layers_are_cut_into_even_parts_whose_sums_fit() -> None:
    for inputs, groups in ((9 * 512, 1), (25088, 1), (9 * 64, 32), (4095, 1), (2**17, 1)):
        inner = refine._inner(inputs, groups)
        source = Source(Patches(tap_of("x", Scale(np.float32(1), np.uint8(0))), groups=groups), inputs, inner)
        assert inner % 2 == 0
        assert inner < inputs
        assert source.size_bytes <= refine._MOST_BYTES * 1.05, "the last part is filled up"
    assert refine._inner(2304, 1) == 2304
    assert refine._inner(9, 1152) == 9


@pytest.mark.parametrize("kind", ["padded", "grouped", "Gemm transB", "MatMul"])
def test_parts_are_refined_like_layers_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LAYERS[kind]()
    arrays = alike(model)
    integers = coarse(model, arrays, "cpu")
    monkeypatch.setattr(refine, "_inner", lambda *_: 14)
    (weight,) = refined_weights(
        model, samples_for(model, arrays), integers={"node_y": integers}, threads=1
    ).values()
    plain = rounding_errors(model, arrays, integers, integers.weight)
    assert rounding_errors(model, arrays, integers, weight).sum() < plain.sum()
    assert not pair_excess(kernel_order(weight.values.astype(np.float32), weight.axis)).any()


def test_parts_are_filled_up_with_inputs_that_never_change() -> None:
    model = product_layer()
    arrays = alike(model)
    whole, cut = source_of(model, arrays), source_of(model, arrays, inner=14)
    found = covariances(model, samples_for(model, arrays), [whole, cut], threads=1)
    assert found[cut].shape == (2, 14, 14)
    assert not found[cut][1, 6:].any()
    np.testing.assert_array_equal(found[cut][0].diagonal(), found[whole][0].diagonal()[:14])
    np.testing.assert_array_equal(found[cut][1].diagonal()[:6], found[whole][0].diagonal()[14:])


@functools.cache
def two_images() -> ir.Model:
    net, x = image_net("two", 16)
    x = net.named("Relu", net.conv(x, (16, 32), to="first"), to="relu")
    net.conv(x, (32, 16), to="second")
    net.output("second", ["batch", 16, 16, 16])
    return model_of(net)


def two_integers() -> dict[str, LayerIntegers]:
    model = two_images()
    return layer_integers(model, calibrated(model, image()), place(model.graph, "cpu"))


def test_a_model_whose_sums_do_not_fit_together_takes_several_passes_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, integers, steps = two_images(), two_integers(), []
    samples = samples_for(model, image())
    whole = refined_weights(model, samples, integers=integers, threads=1)
    sizes = [8 * (9 * 16) ** 2, 8 * (9 * 32) ** 2]
    monkeypatch.setattr(refine, "_MOST_BYTES", max(sizes))
    found = refined_weights(
        model,
        samples,
        integers=integers,
        threads=1,
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(number, 32) for number in range(1, 33)]
    assert list(found) == list(whole) == list(integers)
    for name, weight in whole.items():
        np.testing.assert_array_equal(found[name].values, weight.values)


def test_local_whatever_else_is_in_integers() -> None:
    model, integers = two_images(), two_integers()
    samples = samples_for(model, image())
    together = refined_weights(model, samples, integers=integers, threads=1)
    alone = refined_weights(model, samples, integers={"node_second": integers["node_second"]}, threads=1)
    np.testing.assert_array_equal(alone["node_second"].values, together["node_second"].values)


def test_layers_that_share_integers_share_the_new_ones_made_for_all_of_them() -> None:
    net = Net("shared", seed=6)
    net.input("x", ["batch", 7, 20])
    weight = net.const(net.rng.normal(0.05, 0.2, (20, 20)), "weight")
    net.named("Tanh", net.named("MatMul", "x", weight, to="first"), to="between")
    net.named("MatMul", "between", weight, to="second")
    net.output("second", ["batch", 7, 20])
    model = model_of(net)
    arrays = {"x": normal(20, 7, 20)}
    integers = layer_integers(model, calibrated(model, arrays), place(model.graph, "cpu"))
    found = refined_weights(model, samples_for(model, arrays), integers=integers, threads=1)
    assert found["node_first"] is found["node_second"]
    alone = refined_weights(
        model, samples_for(model, arrays), integers={"node_first": integers["node_first"]}, threads=1
    )
    assert (alone["node_first"].values != found["node_first"].values).any()


def test_dead_channels_stay_zero() -> None:
    net, x = image_net("dead", 16)
    weight = normal(16, 16, 3, 3, scale=0.1)
    weight[3] = 0
    net.named("Conv", x, net.const(weight), net.const(normal(16)), to="y", pads=[1, 1, 1, 1])
    net.output("y", ["batch", 16, 16, 16])
    model = model_of(net)
    integers = layer_integers(model, calibrated(model, image()), place(model.graph, "cpu"))
    found = refined_weights(model, samples_for(model, image()), integers=integers, threads=1)["node_y"]
    assert not found.values[3].any()
    assert np.isfinite(found.scales).all()


def test_of_many_samples_some_are_drawn() -> None:
    model, steps = product_layer(), []
    arrays = alike(model, 40)
    refined_weights(
        model,
        samples_for(model, arrays),
        integers={"node_y": coarse(model, arrays, "cpu")},
        most=10,
        threads=1,
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(number, 10) for number in range(1, 11)]


def test_a_model_with_refined_weights_and_their_correction_is_nearer_to_float_and_portable() -> None:
    """Kernel and simulation agree, so the new integers are pair-safe in the file too."""
    model = two_images()
    arrays = {"image": np.cumsum(image(count=32)["image"], axis=3) / 4}
    samples, calibration = samples_for(model, arrays), calibrated(model, arrays)
    placement = place(model.graph, "cpu")
    integers = layer_integers(model, calibration, placement)
    weights = refined_weights(model, samples, integers=integers, threads=1)
    refined = {name: LayerIntegers(integers[name].activation, weights[name]) for name in integers}
    corrections = bias_corrections(model, samples, integers=refined, threads=1)
    plain = quantize_static(model, calibration, placement)
    better = quantize_static(
        corrected(model, corrections, placement), calibration, placement, weights=weights
    )
    (_, plain_db), (kernel_db, better_db) = (quality_db(model, each, arrays) for each in (plain, better))
    assert better_db > plain_db + 0.5
    assert abs(kernel_db - better_db) < 0.3


@pytest.mark.parametrize("shape", ["padded", "pointwise"])
def test_a_fixed_batch_is_run_at_its_size(shape: str) -> None:
    model = image_layer(kernel=(3, 3) if shape == "padded" else (1, 1))
    model.graph.inputs[0].shape = ir.Shape([4, 16, 9, 10])
    arrays = {"x": np.abs(normal(8, 16, 9, 10)) + 0.1}
    found = refined_weights(
        model, samples_for(model, arrays), integers={"node_y": coarse(model, arrays, "cpu")}, threads=1
    )
    assert list(found) == ["node_y"]
