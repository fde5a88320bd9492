"""Values inside a graph that a student may be compared by: what layers give, behind their activation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from jettison.core.errors import ModelError
from jettison.graph.edit import is_constant

_LAYERS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators that weigh their first input, and which input holds the weight."""
_ACTIVATIONS = frozenset(
    {"Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid", "Tanh"}
)
_TOKENS_RANK = 3


@dataclass(frozen=True)
class Tap:
    """A value or submodule by its name; its rank, and the axis of its channels."""

    name: str
    rank: int
    axis: int = 1


def graph_taps(model: ir.Model) -> list[Tap]:
    """What the layers of a clean model give, in order; without the last layer, which makes the outputs."""
    layers = [node for node in model.graph if _is_layer(node)]
    found = [tap_of(_activated(node.outputs[0])) for node in layers[:-1]]
    return [tap for tap in found if tap.rank > 1]


def named_tap(model: ir.Model, name: str, *, what: str) -> Tap:
    """The value of that name, or what the node of that name gives.

    Raises:
        ModelError: There is neither; the names of layers are told.
    """
    nodes = {node.name or "": node.outputs[0] for node in model.graph}
    values = {value.name or "": value for node in model.graph for value in node.outputs}
    found = values.get(name, nodes.get(name))
    if found is None:
        raise unknown_layer(what, name, [*nodes, *values])
    tap = tap_of(found)
    if tap.rank < 2:
        raise ModelError(what, detail=f"{name!r} holds no channels of samples", fix="Name a layer's output")
    return tap


def unknown_layer(what: str, name: str, known: Sequence[str]) -> ModelError:
    """The error for a name of a pair that the model does not have."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(list(known)[:8])} and others"
    return ModelError(what, detail=f"expected a layer for `pairs`, found none named {name!r}", fix=hint)


def with_taps(model: ir.Model, taps: Sequence[Tap]) -> ir.Model:
    """A copy that gives these values too, behind its own outputs; weights are shared."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    there = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(values[tap.name] for tap in taps if tap.name not in there)
    return copy


def tap_of(value: ir.Value) -> Tap:
    """The value with its rank; channels lie on axis 1, of rows of vectors that no Conv made on the last."""
    rank = 0 if value.shape is None else value.shape.rank()
    is_rows = rank == _TOKENS_RANK and not _is_convolved(value)
    return Tap(value.name or "", rank, rank - 1 if is_rows else 1)


def _is_layer(node: ir.Node) -> bool:
    index = _LAYERS.get(node.op_type) if node.domain == "" else None
    return index is not None and is_constant(node.inputs[index])


def _activated(value: ir.Value) -> ir.Value:
    """The value behind the activation that alone reads it, where there is one."""
    uses = list(value.uses())
    if len(uses) == 1 and uses[0].node.op_type in _ACTIVATIONS and not value.is_graph_output():
        return uses[0].node.outputs[0]
    return value


def _is_convolved(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.op_type in _ACTIVATIONS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type.startswith("Conv")
