"""Finds where a factor for each channel can be moved from what makes a value into what reads it, exactly.

A junction is the smallest closed set of nodes around a value in which a factor f may be taken out on one
side and put back on the other:

    y = W2 relu(W1 x + b1) = (W2 f) relu((W1 / f) x + b1 / f)

It may have several makers (the branches of residual additions) and several readers (Q, K and V). All that
touches a value of the junction has to take the factor or let it through. Where something does not, products
behind an operator that computes in float anyway may read the value from a multiplication by 1 / f instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from jettison.graph.absorb import Change, channel_axis, is_layer, made_smaller, read_smaller
from jettison.graph.carry import OUTPUT, Passage, carried
from jettison.graph.edit import is_constant

_FLOAT = frozenset(
    {
        "Celu", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LayerNormalization", "Mish", "Mul",
        "Selu", "Sigmoid", "Softplus", "Tanh",
    }
)  # fmt: skip
"""Operators that compute in float in every quantized model, so that one more multiplication behind them
stands between no two integer operators."""

_BLIND = frozenset({"Shape", "Size"})
"""Operators that read no element."""


@dataclass(frozen=True)
class Junction:
    """Constants that take the factor of each channel, on both sides.

    `name` is the first of the values that layers read; `reads` has all of these, each with its axis of
    channels, and `weights` those layers' changes. Where `multiplied` is not empty, no maker takes the factor:
    these nodes read the value of that name from a multiplication.
    """

    name: str
    channels: int
    changes: tuple[Change, ...]
    weights: tuple[Change, ...]
    reads: Mapping[str, int]
    multiplied: tuple[str, ...] = ()


def find_junctions(model: ir.Model) -> tuple[Junction, ...]:
    """All junctions of the main graph that lead into a layer, in the graph's order; no value is in two."""
    walks: list[_Walk] = []
    taken: set[ir.Value] = set()
    for find in (_closed, _multiplied):
        for node in model.graph:
            walk = find(node, model.graph) if node.outputs and node.outputs[0] not in taken else None
            if walk is not None and walk.readers and taken.isdisjoint(walk.axes):
                walks.append(walk)
                taken.update(walk.axes)
    order = {node: number for number, node in enumerate(model.graph)}
    walks.sort(key=lambda walk: min(order[node] for node in walk.readers))
    return tuple(walk.junction() for walk in walks)


def _closed(node: ir.Node, graph: ir.Graph) -> _Walk | None:
    """The junction around what the node makes, where all its makers take the factor."""
    axis = channel_axis(node)
    if axis is None or made_smaller(node, axis) is None:
        return None
    walk = _Walk(graph)
    return walk if walk.close(node.outputs[0], axis) else None


def _multiplied(node: ir.Node, graph: ir.Graph) -> _Walk | None:
    """The junction of the products that read what the node makes, which they get from a multiplication."""
    value = node.outputs[0]
    if value.shape is None or value.is_graph_output() or not _is_float(node):
        return None
    axis = value.shape.rank() - 1
    walk = _Walk(graph, {value: axis})
    for usage in value.uses():
        if is_layer(usage.node) and walk.give_back(usage.node, usage.idx, axis):
            walk.multiplied.append(usage.node.name or "")
    return walk


def _is_float(node: ir.Node) -> bool:
    """Whether no integer operator makes what the node makes: a constant added ends a norm taken apart."""
    sides = [value for value in node.inputs if not is_constant(value)]
    if node.op_type == "Add" and len(sides) == 1 and sides[0] is not None:
        before = sides[0].producer()
        return before is not None and before.op_type in _FLOAT
    return node.op_type in _FLOAT


@dataclass
class _Walk:
    """The values and nodes that a factor has reached, and the constants that take it."""

    graph: ir.Graph
    axes: dict[ir.Value, int] = field(default_factory=dict)
    passed: dict[ir.Node, Passage] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    readers: dict[ir.Node, Change] = field(default_factory=dict)
    multiplied: list[str] = field(default_factory=list)
    waiting: list[tuple[ir.Value, int]] = field(default_factory=list)

    def close(self, value: ir.Value, axis: int) -> bool:
        """Whether the factor can lie in this value, and in all that must have it then."""
        self.waiting.append((value, axis))
        while self.waiting:
            value, axis = self.waiting.pop()
            if value in self.axes:
                if self.axes[value] != axis:
                    return False
                continue
            self.axes[value] = axis
            if not self.take_out(value, axis):
                return False
            if not all(self.follow(usage.node, usage.idx, axis) for usage in value.uses()):
                return False
        return True

    def take_out(self, value: ir.Value, axis: int) -> bool:
        """Take the factor out of what makes the value."""
        node = value.producer()
        if node is None or node.graph is not self.graph or node.outputs[0] is not value:
            return False
        if value.is_graph_output():
            return False
        changes = None if node in self.passed else made_smaller(node, axis)
        if changes is None:
            return self._pass(node, OUTPUT, axis)
        self.changes += changes
        return True

    def follow(self, node: ir.Node, port: int, axis: int) -> bool:
        """Put the factor back in what reads the value, or carry it on."""
        if node.op_type in _BLIND:
            return True
        return (node not in self.passed and self.give_back(node, port, axis)) or self._pass(node, port, axis)

    def give_back(self, node: ir.Node, port: int, axis: int) -> bool:
        """Put the factor back in constants of a node that reads the value."""
        changes = read_smaller(node, port, axis)
        if changes is None or node.graph is not self.graph:
            return False
        self.changes += changes
        if is_layer(node):
            self.readers[node] = changes[0]
        return True

    def junction(self) -> Junction:
        """What was found, by names."""
        readers = [node for node in self.graph if node in self.readers]
        reads = [value for node in readers if (value := node.inputs[0]) is not None]
        channels = None if reads[0].shape is None else reads[0].shape[self.axes[reads[0]]]
        if not isinstance(channels, int):
            raise ValueError(f"the channels of {reads[0].name!r} are not known")
        return Junction(
            name=reads[0].name or "",
            channels=channels,
            changes=tuple(self.changes),
            weights=tuple(self.readers[node] for node in readers),
            reads={value.name or "": self.axes[value] for value in reads},
            multiplied=tuple(self.multiplied),
        )

    def _pass(self, node: ir.Node, port: int, axis: int) -> bool:
        """Carry the factor through a node, to all that has it there; once only, and only in one way."""
        if node in self.passed:
            return self.passed[node].get(port) == axis
        passage = carried(node, port, axis)
        if passage is None or not node.name:
            return False
        self.passed[node] = passage
        for number, place in passage.items():
            value = node.outputs[0] if number == OUTPUT else node.inputs[number]
            if value is not None and is_constant(value):
                self.changes.append(Change(node.name, number, place, divides=True))
            elif value is not None:
                self.waiting.append((value, place))
        return True
