"""Channels cut out of a graph: smaller constants, and what has to follow them so that the graph still fits.

Which channels may go together is not known here; a cut that does not fit leaves a graph that does not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import constant_of, int_attribute
from jettison.graph.inference import infer_symbolic
from jettison.graph.qdq import Editor
from jettison.graph.shapes import ShapeTable


@dataclass(frozen=True)
class Cut:
    """What an initializer loses: these places along that axis."""

    name: str
    axis: int
    removed: tuple[int, ...]


def merged(cuts: Iterable[Cut]) -> list[Cut]:
    """The same with one cut for each initializer and axis: what several take away there goes together."""
    found: dict[tuple[str, int], set[int]] = {}
    for cut in cuts:
        found.setdefault((cut.name, cut.axis), set()).update(cut.removed)
    return [Cut(name, axis, tuple(sorted(removed))) for (name, axis), removed in found.items()]


def shrunk(model: ir.Model, cuts: Iterable[Cut]) -> ir.Model:
    """A copy without what the cuts take away. A depthwise convolution has fewer groups then."""
    copy = model.clone()
    for cut in merged(cuts):
        value = copy.graph.initializers[cut.name]
        _set(value, np.delete(_array(value), cut.removed, axis=cut.axis))
        for usage in value.uses():
            if usage.idx == 1 and cut.axis == 0 and int_attribute(usage.node, "group", 1) > 1:
                usage.node.attributes["group"] = ir.AttrInt64("group", _array(value).shape[0])
    outputs = {value: value.shape for value in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            value.shape = outputs.get(value)
    infer_symbolic(copy)
    return copy


def emptied(model: ir.Model, cuts: Iterable[Cut]) -> ir.Model:
    """A copy with zeros in place of what the cuts take away: the same sizes throughout."""
    copy = model.clone()
    for cut in merged(cuts):
        value = copy.graph.initializers[cut.name]
        _set(value, zeroed(_array(value), [cut]))
    return copy


def zeroed(array: np.ndarray[Any, Any], cuts: Iterable[Cut]) -> np.ndarray[Any, Any]:
    """The array with zeros where the cuts, all of them its own, take something away."""
    found = np.array(array)
    for cut in cuts:
        found[(slice(None),) * cut.axis + (list(cut.removed),)] = 0
    return found


def with_open_reshapes(model: ir.Model, shapes: ShapeTable) -> ir.Model:
    """A copy that computes the same, in which no Reshape writes down how many channels there are.

    A target such as [-1, 3136] of rows that are flattened, or [-1, 64, 49], becomes [0, -1] or [0, -1, 49]:
    0 copies the size of the input, -1 takes what is left. A target in which rows move stays.
    """
    copy = model.clone()
    editor = Editor(copy)
    for node in [node for node in copy.graph if node.op_type == "Reshape" and node.domain == ""]:
        target = _open_target(node, shapes)
        if target is not None:
            node.replace_input_with(1, editor.constant(f"{node.name}_target", np.array(target, np.int64)))
    editor.drop_unused()
    return copy


def _open_target(node: ir.Node, shapes: ShapeTable) -> list[int] | None:
    """The target with its rows and channels left open, None where it has to stay."""
    target, (before, after) = constant_of(node.inputs[1]), (_sizes(v, shapes) for v in _ends(node))
    if target is None or len(before) < 2 or len(after) < 2 or int_attribute(node, "allowzero", 0):
        return None
    if before[0] != after[0] or math.prod(before[1:]) != math.prod(after[1:]):
        return None
    found = [0, *(int(size) for size in target[1:])]
    if found[1] > 0 and min(found[2:], default=1) >= 0:
        found[1] = -1
    elif found[1] == before[1]:
        found[1] = 0
    return found if found != target.tolist() else None


def _ends(node: ir.Node) -> tuple[ir.Value | None, ir.Value]:
    return node.inputs[0], node.outputs[0]


def _sizes(value: ir.Value | None, shapes: ShapeTable) -> tuple[int, ...]:
    known = shapes.get("" if value is None or value.name is None else value.name)
    return () if known is None else known.shape


def _array(value: ir.Value) -> np.ndarray[Any, Any]:
    array = constant_of(value)
    if array is None:
        raise ValueError(f"{value.name!r} is no constant")
    return array


def _set(value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
