"""A matrix product of two dimensions and its added bias become one Gemm; nothing else does."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from jettison.graph.clean import clean
from jettison.graph.linear import merge_bias
from jettison.graph.save import model_bytes
from zoo.builder import Net
from zoo.session import relative_difference, run

WIDTH, CHANNELS = 32, 24


def product(
    bias: tuple[int, ...] = (CHANNELS,), *, rank: int = 2, turned: bool = False, shown: bool = False
) -> Net:
    """MatMul, Add of a bias of that shape (turned: as its first input), Tanh; shown: MatMul is an output."""
    net = Net("product")
    x = net.input("x", ["batch", *[4] * (rank - 2), WIDTH])
    y = net.named("MatMul", x, net.const(net.he((WIDTH, CHANNELS), WIDTH)), to="product")
    inputs = [y, net.const(net.rng.normal(0, 1, bias))]
    net.named("Tanh", net.named("Add", *(inputs[::-1] if turned else inputs), to="sum"), to="y")
    net.output("y", None)
    if shown:
        net.output("product", None)
    return net


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bias", [(CHANNELS,), (1, CHANNELS)])
def test_product_and_bias_become_a_gemm_of_the_same_name(bias: tuple[int, ...], turned: bool) -> None:
    proto = product(bias, turned=turned).model()
    model = clean(ir.from_proto(proto))
    assert operators(model) == {"Gemm": 1, "Tanh": 1}
    assert [(node.name, node.outputs[0].name) for node in model.graph] == [
        ("node_product", "sum"),
        ("node_y", "y"),
    ]
    inputs = {"x": np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)}
    assert relative_difference(run(proto.SerializeToString(), inputs), run(model_bytes(model), inputs)) < 1e-6


@pytest.mark.parametrize(
    "net",
    [
        product(rank=3),
        product((1,)),
        product((2, 1, CHANNELS)),
        product((5, CHANNELS)),
        product(shown=True),
    ],
    ids=["three dimensions", "one number", "more dimensions", "a bias by row", "the product is an output"],
)
def test_what_is_no_bias_of_a_plain_product_stays(net: Net) -> None:
    model = clean(ir.from_proto(net.model()))
    assert operators(model) == {"MatMul": 1, "Add": 1, "Tanh": 1}


def test_a_product_that_two_read_stays() -> None:
    net = product()
    net.named("Abs", "product", to="other")
    net.output("other", None)
    assert "Gemm" not in operators(clean(ir.from_proto(net.model())))


def test_a_bias_or_weight_of_the_caller_stays() -> None:
    net = Net("given")
    x, bias = net.input("x", ["batch", WIDTH]), net.input("bias", [CHANNELS])
    weight = net.input("weight", [WIDTH, CHANNELS])
    constant = net.const(net.he((WIDTH, CHANNELS), WIDTH))
    net.named("Add", net.op("MatMul", x, constant), bias, to="y")
    net.named("Add", net.op("MatMul", x, weight), net.const(np.zeros(CHANNELS)), to="z")
    net.output("y", ["batch", CHANNELS])
    net.output("z", ["batch", CHANNELS])
    model = ir.from_proto(net.model())
    assert merge_bias(model) == 0
    assert "Gemm" not in operators(clean(model))


def test_each_addition_is_merged_and_counted() -> None:
    net = Net("chain")
    x = net.input("x", ["batch", WIDTH], TensorProto.FLOAT)
    for _ in range(3):
        x = net.linear(x, (WIDTH, WIDTH))
    net.named("Tanh", x, to="y")
    net.output("y", ["batch", WIDTH])
    assert operators(clean(ir.from_proto(net.model()))) == {"Gemm": 3, "Tanh": 1}
