"""2:4 as it is seen in a finished graph: along input channels, whatever form weights are stored in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.graph.two_to_four import Groups, in_groups, sparse_layers, valid_groups
from jettison.graph.zeros import zeros_of


def sparse(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """Numbers of which any two of each four along the axis are zero, the others at least 0.5."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1, shape)
    moved = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    np.put_along_axis(moved, rng.random(moved.shape).argsort(axis=1)[:, :2], 0, axis=1)
    back = moved.reshape(np.moveaxis(weight, axis, -1).shape)
    return np.ascontiguousarray(np.moveaxis(back, -1, axis)).astype(np.float32)


def layer(kind: str, weight: np.ndarray, **attributes: object) -> ir.Model:
    """One layer named `layer` with that weight."""
    sizes = ["batch", None, None, None] if kind in ("Conv", "ConvTranspose") else ["batch", None]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], name="layer", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


@pytest.mark.parametrize(
    ("kind", "shape", "axis", "attributes"),
    [
        ("Conv", (6, 8, 3, 3), 1, {}),
        ("Conv", (8, 4, 3, 3), 1, {"group": 2}),
        ("Gemm", (8, 6), 0, {}),
        ("Gemm", (6, 8), 1, {"transB": 1}),
        ("MatMul", (8, 6), 0, {}),
    ],
    ids=["Conv", "grouped Conv", "Gemm", "Gemm transB", "MatMul"],
)
def test_groups_lie_along_the_input_channels(kind, shape, axis, attributes):
    weight = sparse(shape, axis)
    total = weight.size // 4
    assert valid_groups(layer(kind, weight, **attributes)) == {"layer": Groups(kind, total, total)}
    assert sparse_layers(layer(kind, weight, **attributes)) == ("layer",)
    other = 1 - axis
    if shape[other] % 4 == 0:
        along_outputs = valid_groups(layer(kind, sparse(shape, other), **attributes))["layer"]
        assert along_outputs.valid < total


def test_zeros_along_the_flattened_kernel_are_no_groups():
    """(input channel, kernel row, kernel column) flattened: 2:4 there is what a GPU does not take."""
    flat = sparse((16, 8 * 9), 1).reshape(16, 8, 3, 3)
    groups = valid_groups(layer("Conv", flat))["layer"]
    assert groups.valid < 0.8 * groups.eligible


@pytest.mark.parametrize(
    ("kind", "shape", "attributes", "words"),
    [
        ("Conv", (8, 3, 3, 3), {}, "its 3 input channels are no multiple of 4"),
        ("Conv", (8, 1, 3, 3), {"group": 8}, "its 1 input channels in each group are no multiple of 4"),
        ("ConvTranspose", (8, 8, 3, 3), {}, "2:4 is for convolutions and matrix products only"),
        ("MatMul", (3, 8, 8), {}, "its weight has 3 dimensions, expected 2"),
        ("Gemm", (0, 8), {}, "its weight is empty"),
    ],
)
def test_layers_that_cannot_be_sparse_say_why(kind, shape, attributes, words):
    assert valid_groups(layer(kind, np.zeros(shape, np.float32), **attributes)) == {
        "layer": Groups(kind, 0, 0, words)
    }


def test_one_weight_too_many_makes_a_group_invalid():
    weight = sparse((4, 8), 1)
    weight[0, :4] = [0.1, 0.2, 0.3, 0]
    groups = valid_groups(layer("Gemm", weight, transB=1))["layer"]
    assert (groups.valid, groups.eligible, groups.hold) == (7, 8, False)


STORED = sparse((6, 8), 1)


def stored(form: str) -> ir.Model:
    """A Gemm whose weight is made from what is stored."""
    integers = np.rint(STORED * 100)
    constants = {"scale": np.full(6, 0.01, np.float32)}
    q = helper.make_node
    if form == "symmetric":
        constants |= {"q": integers.astype(np.int8), "zero": np.zeros(6, np.int8)}
        nodes = [q("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0)]
    elif form == "without zero points":
        constants["q"] = integers.astype(np.int8)
        nodes = [q("DequantizeLinear", ["q", "scale"], ["w"], axis=0)]
    elif form == "asymmetric":
        zero = np.arange(120, 126).astype(np.uint8)
        constants |= {"q": (integers + zero[:, None]).astype(np.uint8), "zero": zero}
        nodes = [q("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0)]
    elif form == "asymmetric inputs":
        zero = np.arange(120, 128).astype(np.uint8)
        constants |= {"q": (integers + zero).astype(np.uint8), "zero": zero, "scale": np.ones(8, np.float32)}
        nodes = [q("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1)]
    elif form == "float pair":
        constants |= {"f": STORED, "zero": np.zeros(6, np.int8)}
        nodes = [
            q("QuantizeLinear", ["f", "scale", "zero"], ["q"], axis=0),
            q("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0),
        ]
    elif form == "transposed":
        constants["t"] = np.ascontiguousarray(STORED.T)
        nodes = [q("Transpose", ["t"], ["w"])]
    else:
        constants["h"] = STORED.astype(np.float16)
        nodes = [q("Cast", ["h"], ["w"], to=TensorProto.FLOAT)]
    nodes.append(q("Gemm", ["x", "w"], ["y"], name="layer", transB=1))
    graph = helper.make_graph(
        nodes,
        "stored",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


@pytest.mark.parametrize(
    "form",
    [
        "symmetric",
        "without zero points",
        "asymmetric",
        "asymmetric inputs",
        "float pair",
        "transposed",
        "half",
    ],
)
def test_zeros_are_found_however_they_are_stored(form):
    model = stored(form)
    found = zeros_of(model.graph.node("layer").inputs[1])
    np.testing.assert_array_equal(found, STORED == 0)
    assert valid_groups(model)["layer"].hold


def test_a_weight_that_is_computed_has_no_groups():
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "v"], ["y"], name="layer")],
        "open",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 8]) for name in ("x", "v")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 8])],
    )
    assert valid_groups(ir.from_proto(helper.make_model(graph))) == {}


def test_groups_of_a_convolution_are_four_input_channels_at_one_position():
    weight = np.arange(2 * 8 * 3 * 3).reshape(2, 8, 3, 3)
    groups = in_groups(weight, 1)
    assert groups.shape == (36, 4)
    np.testing.assert_array_equal(groups[0], weight[0, :4, 0, 0])
    np.testing.assert_array_equal(groups[1], weight[0, 4:, 0, 0])
