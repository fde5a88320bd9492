"""Channels cut out of a graph: what becomes smaller, what follows, and Reshapes that let it happen."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from jettison.engines.onnxruntime import shapes_of
from jettison.graph.clean import clean
from jettison.graph.save import model_bytes
from jettison.graph.shrink import Cut, emptied, merged, shrunk, with_open_reshapes
from zoo.builder import image_net
from zoo.session import cleaned, relative_difference, run
from zoo.table import ZOO

EQUAL = 1e-5
"""Of the largest output: sums of a few hundred float32 products in another order."""


def depthwise() -> ir.Model:
    net, x = image_net("depthwise", 4)
    x = net.op("Relu", net.conv(x, (4, 8), to="made"))
    net.head(net.op("Relu", net.conv(x, (8, 8), groups=8, to="carried")), 8, classes=3)
    return clean(ir.from_proto(net.model()))


def constants(model: ir.Model, node: str) -> list[str]:
    (found,) = (n for n in model.graph if n.name == node)
    return [value.name or "" for value in found.inputs[1:] if value is not None]


def reshape_net(target: list[int], *, channels: int = 8) -> ir.Model:
    """A convolution, a Reshape to that target, and a Relu."""
    net, x = image_net("reshape", 4)
    x = net.conv(x, (4, channels), to="made")
    x = net.op("Reshape", x, net.const(np.array(target, np.int64), "target"), name="reshape")
    net.output(net.op("Relu", x), ["batch", *[f"d{axis}" for axis in range(1, len(target))]])
    return clean(ir.from_proto(net.model()))


def opened_target(model: ir.Model) -> list[int]:
    found = with_open_reshapes(model, shapes_of(model))
    inputs = {"image": np.random.default_rng(0).normal(size=(3, 4, 16, 16)).astype(np.float32)}
    expected, answers = run(model_bytes(model), inputs), run(model_bytes(found), inputs)
    assert relative_difference(expected, answers) == 0
    (node,) = (node for node in found.graph if node.op_type == "Reshape")
    return node.inputs[1].const_value.numpy().tolist()


def test_channels_go_from_all_constants_and_a_depthwise_convolution_has_fewer_groups() -> None:
    model = depthwise()
    (made, bias), (kernel, offset) = constants(model, "node_made"), constants(model, "node_carried")
    weight = constants(model, "node_logits")[0]
    gone = (1, 6)
    cuts = [Cut(name, 0, gone) for name in (made, bias, kernel, offset)]
    columns = [Cut(weight, 1, gone)]
    small = shrunk(model, [*cuts, *columns])
    onnx.checker.check_model(model_bytes(small), full_check=True)
    assert small.graph.initializers[made].const_value.numpy().shape == (6, 4, 3, 3)
    assert next(n for n in small.graph if n.name == "node_carried").attributes["group"].as_int() == 6
    assert next(n for n in small.graph if n.name == "node_carried").outputs[0].shape[1] == 6
    inputs = {"image": np.random.default_rng(1).normal(size=(2, 4, 16, 16)).astype(np.float32)}
    expected = run(model_bytes(emptied(model, columns)), inputs)
    assert relative_difference(expected, run(model_bytes(small), inputs)) < EQUAL
    assert model.graph.initializers[made].const_value.numpy().shape == (8, 4, 3, 3), (
        "the model is not changed"
    )


def test_what_several_cuts_take_along_one_axis_goes_at_once() -> None:
    cuts = [Cut("w", 1, (3, 1)), Cut("w", 0, (0,)), Cut("w", 1, (1, 2))]
    assert merged(cuts) == [Cut("w", 1, (1, 2, 3)), Cut("w", 0, (0,))]


@pytest.mark.parametrize(
    ("target", "opened"),
    [
        ([-1, 2048], [0, -1]),
        ([-1, 8, 256], [0, -1, 256]),
        ([0, 8, -1], [0, 0, -1]),
        ([-1, 256, 8], [0, -1, 8]),
        ([0, -1], [0, -1]),
        ([-1, 256], [-1, 256]),
    ],
)
def test_a_reshape_leaves_rows_and_channels_open(target: list[int], opened: list[int]) -> None:
    """The last one moves channels into the batch: it stays as it is written."""
    assert opened_target(reshape_net(target)) == opened


@pytest.mark.parametrize("name", ZOO)
def test_open_reshapes_compute_the_same_for_any_batch(name: str) -> None:
    model, inputs = cleaned(name), ZOO[name].inputs(3, seed=3)
    found = with_open_reshapes(model, shapes_of(model))
    expected, answers = run(model_bytes(model), inputs), run(model_bytes(found), inputs)
    assert all(np.array_equal(expected[key], answers[key], equal_nan=True) for key in expected)
