"""The `cpu` dialect: layers kept in float stay there, though ONNX Runtime would quantize them."""

import dataclasses

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
    quality_db,
    quantized,
    real_operators,
    sites,
    two_convolutions,
)

from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.static import quantize_static
from zoo.builder import image_net


def guarded(kind: str) -> tuple[ir.Model, str]:
    """A layer that shall stay in float between integer ones, and the value that it reads."""
    net, x = image_net("guarded", 16)
    x = net.named("Relu", conv(net, x, "a"), to="relu")
    if kind == "Conv":
        conv(net, net.op("Relu", conv(net, x, "kept")), "b")
        net.output("b", MAP)
    elif kind == "ConvTranspose":
        weight = net.const(net.he((16, 16, 3, 3), 144), "weight")
        y = net.named(kind, x, weight, to="kept", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        conv(net, net.op("Relu", y), "b")
        net.output("b", MAP)
    else:
        pooled = net.named("GlobalAveragePool", x, to="pooled")
        flat = net.named("Flatten", pooled, to="flat", axis=1)
        net.gemm(flat, (16, 16), to="other")
        net.output("other", ["batch", 16])
        net.gemm(net.op("Relu", net.gemm(flat, (16, 24), to="kept")), (24, 8), to="b")
        net.output("b", ["batch", 8])
    return model_of(net), "flat" if kind == "Gemm" else "relu"


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "ConvTranspose"])
def test_a_layer_kept_in_float_reads_from_a_pair_with_a_scale_for_each_channel(kind: str) -> None:
    model, source = guarded(kind)
    assert "node_kept:0!" in sites(model, keep=frozenset({"node_kept"}))[source]
    found = quantized(model, image(), keep_float=() if kind == "ConvTranspose" else ("node_kept",)).model
    layer = next(node for node in found.graph if node.name == "node_kept")
    pair = layer.inputs[0].producer()  # type: ignore[union-attr]
    assert pair is not None
    scale, zero_point = (value.const_value.numpy() for value in pair.inputs[1:])  # type: ignore[union-attr]
    assert (pair.op_type, pair.attributes.get_int("axis", -1)) == ("DequantizeLinear", 1)
    assert scale.shape == zero_point.shape == (16,)
    assert len(set(scale)) == len(set(zero_point)) == 1


def with_and_without_guard(kind: str) -> tuple[ir.Model, ir.Model, ir.Model]:
    model, _ = guarded(kind)
    placement = place(model.graph, "cpu", frozenset({"node_kept"}))
    bare = dataclasses.replace(
        placement,
        sites=tuple(
            dataclasses.replace(site, readers=site.readers + site.guarded, guarded=())
            for site in placement.sites
        ),
    )
    calibration = calibrated(model, image())
    return model, *(quantize_static(model, calibration, plan) for plan in (placement, bare))


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_a_layer_kept_in_float_really_runs_in_float_and_without_the_guard_would_not(kind: str) -> None:
    _, with_guard, bare = with_and_without_guard(kind)
    assert sum(float_kernels(with_guard).values()) == 1
    assert sum(float_kernels(bare).values()) == 0, "ONNX Runtime leaves it in float: no guard is needed"


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "ConvTranspose"])
def test_the_guard_keeps_the_weights_exact(kind: str) -> None:
    """ONNX Runtime rounds the weights per tensor, of a transposed convolution too, which has no kernel."""
    model, with_guard, bare = with_and_without_guard(kind)
    assert is_portable(*quality_db(model, with_guard, image(seed=1)))
    assert not is_portable(*quality_db(model, bare, image(seed=1)))


@pytest.mark.parametrize("keep", ["node_a", "node_b", "node_c"])
def test_only_the_layers_asked_for_stay_in_float(keep: str) -> None:
    net, x = image_net("three", 16)
    for name in "abc":
        x = net.op("Relu", conv(net, x, name))
    net.named("Abs", x, to="out")
    net.output("out", MAP)
    result = quantized(model_of(net), image(), keep_float=(keep,))
    assert {layer.node: layer.quantized for layer in result.layers} == {
        name: name != keep for name in ("node_a", "node_b", "node_c")
    }
    assert [layer.reason for layer in result.layers if not layer.quantized] == ["left in float as asked"]
    assert sum(float_kernels(result.model).values()) == 1
    assert real_operators(result.model)["QLinearConv"] == 2


def test_with_all_layers_in_float_there_is_not_one_pair() -> None:
    model = two_convolutions("Relu")
    assert place(model.graph, "cpu", frozenset({"node_a", "node_b"})).sites == ()
