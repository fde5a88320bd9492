"""Changes the order of channels between layers, exactly: the copy computes the same, with other constants.

    y = W2 f(W1 x + b1) = (W2 P^T) f((P W1) x + P b1)        P: a permutation, f: channel by channel

A channel set is the smallest closed part of a graph in which channels can change their order: whatever makes
them changes its rows, whatever reads them its columns, and all that lies between lets them through.
Source: Pool and Yu 2021, "Channel Permutations for N:M Sparsity", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.carry import OUTPUT, Passage
from jettison.graph.edit import constant_of, int_attribute, is_constant
from jettison.graph.qdq import Editor
from jettison.graph.reorder_rules import is_indifferent, passes

Order = np.ndarray[Any, np.dtype[np.int64]]
"""Channel i of the result is channel order[i] of what was."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_WEIGHT, _BIAS = 1, 2


@dataclass(frozen=True)
class Place:
    """A constant of a node, by its input's number, whose channels lie along `axis`."""

    node: str
    input: int
    axis: int


@dataclass(frozen=True)
class ChannelSet:
    """Channels that can change their order together.

    `places` are all constants that follow, `readers` the weights among them that read the channels, `makers`
    the names of the nodes whose outputs change their order.
    """

    channels: int
    places: tuple[Place, ...]
    readers: tuple[Place, ...]
    makers: tuple[str, ...]


def find_channel_sets(model: ir.Model) -> tuple[ChannelSet, ...]:
    """All channel sets of the main graph that a layer reads, in the graph's order; no value is in two."""
    found: list[ChannelSet] = []
    seen: set[ir.Value] = set()
    for node in model.graph:
        axis = _read_axis(node)
        value = node.inputs[0] if axis is not None else None
        if value is None or axis is None or value in seen:
            continue
        walk = _Walk(model.graph)
        closed = walk.close(value, axis)
        seen.update(walk.axes)
        if closed is not None:
            found.append(closed)
    return tuple(found)


def reordered(model: ir.Model, orders: Sequence[tuple[ChannelSet, Order]]) -> ir.Model:
    """A copy in which the channels of these sets have another order, and which computes the same.

    Nodes and values keep their names, so that what is known of a value as a whole, such as its range, holds
    for the copy. Constants that do not change are shared with the model given.

    Args:
        model: The model in which the sets were found.
        orders: Sets and their orders.
    """
    copy = model.clone()
    editor = Editor(copy)
    for channels, order in orders:
        for place in channels.places:
            _reorder(editor, place, order)
    editor.drop_unused()
    return copy


def _reorder(editor: Editor, place: Place, order: Order) -> None:
    before = editor.nodes[place.node].inputs[place.input]
    array = constant_of(before)
    if before is None or array is None:
        raise ValueError(f"input {place.input} of {place.node!r} is no constant")
    after = editor.constant(f"{before.name}_reordered", np.take(array, order, axis=place.axis))
    editor.rewire([(place.node, place.input)], after)


@dataclass
class _Walk:
    """The values and nodes that another order has reached, and the constants that follow it."""

    graph: ir.Graph
    axes: dict[ir.Value, int] = field(default_factory=dict)
    passed: dict[ir.Node, Passage] = field(default_factory=dict)
    places: dict[Place, None] = field(default_factory=dict)
    readers: list[Place] = field(default_factory=list)
    waiting: list[tuple[ir.Value, int]] = field(default_factory=list)

    def close(self, value: ir.Value, axis: int) -> ChannelSet | None:
        """The set around that value, or None where something in it does not let another order through."""
        self.waiting.append((value, axis))
        while self.waiting:
            value, axis = self.waiting.pop()
            if value in self.axes:
                if self.axes[value] != axis:
                    return None
                continue
            self.axes[value] = axis
            if not self._enter(value, axis):
                return None
        return self._found()

    def _enter(self, value: ir.Value, axis: int) -> bool:
        maker = value.producer()
        if maker is None or maker.graph is not self.graph or value.is_graph_output() or not value.name:
            return False
        if not (self._makes(maker, axis) or self._pass(maker, OUTPUT, axis)):
            return False
        return all(self._follow(usage.node, usage.idx, axis) for usage in value.uses())

    def _follow(self, node: ir.Node, port: int, axis: int) -> bool:
        if port == 0 and is_indifferent(node, axis):
            return True
        return self._reads(node, port, axis) or self._pass(node, port, axis)

    def _makes(self, node: ir.Node, axis: int) -> bool:
        """Whether a layer makes the channels: its weight's rows and its bias follow then."""
        if not _is_whole(node) or axis != _channel_axis(node):
            return False
        name, weight = node.name or "", constant_of(node.inputs[_WEIGHT])
        rows = 0 if node.op_type == "Conv" or int_attribute(node, "transB", 0) else 1
        bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        if bias is not None and not is_constant(bias):
            return False
        self.places[Place(name, _WEIGHT, rows)] = None
        numbers = constant_of(bias)
        if numbers is not None and weight is not None and numbers.size > 1:
            if numbers.shape[-1] not in (1, weight.shape[rows]):
                return False
            if numbers.shape[-1] > 1:
                self.places[Place(name, _BIAS, numbers.ndim - 1)] = None
        return True

    def _reads(self, node: ir.Node, port: int, axis: int) -> bool:
        """Whether a layer reads the channels: its weight's columns follow then."""
        if port != 0 or node.graph is not self.graph or axis != _read_axis(node):
            return False
        columns = 1 if node.op_type == "Conv" or int_attribute(node, "transB", 0) else 0
        place = Place(node.name or "", _WEIGHT, columns)
        self.places[place] = None
        self.readers.append(place)
        return True

    def _pass(self, node: ir.Node, port: int, axis: int) -> bool:
        """Carry the order through a node, to all that has it there; once only, and only in one way."""
        if node in self.passed:
            return self.passed[node].get(port) == axis
        passage = passes(node, port, axis) if node.graph is self.graph and node.name else None
        if passage is None:
            return False
        self.passed[node] = passage
        for number, place in passage.items():
            value = node.outputs[0] if number == OUTPUT else node.inputs[number]
            if value is not None and is_constant(value):
                self.places[Place(node.name or "", number, place)] = None
            elif value is not None:
                self.waiting.append((value, place))
        return True

    def _found(self) -> ChannelSet | None:
        value, axis = next(iter(self.axes.items()))
        channels = None if value.shape is None else value.shape[axis]
        if not isinstance(channels, int) or channels < 2 or not self.readers:
            return None
        makers = [node.name or "" for found in self.axes if (node := found.producer()) is not None]
        return ChannelSet(
            channels=channels,
            places=tuple(self.places),
            readers=tuple(self.readers),
            makers=tuple(makers),
        )


def _is_whole(node: ir.Node) -> bool:
    """Whether every output channel of the layer reads every input channel, by a weight of its own."""
    if node.domain != "" or node.op_type not in _LAYERS or not node.name or len(node.inputs) < 2:
        return False
    weight = node.inputs[_WEIGHT]
    if weight is None or not is_constant(weight) or len(weight.uses()) > 1 or weight.is_graph_output():
        return False
    is_image = node.op_type in ("Conv", "ConvTranspose")
    rank = 0 if weight.shape is None else weight.shape.rank()
    return int_attribute(node, "group", 1) == 1 and (is_image or rank == 2)


def _channel_axis(node: ir.Node) -> int | None:
    """The axis of channels in what the layer makes."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    shape = node.outputs[0].shape
    return None if shape is None else shape.rank() - 1


def _read_axis(node: ir.Node) -> int | None:
    """The axis of channels in what the layer reads, None where the node is no such layer."""
    if not _is_whole(node) or int_attribute(node, "transA", 0):
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    value = node.inputs[0]
    return None if value is None or value.shape is None else value.shape.rank() - 1
