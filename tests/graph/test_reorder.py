"""Channels in another order: the same answers for any order, and refusals where that would not hold."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.graph.clean import clean
from jettison.graph.reorder import ChannelSet, find_channel_sets, reordered
from jettison.graph.reorder_rules import passes
from jettison.graph.save import model_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned, relative_difference, run
from zoo.table import ZOO

EQUAL = 1e-5
"""Sums run in another order: float32 keeps 24 bits, and sums of a few hundred products lose a few of them."""

HALF = 5e-3
"""The same in float16, which keeps 11 bits."""


@functools.cache
def found(name: str) -> tuple[ir.Model, tuple[ChannelSet, ...]]:
    model = cleaned(name)
    return model, find_channel_sets(model)


@functools.cache
def answered(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    inputs = ZOO[name].inputs(2, seed=3)
    return inputs, run(model_bytes(found(name)[0]), inputs)


def shuffled(model: ir.Model, sets: tuple[ChannelSet, ...], seed: int) -> ir.Model:
    rng = np.random.default_rng(seed)
    return reordered(model, [(channels, rng.permutation(channels.channels)) for channels in sets])


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_gives_the_same_answers(name: str, seed: int) -> None:
    model, sets = found(name)
    inputs, expected = answered(name)
    answers = run(model_bytes(shuffled(model, sets, seed)), inputs)
    assert relative_difference(expected, answers) < (HALF if name == "half_precision" else EQUAL)


def test_most_models_have_channels_that_can_move() -> None:
    without = {name for name in ZOO if not found(name)[1]}
    assert without <= {
        "pools_and_shapes", "output_consumed_inside", "shared_weight", "shape_arithmetic", "lstm", "gru",
        "opset_11", "many_inputs_outputs", "no_weighted_op", "dynamic_weights", "data_dependent_shape",
    }  # fmt: skip


def test_the_branches_of_a_residual_network_move_together() -> None:
    """The stem, both additions and all that reads them are one set; what is inside a block another one."""
    model, sets = found("residual_projection")
    makers = [set(channels.makers) for channels in sets]
    readers = [{place.node for place in channels.readers} for channels in sets]
    add = next(node.name for node in model.graph if node.op_type == "Add")
    (joined,) = (index for index, names in enumerate(makers) if add in names)
    convolutions = {node.name for node in model.graph if node.op_type == "Conv"}
    assert len(makers[joined] & convolutions) == 2
    assert all(len(names) for names in readers)


def test_the_model_given_stays_as_it_is() -> None:
    model, sets = found("conv_relu_chain")
    before = model_bytes(model)
    after = shuffled(model, sets, 1)
    assert model_bytes(model) == before
    assert model_bytes(after) != before
    assert [node.name for node in after.graph] == [node.name for node in model.graph]
    assert [v.name for n in after.graph for v in n.outputs] == [
        v.name for n in model.graph for v in n.outputs
    ]


def two(kind: str, *more: str, **attributes: object) -> ir.Model:
    """Convolution a, an operator named act, convolution b."""
    net, x = image_net("two", 16)
    x = net.conv(x, (16, 16), to="a")
    x = net.named(kind, x, *[net.const(getattr(np, dtype)(1)) for dtype in more], to="act", **attributes)
    net.conv(x, (16, 16), to="b")
    net.output("b", ["batch", 16, 16, 16])
    return clean(ir.from_proto(net.model()))


@pytest.mark.parametrize(
    "model",
    [two("Relu"), two("Clip", "float32"), two("Sigmoid"), two("HardSwish"), two("Elu", alpha=0.5)],
    ids=["Relu", "Clip", "Sigmoid", "HardSwish", "Elu"],
)
def test_element_wise_operators_let_an_order_through(model: ir.Model) -> None:
    (channels,) = find_channel_sets(model)
    assert {place.node for place in channels.places} == {"node_a", "node_b"}
    assert channels.makers == ("node_act", "node_a")
    assert channels.channels == 16


def graph_with(change: str) -> ir.Model:
    """Two convolutions between which something keeps the order of channels."""
    net, x = image_net("kept", 16)
    x = net.conv(x, (16, 16), to="a")
    if change == "output":
        net.output("a", ["batch", 16, 16, 16])
    if change == "concat":
        x = net.op("Concat", x, x, axis=1)
    if change == "slice":
        x = net.op("Slice", x, *[net.const(np.array([at], np.int64)) for at in (0, 8, 1)])
    groups = 4 if change == "grouped" else 1
    width = {"concat": 32, "slice": 8}.get(change, 16)
    net.conv(x, (width, 16), groups=groups, to="b")
    net.output("b", ["batch", 16, 16, 16])
    return clean(ir.from_proto(net.model()))


@pytest.mark.parametrize("change", ["output", "concat", "slice", "grouped"])
def test_channels_that_others_know_by_their_place_keep_it(change: str) -> None:
    assert find_channel_sets(graph_with(change)) == ()


def test_a_normalization_over_the_channels_moves_with_them() -> None:
    net = Net("norm")
    x = net.input("x", ["batch", 5, 16])
    x = net.linear(x, (16, 32))
    x = net.layernorm(x, 32)
    net.named("MatMul", x, net.const(net.he((32, 8), 32)), to="y")
    net.output("y", ["batch", 5, 8])
    model = clean(ir.from_proto(net.model()))
    (channels,) = find_channel_sets(model)
    inputs = {"x": np.random.default_rng(0).normal(0, 1, (3, 5, 16)).astype(np.float32)}
    before, after = (run(model_bytes(one), inputs) for one in (model, shuffled(model, (channels,), 5)))
    assert relative_difference(before, after) < EQUAL


def test_a_weight_that_two_layers_share_is_not_moved() -> None:
    assert found("shared_weight")[1] == ()


def test_channels_whose_places_a_caller_sees_keep_their_order():
    """A MaxPool that also gives where each value stood: places in memory, which another order changes."""
    maps = [ir.Value(name=name, shape=ir.Shape(["n", 8, 4, 4])) for name in ("x", "pooled", "places")]
    node = ir.Node("", "MaxPool", [maps[0]], outputs=maps[1:])
    assert passes(node, 0, 1) is not None
    ir.Graph([maps[0]], maps[1:], nodes=[node], opset_imports={"": 19})
    assert passes(node, 0, 1) is None
