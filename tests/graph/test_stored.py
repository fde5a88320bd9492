"""Weights stored as the integers that the file would compute: the same numbers, in a smaller file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from jettison.graph.save import model_bytes
from jettison.graph.stored import store_integers
from zoo.builder import Net
from zoo.session import run

WIDTH = 32


def quantized_weight(scale: np.ndarray, zero_point: np.ndarray, **attributes: int) -> ir.Model:
    """A product whose weight is quantized and dequantized in the graph."""
    net = Net("stored", opset=21)
    x = net.input("features", ["batch", WIDTH])
    weight = net.const(net.he((WIDTH, WIDTH), WIDTH), "weight")
    parameters = net.const(scale.astype(np.float32)), net.const(zero_point)
    integers = net.op("QuantizeLinear", weight, *parameters, **attributes)
    net.named("MatMul", x, net.op("DequantizeLinear", integers, *parameters, **attributes), to="out")
    net.output("out", ["batch", WIDTH])
    return ir.from_proto(net.model())


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


PER_CHANNEL = np.linspace(0.001, 0.02, WIDTH)
ZEROS = np.zeros(WIDTH, np.int8)


@pytest.mark.parametrize(
    ("scale", "zero_point", "attributes"),
    [
        (np.array(0.004), np.array(0, np.int8), {}),
        (np.array([0.004]), np.array([0], np.int8), {"axis": 0}),
        (np.array(0.004), np.array(131, np.uint8), {}),
        (PER_CHANNEL, ZEROS, {"axis": 0}),
        (PER_CHANNEL, ZEROS, {}),
        (PER_CHANNEL, ZEROS, {"axis": -2}),
    ],
    ids=["per tensor", "one scale in a vector", "unsigned", "axis 0", "default axis", "axis from the end"],
)
def test_the_integers_are_those_that_the_operator_computes(
    scale: np.ndarray, zero_point: np.ndarray, attributes: dict[str, int]
) -> None:
    model = quantized_weight(scale, zero_point, **attributes)
    inputs = {"features": np.eye(WIDTH, dtype=np.float32)}
    expected = run(model_bytes(model), inputs)
    size = len(model_bytes(model))
    store_integers(model)
    assert operators(model) == ["DequantizeLinear", "MatMul"]
    np.testing.assert_array_equal(run(model_bytes(model), inputs)["out"], expected["out"])
    assert len(model_bytes(model)) < size - 2 * WIDTH * WIDTH, "the float weight is gone"


def test_an_activation_and_a_blocked_scale_stay() -> None:
    model = quantized_weight(np.full((2, WIDTH), 0.004), np.zeros((2, WIDTH), np.int8), axis=0, block_size=16)
    store_integers(model)
    assert operators(model) == ["QuantizeLinear", "DequantizeLinear", "MatMul"]
    net = Net("activation", opset=21)
    x = net.input("features", ["batch", WIDTH])
    parameters = net.const(np.array(0.1, np.float32)), net.const(np.array(0, np.int8))
    net.named("DequantizeLinear", net.op("QuantizeLinear", x, *parameters), *parameters, to="out")
    net.output("out", ["batch", WIDTH])
    model = ir.from_proto(net.model())
    store_integers(model)
    assert operators(model) == ["QuantizeLinear", "DequantizeLinear"]


def test_integers_that_are_an_output_stay_computed() -> None:
    net = Net("output", opset=21)
    x = net.input("features", ["batch", 2])
    parameters = net.const(np.array(0.5, np.float32)), net.const(np.array(0, np.int8))
    net.named("QuantizeLinear", net.const(np.array([1.0, -0.75], np.float32)), *parameters, to="integers")
    net.output("integers", [2], TensorProto.INT8)
    net.named("Relu", x, to="out")
    net.output("out", ["batch", 2])
    model = ir.from_proto(net.model())
    store_integers(model)
    found = run(model_bytes(model), {"features": np.zeros((1, 2), np.float32)})
    assert found["integers"].tolist() == [2, -2], "-1.5 goes to the even neighbour"
