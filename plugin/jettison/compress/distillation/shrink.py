"""A narrower copy of a graph: in every layer the channels that weigh most, tied ones together.

The weight of a channel is the sum of its squared weights over all layers that make it. The copy answers
worse than its original until it is trained, and learns faster than one that begins with chance.
Source: Li et al. 2016, Pruning Filters for Efficient ConvNets (arXiv 1608.08710), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.compress.distillation.channel_groups import Lie, WidthError, Widths, producers
from jettison.compress.distillation.widths import widths_of
from jettison.compress.passes import Refusal
from jettison.graph.clean import remove_unused
from jettison.graph.edit import add_initializer, constant_of, float_constant, free_name, names_in
from jettison.graph.inference import infer_symbolic

MULTIPLE = 8
"""Widths are whole multiples of this where a layer is wider: kernels compute eight channels at once."""

_OWN_STUDENT = "Give a student of your own: {distill: {student: package.module:function}}"

Kept = Mapping[int, np.ndarray[Any, np.dtype[np.int64]]]
"""The channels of each group that stay, in rising order."""


def shrunk(model: ir.Model, width: float) -> ir.Model | Refusal:
    """A copy of a clean float model whose inner layers have about that share of their channels.

    Args:
        model: It is not changed.
        width: Above 0, below 1.
    """
    copy = model.clone()
    try:
        widths = widths_of(copy.graph)
    except WidthError as error:
        return Refusal(reasons=(f"no narrower form can be derived: {error.reason}",), instead=_OWN_STUDENT)
    wide = widths.open_groups()
    if not wide:
        reason = "it has no layer between input and output whose channels can be followed"
        return Refusal(reasons=(f"no narrower form can be derived: {reason}",), instead=_OWN_STUDENT)
    kept = {group: _strongest(copy, widths, group, narrower(size, width)) for group, size in wide.items()}
    if all(len(rows) == wide[group] for group, rows in kept.items()):
        return Refusal(
            reasons=(f"at width {width:g} no layer would be narrower",),
            instead=f"Give a smaller width; layers keep {MULTIPLE} channels at least",
        )
    _narrow(copy, widths, kept)
    return copy


def narrower(size: int, width: float) -> int:
    """How many of so many channels stay: a multiple of 8, never none, never more than there are."""
    rounded = max(int(size * width / MULTIPLE + 0.5), 1) * MULTIPLE
    return min(size, rounded)


def _strongest(
    model: ir.Model, widths: Widths, group: int, count: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The channels with the largest sums of squares, in their order."""
    energy = np.zeros(widths.sizes[group])
    for cut in producers(widths):
        if widths.root(cut.lie.parts[0].group) == group:
            weight = float_constant(model.graph.initializers[cut.name]).astype(np.float64)
            others = tuple(axis for axis in range(weight.ndim) if axis != cut.lie.axis)
            energy += np.square(weight).sum(axis=others)
    return np.sort(np.argsort(-energy, kind="stable")[:count])


def _narrow(model: ir.Model, widths: Widths, kept: Kept) -> None:
    graph = model.graph
    for cut in widths.cuts:
        value = graph.initializers[cut.name]
        array = constant_of(value)
        if array is None:
            raise ValueError(f"{cut.name!r} is no constant")
        array = np.ascontiguousarray(array.take(_rows(widths, cut.lie, kept), axis=cut.lie.axis))
        value.const_value = ir.tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)
    for node, part in widths.depthwise:
        rows = kept.get(widths.root(part.group))
        if rows is not None:
            node.attributes["group"] = ir.AttrInt64("group", len(rows))
    names = names_in(model)
    for node, lie in widths.flattened:
        shape = node.outputs[0].shape
        rank = 2 if shape is None else shape.rank()
        target = [-1, len(_rows(widths, lie, kept)), *[1] * (rank - 2)]
        name = free_name(f"{node.name}_shape", names)
        node.replace_input_with(1, add_initializer(graph, name, np.array(target, np.int64)))
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    remove_unused(model)
    infer_symbolic(model)


def _rows(widths: Widths, lie: Lie, kept: Kept) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which places along an axis stay."""
    found, start = [], 0
    for part in lie.parts:
        size = widths.sizes[part.group]
        rows = kept.get(widths.root(part.group), np.arange(size))
        found.append(start + (rows[:, None] * part.repeat + np.arange(part.repeat)).reshape(-1))
        start += size * part.repeat
    return np.concatenate(found)
