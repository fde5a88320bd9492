"""Mends stored weights: integers around 0, scales along the channels, floats where integers may not be.

Stored weights keep every value where the integers only have to be shifted; else they are rounded anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.engines.tensorrt.lint.finding import Subject
from jettison.engines.tensorrt.lint.numbers import KNOWN, TYPE, is_shifted, stored_operands
from jettison.engines.tensorrt.lint.pairs import (
    QUANTIZE,
    Pair,
    Quantizer,
    channel_axis,
    detach,
    quantizers,
    real_values,
    stored_weights,
    weight_pairs,
)
from jettison.graph.qdq import Editor, Scale

AXIS_OPSET = 13
"""The first opset whose DequantizeLinear has scales along an axis."""
LARGEST = 127
MIDDLE = 128
"""The zero point of UINT8 that stands for INT8's 0."""
SMALLEST_SCALE = 1e-8
"""What a scale of 0 becomes: everything that it scales is 0 anyway."""
SMALLEST_HALF_SCALE = 6.2e-5
"""The same in float16, whose smallest normal number is 6.1e-5."""

Array = np.ndarray[Any, Any]


def smallest_scale(dtype: np.dtype[Any]) -> float:
    """The smallest scale of that type that is none of 0."""
    return SMALLEST_HALF_SCALE if dtype == np.float16 else SMALLEST_SCALE


def point_to(node: ir.Node, scale: ir.Value, zero_point: ir.Value) -> None:
    """Let one half read another scale and zero point."""
    node.resize_inputs(3)
    node.replace_input_with(1, scale)
    node.replace_input_with(2, zero_point)
    if node.op_type == QUANTIZE:
        node.attributes.pop("output_dtype", None)


def center_weights(editor: Editor) -> None:
    """Unsigned and shifted weights become INT8 around 0."""
    for half in stored_weights(editor.graph):
        if is_shifted(half):
            _center(editor, half)
    for pair in weight_pairs(editor.graph):
        if is_shifted(pair.quantize) and pair.is_closed and not pair.quantize.block_size:
            _round_pair(editor, pair, None if pair.quantize.is_per_tensor else pair.quantize.axis)


def _center(editor: Editor, half: Quantizer) -> None:
    stored, zero = half.constant, half.zero_point
    if stored is None or half.block_size:
        return
    zeros = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    if zeros.size > 1:
        zeros = zeros.reshape([-1 if axis == half.axis % stored.ndim else 1 for axis in range(stored.ndim)])
    elif stored.ndim == 0:
        zeros = zeros.reshape(())
    shifted: Array = stored.astype(np.int32) - zeros
    if shifted.size and (np.min(shifted) < -MIDDLE or np.max(shifted) > LARGEST):
        axis = _channels(editor, half, stored.ndim) if half.is_per_tensor else half.axis
        _store(editor, half, real_values(half), axis)
    else:
        _replace(editor, half, shifted.astype(np.int8), np.asarray(half.scale), half.axis)


def _channels(editor: Editor, half: Quantizer, rank: int) -> int | None:
    """The axis along which all readers have their channels: scales there lose less than one for all."""
    axes = {channel_axis(node) if index == 1 else None for node, index in half.output.uses()}
    axis = axes.pop() if len(axes) == 1 else None
    knows_axes = editor.graph.opset_imports.get("", 0) >= AXIS_OPSET
    return axis if axis is not None and axis < rank and knows_axes else None


def turn_weight_axes(subject: Subject) -> None:
    """Weights whose scales lie along the wrong axis are rounded anew along their channels."""
    editor = Editor(subject.model)
    for half in stored_weights(subject.graph):
        if half.stored == TYPE.INT32 or half.is_per_tensor or half.scale is None or half.block_size:
            continue
        axis = _wrong_axis([half], half.rank, half.axis)
        if axis is not None:
            _store(editor, half, real_values(half), axis)
    for pair in weight_pairs(subject.graph):
        half = pair.quantize
        if half.scale is None or half.is_per_tensor or half.block_size or half.stored != TYPE.INT8:
            continue
        axis = _wrong_axis(list(pair.dequantizes), half.rank, half.axis)
        if axis is not None and pair.is_plain:
            _round_pair(editor, pair, axis)
    editor.drop_unused()


def _wrong_axis(halves: list[Quantizer], rank: int, found: int) -> int | None:
    """The one channel axis of all readers, where it is not the one found."""
    uses = [use for half in halves for use in half.output.uses()]
    axes = {channel_axis(node) for node, index in uses if index == 1}
    axis = axes.pop() if len(axes) == 1 else None
    return axis if axis is not None and rank and axis != found % rank else None


def _round_pair(editor: Editor, pair: Pair, axis: int | None) -> None:
    """Scales of a weight that is stored in float, from its own largest values; INT8 around 0."""
    half = pair.quantize
    scale = _scales(np.asarray(half.constant, np.float32), axis, np.asarray(half.scale).dtype)
    parameters = editor.parameters(str(half.source.name), Scale(scale, np.int8(0)))
    for each in pair.halves:
        point_to(each.node, *parameters)
        if scale.ndim and axis is not None:
            each.node.attributes["axis"] = ir.AttrInt64("axis", axis)
    half.output.type = ir.TensorType(TYPE.INT8)


def _scales(real: Array, axis: int | None, dtype: np.dtype[Any]) -> Array:
    axis = None if axis is None else axis % real.ndim
    others = tuple(place for place in range(real.ndim) if place != axis) if axis is not None else None
    largest = np.abs(real).max(axis=others, initial=0.0)
    scale: Array = np.maximum(largest / LARGEST, smallest_scale(dtype)).astype(dtype)
    return scale


def _store(editor: Editor, half: Quantizer, real: Array, axis: int | None) -> None:
    """Round these values to INT8 by scales along the axis, or by one."""
    scale = _scales(real, axis, np.asarray(half.scale).dtype)
    shape = [] if axis is None else [-1 if place == axis % real.ndim else 1 for place in range(real.ndim)]
    integers = np.clip(np.rint(real / scale.astype(np.float32).reshape(shape)), -LARGEST, LARGEST)
    _replace(editor, half, integers.astype(np.int8), scale, axis)


def _replace(editor: Editor, half: Quantizer, integers: Array, scale: Array, axis: int | None) -> None:
    stem = str(half.source.name)
    half.node.replace_input_with(0, editor.constant(f"{stem}_int8", integers))
    point_to(half.node, *editor.parameters(stem, Scale(scale, np.int8(0))))
    if scale.size > 1 and axis is not None:
        half.node.attributes["axis"] = ir.AttrInt64("axis", axis)


def float_biases(subject: Subject) -> None:
    """INT32 biases become the floats that they stand for."""
    to_float(subject, [half for half in stored_weights(subject.graph) if half.stored == TYPE.INT32])


def float_operands(subject: Subject) -> None:
    """Stored integers that are no weights become the floats that they stand for."""
    nodes = {place.node for place in stored_operands(subject)}
    to_float(subject, [half for half in stored_weights(subject.graph) if half.node in nodes])


def to_float(subject: Subject, halves: list[Quantizer]) -> None:
    """Put what stored integers stand for in their place."""
    editor = Editor(subject.model)
    for half in halves:
        if half.scale is None or half.output.is_graph_output():
            continue
        dtype = half.output.dtype.numpy() if half.output.dtype in _FLOATS else half.scale.dtype
        value = editor.constant(f"{half.source.name}_float", real_values(half).astype(dtype))
        half.output.replace_all_uses_with(value)
        detach(half.node)
    editor.drop_unused()


_FLOATS = frozenset({TYPE.FLOAT, TYPE.FLOAT16, TYPE.BFLOAT16})


def floor_scales(subject: Subject) -> None:
    """Scales of 0 become the smallest that is none."""
    editor = Editor(subject.model)
    for half in quantizers(subject.graph):
        scale = half.scale
        if scale is None or not (np.asarray(scale, np.float64) == 0).any():
            continue
        least = smallest_scale(scale.dtype)
        floored = np.where(np.asarray(scale, np.float64) == 0, least, scale).astype(scale.dtype)
        half.node.replace_input_with(1, editor.constant(f"{half.output.name}_scale", floored))
    editor.drop_unused()


def cast_scales(subject: Subject) -> None:
    """Scales take the type of what they scale."""
    editor = Editor(subject.model)
    for half in quantizers(subject.graph):
        scaled = half.source.dtype if half.is_quantize else half.output.dtype
        if half.scale is None or scaled not in _FLOATS or scaled is None or half.node.inputs[1] is None:
            continue
        if half.node.inputs[1].dtype != scaled:
            wide = np.asarray(half.scale, np.float64)
            cast = np.where(wide > 0, np.maximum(wide, smallest_scale(scaled.numpy())), wide)
            scale = editor.constant(f"{half.output.name}_scale", cast.astype(scaled.numpy()))
            half.node.replace_input_with(1, scale)
    editor.drop_unused()


HELD = KNOWN | {TYPE.INT8, TYPE.UINT8, TYPE.INT32, None}
"""Types that a pair may have or can be brought from to one that it may."""
