"""The `tensorrt` dialect, rule by rule: symmetric pairs where TensorRT fuses them, and nowhere else."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from small_models import (
    MAP,
    clip,
    conv,
    feature_net,
    features,
    image,
    model_of,
    quality_db,
    quantized,
    residual_network,
    sites,
    ties,
)

from jettison.compress.quantization.quantize import place
from jettison.core.tensors import Arrays
from zoo.builder import Net, image_net


def plan(model: ir.Model) -> dict[str, list[str]]:
    return sites(model, "tensorrt")


def result(model: ir.Model, arrays: Arrays | None = None) -> ir.Model:
    return quantized(model, image() if arrays is None else arrays, target="tensorrt").model


def constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def pairs(model: ir.Model, kind: str = "QuantizeLinear") -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == kind]


def weight_pair(model: ir.Model, name: str) -> ir.Node:
    layer = next(node for node in model.graph if node.name == name)
    pair = layer.inputs[1].producer()  # type: ignore[union-attr]
    assert pair is not None
    assert pair.op_type == "DequantizeLinear"
    return pair


def block(
    *, projection: bool = False, feeds: str = "Conv", activation: bool = True, turned: bool = False
) -> ir.Model:
    """A residual block: convolution `b` beside its input or beside the smaller convolution `p`."""
    net, x = image_net("block", 16)
    x = net.named("Relu", conv(net, x, "a"), to="relu")
    y = conv(net, x, "b")
    shortcut = conv(net, x, "p", kernel=1) if projection else x
    y = net.named("Add", *((shortcut, y) if turned else (y, shortcut)), to="sum")
    if activation:
        y = net.named("Relu", y, to="act")
    if feeds == "Conv":
        conv(net, y, "out")
    else:
        net.named(feeds, y, to="out")
    net.output("out", MAP)
    return model_of(net)


def test_inputs_of_layers_are_quantized_and_outputs_are_not() -> None:
    net, x = image_net("two", 16)
    conv(net, net.named("Relu", conv(net, x, "a"), to="act"), "b")
    net.output("b", MAP)
    model = model_of(net)
    assert plan(model) == {"image": ["node_a:0"], "act": ["node_b:0"]}
    output = result(model).graph.outputs[0].producer()
    assert output is not None
    assert (output.op_type, output.name) == ("Conv", "node_b")


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "LeakyRelu"])
def test_no_pair_stands_between_a_convolution_and_its_activation(activation: str) -> None:
    net, x = image_net("fused", 16)
    conv(net, net.named(activation, conv(net, x, "a"), to="act"), "b")
    net.output("b", MAP)
    assert set(plan(model_of(net))) == {"image", "act"}


def test_every_pair_is_symmetric_int8_with_as_many_zero_points_as_scales() -> None:
    found = result(residual_network())
    assert len(pairs(found)) > 5
    for node in pairs(found) + pairs(found, "DequantizeLinear"):
        scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
        assert (scale.dtype, zero_point.dtype) == (np.float32, np.int8)
        assert scale.shape == zero_point.shape
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        assert not zero_point.any()


def test_activations_have_one_scale_for_the_tensor() -> None:
    assert {constant(node.inputs[1]).shape for node in pairs(result(residual_network()))} == {()}


def test_no_tensor_has_two_pairs_and_no_output_has_one() -> None:
    found = result(residual_network())
    sources = Counter(node.inputs[0].name for node in pairs(found))  # type: ignore[union-attr]
    assert set(sources.values()) == {1}
    made = {node.outputs[0].name for node in pairs(found, "DequantizeLinear")}
    assert not made & {value.name for value in found.graph.outputs}


def weighted(kind: str) -> tuple[ir.Model, Arrays]:
    if kind in ("Gemm", "Gemm transB", "MatMul"):
        net, x = feature_net()
        shape = (24, 32) if kind == "Gemm transB" else (32, 24)
        bias = [] if kind == "MatMul" else [net.const(net.rng.normal(0, 0.1, 24))]
        attributes = {"transB": 1} if kind == "Gemm transB" else {}
        net.named(kind.split(maxsplit=1)[0], x, net.const(net.he(shape, 32)), *bias, to="y", **attributes)
        net.output("y", ["batch", 24])
        return model_of(net), features()
    net, x = image_net("weighted", 16)
    shape, attributes = {
        "Conv": ((24, 16, 3, 3), {}),
        "grouped Conv": ((24, 4, 3, 3), {"group": 4}),
        "depthwise Conv": ((16, 1, 3, 3), {"group": 16}),
        "ConvTranspose": ((16, 24, 3, 3), {}),
    }[kind]
    net.named(
        kind.rsplit(maxsplit=1)[-1],
        x,
        net.const(net.he(shape, 144)),
        to="y",
        kernel_shape=[3, 3],
        **attributes,
    )
    net.output("y", ["batch", None, None, None])
    return model_of(net), image()


@pytest.mark.parametrize(
    ("kind", "axis", "channels"),
    [
        ("Conv", 0, 24), ("grouped Conv", 0, 24), ("depthwise Conv", 0, 16), ("ConvTranspose", 1, 24),
        ("Gemm", 1, 24), ("Gemm transB", 0, 24), ("MatMul", 1, 24),
    ],
)  # fmt: skip
def test_weights_are_int8_with_a_scale_for_each_output_channel(kind: str, axis: int, channels: int) -> None:
    model, arrays = weighted(kind)
    found = result(model, arrays)
    pair = weight_pair(found, "node_y")
    stored, scale = constant(pair.inputs[0]), constant(pair.inputs[1])
    assert stored.dtype == np.int8
    assert (pair.attributes.get_int("axis", 1), scale.shape, stored.shape[axis]) == (
        axis,
        (channels,),
        channels,
    )
    largest = np.abs(np.moveaxis(stored, axis, 0).reshape(channels, -1).astype(int)).max(axis=1)
    assert (largest == 127).all(), "pairs are not mended for a GPU, which has nothing to saturate"
    assert quality_db(model, found, arrays)[1] > 30


def test_a_bias_stays_in_float() -> None:
    for name in ("node_a", "node_b"):
        layer = next(node for node in result(block()).graph if node.name == name)
        assert constant(layer.inputs[2]).dtype == np.float32


@pytest.mark.parametrize("activation", [True, False])
def test_a_residual_addition_gets_a_pair_on_the_shortcut_only(activation: bool) -> None:
    model = block(activation=activation)
    assert plan(model) == {
        "image": ["node_a:0"],
        "relu": ["node_b:0", "node_sum:1"],
        "act" if activation else "sum": ["node_out:0"],
    }


def entered(model: ir.Model, *, keep: frozenset[str] = frozenset()) -> set[str]:
    """Values whose quantization is work of its own."""
    return {site.value for site in place(model.graph, "tensorrt", keep).sites if site.enters}


def test_only_what_a_float_operator_makes_or_reads_too_is_quantized_apart() -> None:
    assert entered(block()) == {"image"}
    assert entered(block(projection=True)) == {"image"}
    assert entered(block(), keep=frozenset({"node_a"})) == {"relu"}
    assert entered(block(), keep=frozenset({"node_b"})) == {"image", "act"}


def test_no_value_is_converted_back_since_each_reader_takes_the_form_that_it_needs() -> None:
    assert not any(site.leaves for site in place(block().graph, "tensorrt", frozenset({"node_b"})).sites)


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_convolutions_the_projection_is_the_shortcut(turned: bool) -> None:
    assert plan(block(projection=True, turned=turned)) == {
        "image": ["node_a:0"],
        "relu": ["node_b:0", "node_p:0"],
        "p": [f"node_sum:{0 if turned else 1}"],
        "act": ["node_out:0"],
    }


def test_the_side_of_the_shortcut_does_not_matter() -> None:
    assert plan(block(turned=True))["relu"] == ["node_b:0", "node_sum:0"]


def test_an_addition_that_feeds_no_layer_gets_no_pair() -> None:
    assert plan(block(feeds="Sigmoid")) == {"image": ["node_a:0"], "relu": ["node_b:0"]}


def test_an_addition_of_a_constant_or_of_two_shared_values_is_no_residual() -> None:
    net, x = image_net("plain", 16)
    y = net.named("Add", conv(net, x, "a"), net.const(np.ones((16, 1, 1))), to="shifted")
    z = conv(net, y, "b")
    net.named("Abs", z, to="shown")
    net.output("shown", MAP)
    conv(net, net.named("Add", z, x, to="sum"), "out")
    net.output("out", MAP)
    assert plan(model_of(net)) == {
        "image": ["node_a:0"], "shifted": ["node_b:0"], "sum": ["node_out:0"],
    }  # fmt: skip


def test_a_branch_kept_in_float_is_no_branch() -> None:
    found = sites(block(), "tensorrt", frozenset({"node_b"}))
    assert found == {"image": ["node_a:0"], "act": ["node_out:0"]}


def test_a_concatenation_and_its_branches_share_one_scale() -> None:
    net, x = image_net("concat", 16)
    branches = [net.named("Relu", conv(net, x, name), to=f"{name}_act") for name in ("a", "b")]
    net.named("Abs", net.conv(branches[0], (16, 16), to="c"), to="more")
    net.output("more", MAP)
    net.conv(net.named("Concat", *branches, to="joined", axis=1), (32, 16), to="out")
    net.output("out", MAP)
    model = model_of(net)
    assert ties(model, "tensorrt") == (("a_act", "joined"),), "b_act has no pair of its own"
    by_name = {node.name: constant(node.inputs[1]).item() for node in pairs(result(model))}
    assert by_name["a_act_QuantizeLinear"] == by_name["joined_QuantizeLinear"]


def test_a_moved_tensor_shares_the_scale_of_its_source() -> None:
    net, x = image_net("moved", 16)
    x = net.named("Relu", conv(net, x, "a"), to="relu")
    net.named("Abs", conv(net, x, "b"), to="more")
    net.output("more", MAP)
    conv(net, net.named("MaxPool", x, to="pool", kernel_shape=[2, 2], strides=[2, 2]), "c")
    net.output("c", ["batch", 16, 8, 8])
    assert ties(model_of(net), "tensorrt") == (("pool", "relu"),)


@pytest.mark.parametrize(
    ("sizes", "quantized_"), [((32, 16), True), ((16, 16), True), ((32, 15), False), ((15, 32), False)]
)
def test_a_product_smaller_than_a_tile_stays_in_float_with_its_reason(
    sizes: tuple[int, int], quantized_: bool
) -> None:
    net, x = feature_net(sizes[0])
    net.gemm(x, sizes, to="y")
    net.output("y", ["batch", sizes[1]])
    (layer,) = place(model_of(net).graph, "tensorrt").layers
    assert layer.quantized is quantized_
    assert quantized_ or layer.reason == (
        f"a product of {sizes[0]} inputs and {sizes[1]} channels is too small for integer tensor cores "
        "(at least 16 each)"
    )


def test_a_small_kernel_over_many_positions_counts_all_its_products() -> None:
    net, x = image_net("first", 3)
    conv(net, x, "a", (3, 16))
    net.output("a", MAP)
    (layer,) = place(model_of(net).graph, "tensorrt").layers
    assert layer.quantized, "27 products"


def test_depthwise_convolutions_are_quantized_though_their_products_are_few() -> None:
    net, x = image_net("depthwise", 16)
    conv(net, x, "a", groups=16)
    net.output("a", MAP)
    (layer,) = place(model_of(net).graph, "tensorrt").layers
    assert layer.quantized


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("grouped ConvTranspose", "a grouped transposed convolution has no single channel axis"),
        ("Conv with weights of the graph", "its weight is computed at run time"),
        ("Gemm transA", "its activation is transposed"),
        ("MatMul of three dimensions", "its weight has 3 dimensions, expected 2"),
        ("Gemm with a bias of the graph", "its bias is computed at run time"),
    ],
)
def test_what_neither_dialect_can_quantize_is_told(kind: str, reason: str) -> None:
    model = unquantizable(kind)
    for dialect in ("cpu", "tensorrt"):
        (layer,) = place(model.graph, dialect).layers  # type: ignore[arg-type]
        assert (layer.quantized, layer.reason) == (False, reason)
        assert place(model.graph, dialect).sites == ()  # type: ignore[arg-type]


def unquantizable(kind: str) -> ir.Model:
    net, x = image_net("image", 16)
    if kind == "grouped ConvTranspose":
        net.named("ConvTranspose", x, net.const(net.he((16, 8, 2, 2), 16)), to="y", group=2)
    elif kind == "Conv with weights of the graph":
        net.named("Conv", x, net.op("Tanh", net.input("w", [16, 16, 1, 1])), to="y")
    elif kind == "MatMul of three dimensions":
        net.named("MatMul", x, net.const(net.he((16, 16, 16), 16)), to="y")
    else:
        net = Net("features")
        x = net.input("features", [32, 32])
        weight = net.const(net.he((32, 24), 32))
        if kind == "Gemm transA":
            net.named("Gemm", x, weight, to="y", transA=1)
        else:
            net.named("Gemm", x, weight, net.op("Tanh", net.input("b", [24])), to="y")
        net.output("y", [32, 24])
        return model_of(net)
    net.output("y", ["batch", None, None, None])
    return model_of(net)


def test_a_clamp_before_the_next_layer_is_passed_to_find_a_residual() -> None:
    net, x = image_net("clamped", 16)
    y = conv(net, net.named("Relu", conv(net, x, "a"), to="relu"), "b")
    y = clip(net, net.named("Add", y, "relu", to="sum"), 0, 6, to="act")
    conv(net, y, "out")
    net.output("out", MAP)
    assert plan(model_of(net))["relu"] == ["node_b:0", "node_sum:1"]
