"""Weights as the integers that a file computes from floats each time it is loaded.

Some quantizers leave a weight in float with a QuantizeLinear behind it, so that the file is no smaller.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import add_initializer, constant_of, free_name, int_attribute, names_in

FLOAT8 = frozenset({ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2})
_DEFAULT_AXIS = 1
"""Source: ONNX operator QuantizeLinear, attribute `axis`."""


def stored_types(model: ir.Model) -> frozenset[ir.DataType]:
    """The element types of the constants of the main graph."""
    return frozenset(value.dtype for value in model.graph.initializers.values() if value.dtype is not None)


def store_integers(model: ir.Model) -> None:
    """Replace each QuantizeLinear of a constant by its integers, in place; what it computes stays the same.

    Only float32 that becomes 8-bit integers is replaced; blocked scales and outputs of the model stay.
    """
    taken = names_in(model)
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear" or node.domain != "" or node.outputs[0].is_graph_output():
            continue
        integers = _integers(node)
        if integers is not None:
            name = free_name(f"{node.outputs[0].name}_stored", taken)
            node.outputs[0].replace_all_uses_with(add_initializer(model.graph, name, integers))
            model.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]


def _integers(node: ir.Node) -> np.ndarray[Any, Any] | None:
    """clip(round(x / scale) + zero_point), ties to even, as the operator defines it; None where it stays."""
    weight, scale, zero_point = (constant_of(value) for value in _three(node))
    if weight is None or scale is None or zero_point is None:
        return None
    if weight.dtype != np.float32 or zero_point.dtype not in (np.int8, np.uint8):
        return None
    if int_attribute(node, "block_size", 0):
        return None
    sizes = _scale_shape(node, weight, scale)
    limits = np.iinfo(zero_point.dtype)
    rounded = np.rint(weight / scale.reshape(sizes)) + zero_point.reshape(sizes).astype(np.float32)
    integers: np.ndarray[Any, Any] = np.clip(rounded, limits.min, limits.max).astype(zero_point.dtype)
    return integers


def _three(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None, ir.Value | None]:
    """The value, its scale and its zero point."""
    inputs = [*node.inputs, None, None]
    return inputs[0], inputs[1], inputs[2]


def _scale_shape(node: ir.Node, weight: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The shape in which scales, one for each slice along the axis, spread over the weight."""
    if math.prod(scale.shape) == 1:
        return (1,) * weight.ndim
    axis = int_attribute(node, "axis", _DEFAULT_AXIS) % weight.ndim
    return tuple(size if place == axis else 1 for place, size in enumerate(weight.shape))
