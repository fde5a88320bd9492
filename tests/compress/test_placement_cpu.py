"""The `cpu` dialect, rule by rule: where pairs stand, and that ONNX Runtime's real graph follows them."""

import numpy as np
import pytest
from small_models import (
    MAP,
    conv,
    float_kernels,
    image,
    is_portable,
    model_of,
    quality_db,
    quantized,
    real_graph,
    real_operators,
    residual_network,
    run,
    sites,
    two_convolutions,
)

from zoo.builder import image_net


@pytest.mark.parametrize("activation", [("Relu",), ("Clip", 0.0, 6.0), ("Clip", 0.0, 0.1)], ids=str)
def test_a_convolutions_output_is_quantized_past_its_clamp(activation: tuple[str, float]) -> None:
    model = two_convolutions(*activation)
    assert sites(model) == {"image": ["node_a:0"], "act": ["node_b:0"], "b": ["->"]}
    found = quantized(model, image()).model
    assert real_operators(found)["QLinearConv"] == 2
    assert not {"Relu", "Clip", "Conv", "FusedConv"} & set(real_operators(found))


@pytest.mark.parametrize("activation", [("Clip", -1.0, 1.0), ("Clip", -1.0, 6.0), ("Sigmoid",)], ids=str)
def test_it_is_quantized_before_any_other_activation(activation: tuple[str, float]) -> None:
    """A rounded zero point moves the ends of a Clip from below zero, which then could not be dropped."""
    model = two_convolutions(*activation)
    assert sites(model) == {"image": ["node_a:0"], "a": ["node_act:0"], "act": ["node_b:0"], "b": ["->"]}
    assert not float_kernels(quantized(model, image()).model)


def test_a_clip_with_a_bound_from_the_graph_is_not_passed() -> None:
    net, x = image_net("bound", 16)
    high = net.input("high", ["batch"])
    x = conv(net, x, "a")
    top = net.op("ReduceMax", high, keepdims=0)
    x = net.named("Clip", x, net.const(np.float32(0)), top, to="act")
    conv(net, x, "b")
    net.output("b", MAP)
    assert "a" in sites(model_of(net))


def test_a_convolution_that_two_read_is_quantized_before_its_relu() -> None:
    net, x = image_net("shared", 16)
    x = conv(net, x, "a")
    y = net.op("Mul", net.named("Sigmoid", x, to="gate"), net.named("Relu", x, to="act"))
    net.named("Abs", y, to="out")
    net.output("out", MAP)
    assert sites(model_of(net)) == {"image": ["node_a:0"], "a": ["node_act:0", "node_gate:0"]}


def test_a_residual_addition_runs_on_integers_where_both_sides_are() -> None:
    net, x = image_net("residual", 16)
    x = net.named("Relu", conv(net, x, "a"), to="relu")
    y = net.named("Relu", net.named("Add", conv(net, x, "b"), x, to="sum"), to="act")
    conv(net, y, "c")
    net.output("c", MAP)
    model = model_of(net)
    assert sites(model) == {
        "image": ["node_a:0"], "relu": ["node_b:0", "node_sum:1"], "b": ["node_sum:0"],
        "act": ["node_c:0"], "c": ["->"],
    }  # fmt: skip
    found = real_operators(quantized(model, image()).model)
    assert (found["QLinearAdd"], found["Add"], found["Relu"]) == (1, 0, 0)


def test_an_addition_to_a_float_value_stays_in_float() -> None:
    net, x = image_net("float", 16)
    gate = net.named("Sigmoid", x, to="gate")
    y = net.named("Add", conv(net, x, "a"), gate, to="sum")
    conv(net, y, "b")
    net.output("b", MAP)
    model = model_of(net)
    assert sites(model) == {"image": ["node_a:0"], "a": ["node_sum:0"], "sum": ["node_b:0"], "b": ["->"]}
    found = real_operators(quantized(model, image()).model)
    assert (found["QLinearAdd"], found["Add"]) == (0, 1)


def test_an_addition_that_nothing_quantized_reads_stays_in_float() -> None:
    net, x = image_net("last", 16)
    y = net.op("Add", conv(net, x, "a"), conv(net, x, "b"))
    net.named("Abs", y, to="out")
    net.output("out", MAP)
    assert real_operators(quantized(model_of(net), image()).model)["Add"] == 1


def test_what_a_float_operator_makes_is_read_exactly_by_float_readers() -> None:
    net, x = image_net("exact", 16)
    gate = net.named("Sigmoid", x, to="gate")
    net.named("Mul", conv(net, gate, "a"), gate, to="product")
    net.output("product", MAP)
    model = model_of(net)
    assert sites(model) == {"gate": ["node_a:0"], "a": ["node_product:0"]}
    found = quantized(model, image()).model
    product = next(node for node in found.graph if node.name == "node_product")
    assert [value.name for value in product.inputs if value is not None] == ["a_dequantized", "gate"]


def test_an_output_that_an_integer_kernel_makes_keeps_its_name() -> None:
    net, x = image_net("outputs", 16)
    features_ = net.named("Relu", conv(net, x, "a"), to="features")
    net.output("features", MAP)
    mask = conv(net, features_, "mask")
    net.output("mask", MAP)
    conv(net, net.op("Relu", mask), "b")
    net.output("b", MAP)
    model = model_of(net)
    assert sites(model)["features"] == ["node_mask:0", "->"]
    found = quantized(model, image()).model
    assert [value.name for value in found.graph.outputs] == ["features", "mask", "b"]
    assert [value.shape for value in found.graph.outputs] == [value.shape for value in model.graph.outputs]
    assert is_portable(*quality_db(model, found, image(seed=1)))
    assert not float_kernels(found)


def test_an_output_that_a_float_operator_makes_is_left_alone() -> None:
    net, x = image_net("softmax", 16)
    net.named("Softmax", conv(net, x, "a"), to="out", axis=1)
    net.output("out", MAP)
    assert sites(model_of(net)) == {"image": ["node_a:0"], "a": ["node_out:0"]}


def test_a_residual_network_runs_on_integers_from_end_to_end() -> None:
    model = residual_network()
    found = quantized(model, image()).model
    assert real_operators(found) == {
        "QuantizeLinear": 1, "Transpose": 2, "QLinearConv": 7, "QLinearAdd": 2,
        "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1,
    }  # fmt: skip
    kernel_db, simulation_db = quality_db(model, found, image(seed=1))
    assert is_portable(kernel_db, simulation_db)
    assert kernel_db > 30


def test_the_real_graph_tells_float_kernels_from_integer_ones() -> None:
    """That the checks above can fail: the same network in float shows its eight layers."""
    assert sum(float_kernels(residual_network()).values()) == 8
    assert {node.op_type for node in real_graph(residual_network()).node} >= {"Gemm"}
    assert run(residual_network(), image(16, 2))["logits"].shape == (2, 16)
