"""Scales of stored weights that a 16-bit float cannot hold: raised, and the weights rounded to them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from jettison.core import dtypes
from jettison.graph.cast_types import LARGEST_LOSS, Array, CastType, largest_of, smallest_normal_of
from jettison.graph.edit import constant_of, int_attribute


def scale_reason(array: Array, dtype: CastType) -> str | None:
    """Why the type cannot hold these scales, or None."""
    least, largest = float(array.min()), float(array.max())
    if least >= smallest_normal_of(dtype) and largest <= largest_of(dtype):
        return None
    return f"holds scales of {least:.3g} to {largest:.3g}, which are no normal numbers in {dtype}"


def lifted(node: ir.Node, dtype: CastType) -> tuple[Array, Array] | None:
    """Stored weight and scales of a DequantizeLinear, tiny scales raised to normal numbers of the type.

    A dead channel has a tiny scale for no reason (its integers are all zero), and as zero TensorRT would
    refuse it. Integers become coarser. FP8 numbers only move by powers of two, which keeps all bits of those
    that stay normal. None where no scale is tiny, or where too much would be lost.
    """
    arrays = [constant_of(value) for value in node.inputs]
    if node.op_type != "DequantizeLinear":
        return None
    stored, scales = arrays[:2]
    if stored is None or scales is None or any(np.any(zero_point) for zero_point in arrays[2:]):
        return None
    raised = _raised(scales, stored.dtype, smallest_normal_of(dtype))
    if np.array_equal(raised, scales):
        return None
    exact = stored.astype(np.float32) * _spread(node, scales, stored.shape)
    steps = _spread(node, raised, stored.shape)
    coarse = _rounded(exact / steps, stored.dtype)
    lost = np.linalg.norm(coarse.astype(np.float32) * steps - exact)
    return None if lost > LARGEST_LOSS * np.linalg.norm(exact) else (coarse, raised)


def _raised(scales: Array, stored: np.dtype[np.generic], least: float) -> Array:
    """The scales, none below `least` (a power of two); those of floats are moved by powers of two."""
    if _is_float(stored):
        _, exponents = np.frexp(scales)
        _, wanted = np.frexp(least)
        scales = np.ldexp(scales, np.maximum(wanted - exponents, 0))
    return np.asarray(np.maximum(scales, np.float32(least)))


def _rounded(values: Array, stored: np.dtype[np.generic]) -> Array:
    return (values if _is_float(stored) else np.rint(values)).astype(stored)


def _is_float(stored: np.dtype[np.generic]) -> bool:
    row = dtypes.of_numpy(stored)
    return row is not None and row.is_float


def _spread(node: ir.Node, scales: Array, shape: tuple[int, ...]) -> Array:
    """The scales in a shape that multiplies the stored values: per tensor, channel or block."""
    axis, block = int_attribute(node, "axis", 1), int_attribute(node, "block_size", 0)
    if block:
        return np.repeat(scales, block, axis).take(np.arange(shape[axis]), axis)
    if not scales.ndim:
        return scales
    sizes = [1] * len(shape)
    sizes[axis] = -1
    return scales.reshape(sizes)
