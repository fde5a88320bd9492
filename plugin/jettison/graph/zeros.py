"""Which numbers of a weight are zero, however it is stored: as floats, or as integers with scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import constant_of, int_attribute

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_UNCHANGED = frozenset({"Cast", "Identity", "QuantizeLinear"})
"""Operators that leave a zero a zero: a QuantizeLinear as seen through the DequantizeLinear behind it."""


def zeros_of(value: ir.Value | None) -> Mask | None:
    """Where the numbers that the value holds are exactly zero, in its shape; None where it is no constant.

    Weights are followed through DequantizeLinear, Transpose, Reshape and casts to what is stored.
    """
    found = constant_of(value)
    if found is not None:
        return np.asarray(found == 0)
    node = value.producer() if value is not None else None
    if node is None or node.domain != "":
        return None
    if node.op_type == "DequantizeLinear":
        return _dequantized(node)
    before = zeros_of(node.inputs[0]) if node.op_type in _UNCHANGED | {"Reshape", "Transpose"} else None
    if before is None or node.op_type in _UNCHANGED:
        return before
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", tuple(reversed(range(before.ndim))))
        return np.asarray(before.transpose(order))
    shape = None if value is None or value.shape is None else value.shape
    return before.reshape(shape.numpy()) if shape is not None and shape.is_static() else None


def _dequantized(node: ir.Node) -> Mask | None:
    """Where stored integers equal their zero point; behind a QuantizeLinear, where its input is zero."""
    integers = constant_of(node.inputs[0])
    if integers is None:
        return zeros_of(node.inputs[0])
    zero_point = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero_point is None or not zero_point.any():
        return np.asarray(integers == 0)
    if zero_point.ndim == 1 and zero_point.size > 1:
        sizes = [1] * integers.ndim
        sizes[int_attribute(node, "axis", 1)] = -1
        zero_point = zero_point.reshape(sizes)
    elif zero_point.size > 1:
        return None  # blocks of an asymmetric format, which no pass here writes
    return np.asarray(integers == zero_point)
