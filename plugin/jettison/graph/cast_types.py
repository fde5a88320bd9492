"""The element types that a float32 graph can be cast to, and what they can hold."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from jettison.core import dtypes

CastType = Literal["float16", "bfloat16"]
Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_LOSS = 0.01
"""A constant that the cast changes by more than this share of its norm stays in float32.

Rounding alone changes it by at most 2^-11 (float16) or 2^-8 (bfloat16): more means that its values fell
among the subnormal numbers or vanished, as the 1e-12 of a guarded division does."""

ONNX_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
FLOATS = (ir.DataType.FLOAT, *ONNX_TYPES.values())

PAIRS = ("QuantizeLinear", "DequantizeLinear")


def numpy_type(dtype: CastType) -> np.dtype[Any]:
    """The numpy dtype of that name."""
    return next(row.numpy for row in dtypes.TABLE if row.name == dtype)


def largest_of(dtype: CastType) -> float:
    """The largest finite number of that type."""
    return float(ml_dtypes.finfo(numpy_type(dtype)).max)


def smallest_normal_of(dtype: CastType) -> float:
    """The smallest number of that type with all its bits of precision, a power of two."""
    return float(ml_dtypes.finfo(numpy_type(dtype)).smallest_normal)


def is_wide(value: ir.Value | None) -> bool:
    """Whether the value is a float32 tensor; an optional output that is left out has no name."""
    is_tensor = value is not None and bool(value.name) and isinstance(value.type, ir.TensorType)
    return is_tensor and value is not None and value.dtype == ir.DataType.FLOAT


def is_border(node: ir.Node) -> bool:
    """Whether the node is a Cast between float types, which a cast before this one may have placed."""
    ends = (node.inputs[0], node.outputs[0]) if node.op_type == "Cast" else ()
    return bool(ends) and all(value is not None and value.dtype in FLOATS for value in ends)
