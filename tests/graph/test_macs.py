"""MACs: counted against loops written out by hand, and against numbers known from papers."""

import onnx_ir as ir
import pytest

from jettison.core.errors import ModelError
from jettison.graph.macs import macs_by_node, total_macs
from jettison.graph.shapes import infer_shapes
from zoo.builder import Net
from zoo.session import cleaned
from zoo.table import ZOO


def counted(name, **sizes):
    model = cleaned(name)
    return list(macs_by_node(model, infer_shapes(model, sizes=sizes)).values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv_relu_chain", [16 * 256 * 8 * 9, 32 * 256 * 16 * 9, 32 * 16]),
        ("grouped_conv", [32 * 256 * 4 * 9, 32 * 256 * 32, 32 * 16]),
        ("conv_1d", [32 * 64 * 16 * 5, 32 * 32 * 32 * 3, 32 * 16]),
        ("conv_transpose", [32 * 256 * 16 * 9, 32 * 256 * 16 * 4, 16 * 1024 * 16 * 9]),
        ("gemm_forms", [32 * 64, 64 * 32, 32 * 16]),
        ("strided_dilated_asymmetric", [16 * 64 * 8 * 9, 16 * 64 * 16 * 9, 16 * 64 * 16 * 5, 16 * 16]),
    ],
)
def test_operations_are_counted_as_by_hand(name, expected):
    assert counted(name) == expected


def test_attention_counts_both_products_of_activations():
    length, width = 10, 32
    linear = length * width * width
    product = length * length * width
    expected = [linear] * 3 + [product] * 2 + [linear, 2 * linear, 2 * linear, width * 16]
    assert counted("attention_layernorm", length=length) == expected


def test_count_is_proportional_to_the_batch():
    assert sum(counted("residual_add", batch=8)) == 8 * sum(counted("residual_add"))


def test_transposed_left_side_of_gemm_is_understood():
    net = Net("transposed")
    x = net.input("x", [32, 4])
    net.named("Gemm", x, net.const(net.he((32, 16), 32)), to="y", transA=1)
    net.output("y", [4, 16])
    model = ir.from_proto(net.model())
    assert total_macs(model, infer_shapes(model)) == 4 * 16 * 32


@pytest.mark.parametrize("name", ZOO)
def test_every_weighted_node_of_the_zoo_costs_something(name):
    model = cleaned(name)
    costs = macs_by_node(model, infer_shapes(model))
    assert bool(costs) == ZOO[name].quantizable
    assert all(cost > 0 for cost in costs.values())


def test_unknown_shape_is_refused_by_name():
    model = cleaned("gemm_only")
    with pytest.raises(
        ModelError, match=r"node 'node_gemm_3' \(Gemm\): the shape of 'features' is not known.*probe"
    ):
        macs_by_node(model, {})
