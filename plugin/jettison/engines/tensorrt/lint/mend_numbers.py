"""Mends scales, zero points and element types. Each changes the model in place and can be called again.

Whatever a pair meant, the new one covers the same range: an unsigned or shifted range [low, high] becomes
[-a, a] with a = max(|low|, |high|), which costs at most one bit of an activation. Where low is 0 the pair
also was the Relu: tools leave that out before such a pair, so it is put back. Stored weights keep every
value where the integers only have to be shifted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.engines.tensorrt.lint.finding import Subject
from jettison.engines.tensorrt.lint.numbers import EIGHT_BITS, KNOWN, TYPE, stored_operands
from jettison.engines.tensorrt.lint.pairs import (
    MOVES,
    Pair,
    Quantizer,
    channel_axis,
    pairs,
    quantizers,
    real_values,
    stored_weights,
)
from jettison.graph.edit import bypass
from jettison.graph.qdq import Editor, Scale

LARGEST = 127
MIDDLE = 128
"""The zero point of UINT8 that stands for INT8's 0."""
SMALLEST_SCALE = 1e-8
"""What a scale of 0 becomes: everything that it scales is 0 anyway."""
SMALLEST_HALF_SCALE = 6.2e-5
"""The same in float16, whose smallest normal number is 6.1e-5."""

Array = np.ndarray[Any, Any]


def make_symmetric(subject: Subject) -> None:
    """Unsigned and shifted integers become INT8 around 0."""
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        if _is_shifted(pair.quantize) and _is_closed(pair):
            _center(editor, pair)
    for half in stored_weights(subject.graph):
        if _is_shifted(half):
            _center_weight(editor, half)
    editor.drop_unused()


def _is_shifted(half: Quantizer) -> bool:
    if half.scale is None or half.stored not in EIGHT_BITS:
        return False
    return half.stored == TYPE.UINT8 or (half.zero_point is not None and bool(half.zero_point.any()))


def _is_closed(pair: Pair) -> bool:
    """Whether all readers of the integers are known: the other halves, through operators that move them."""
    waiting, ends = [pair.quantize.output], 0
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            return False
        for node, index in value.uses():
            if node.op_type in MOVES and index == 0:
                waiting += node.outputs
            elif node.op_type == "DequantizeLinear" and index == 0:
                ends += 1
            else:
                return False
    return ends == len(pair.dequantizes) > 0


def _center(editor: Editor, pair: Pair) -> None:
    half = pair.quantize
    low, high = (0, 255) if half.stored == TYPE.UINT8 else (-128, 127)
    scale = np.asarray(half.scale)
    zero = np.zeros((), np.int64) if half.zero_point is None else half.zero_point.astype(np.int64)
    is_middle = half.stored == TYPE.UINT8 and bool((zero == MIDDLE).all())
    largest = np.maximum(np.abs(low - zero), np.abs(high - zero)) * scale.astype(np.float64)
    wider = scale if is_middle else (largest / LARGEST).astype(scale.dtype)
    if bool((zero == low).all()):
        _put_back(editor, half, ir.node("Relu", [half.source]))
    set_scale(editor, pair, wider)


def _put_back(editor: Editor, half: Quantizer, activation: ir.Node) -> None:
    """Let the pair read its value through the activation that it stood for, unless one made the value."""
    maker = half.source.producer()
    if maker is not None and maker.op_type in _NOT_NEGATIVE:
        return
    output = activation.outputs[0]
    activation.name = editor.free_node_name(f"{half.source.name}_{activation.op_type}")
    output.name = editor.free_value_name(f"{half.source.name}_{activation.op_type.lower()}")
    output.shape, output.type = half.source.shape, half.source.type
    half.node.replace_input_with(0, output)
    graph = half.node.graph
    if graph is not None:
        graph.insert_before(half.node, activation)


_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp"})


def set_scale(editor: Editor, pair: Pair, scale: Array) -> None:
    """INT8 with that scale and zero points of 0, on all nodes of the pair."""
    parameters = editor.parameters(str(pair.quantize.source.name), Scale(scale, np.int8(0)))
    for half in pair.halves:
        _read(half.node, *parameters)
        half.node.attributes.pop("output_dtype", None)
    waiting = [pair.quantize.output]
    while waiting:
        value = waiting.pop()
        value.type = ir.TensorType(TYPE.INT8)
        waiting += [out for node, _ in value.uses() if node.op_type in MOVES for out in node.outputs]


def _center_weight(editor: Editor, half: Quantizer) -> None:
    stored, zero = half.constant, half.zero_point
    if stored is None or half.block_size:
        return
    zeros = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    if zeros.size > 1:
        zeros = zeros.reshape([-1 if axis == half.axis % stored.ndim else 1 for axis in range(stored.ndim)])
    shifted: Array = stored.astype(np.int32) - zeros
    if shifted.size and (np.min(shifted) < -MIDDLE or np.max(shifted) > LARGEST):
        _store(editor, half, real_values(half), half.axis if not half.is_per_tensor else None)
    else:
        _replace(editor, half, shifted.astype(np.int8), np.asarray(half.scale), half.axis)


def turn_weight_axes(subject: Subject) -> None:
    """Stored weights whose scales lie along the wrong axis are rounded anew along their channels."""
    editor = Editor(subject.model)
    for half in stored_weights(subject.graph):
        if half.stored == TYPE.INT32 or half.is_per_tensor or half.scale is None or half.block_size:
            continue
        axes = {channel_axis(node) for node, index in half.output.uses() if index == 1}
        rank = np.asarray(half.constant).ndim
        if len(axes) == 1 and (axis := axes.pop()) is not None and axis != half.axis % rank:
            _store(editor, half, real_values(half), axis)
    editor.drop_unused()


def _store(editor: Editor, half: Quantizer, real: Array, axis: int | None) -> None:
    """Round these values to INT8 by scales along the axis, or by one."""
    others = tuple(place for place in range(real.ndim) if place != axis) if axis is not None else None
    largest = np.abs(real).max(axis=others, initial=0.0)
    scale = np.maximum(largest / LARGEST, SMALLEST_SCALE).astype(np.asarray(half.scale).dtype)
    shape = [-1 if place == axis else 1 for place in range(real.ndim)] if axis is not None else ()
    integers = np.clip(np.rint(real / scale.astype(np.float32).reshape(shape)), -LARGEST, LARGEST)
    _replace(editor, half, integers.astype(np.int8), scale, axis)


def _replace(editor: Editor, half: Quantizer, integers: Array, scale: Array, axis: int | None) -> None:
    stem = str(half.source.name)
    half.node.replace_input_with(0, editor.constant(f"{stem}_int8", integers))
    _read(half.node, *editor.parameters(stem, Scale(scale, np.int8(0))))
    if scale.size > 1 and axis is not None:
        half.node.attributes["axis"] = ir.AttrInt64("axis", axis)


def _read(node: ir.Node, scale: ir.Value, zero_point: ir.Value) -> None:
    node.resize_inputs(3)
    node.replace_input_with(1, scale)
    node.replace_input_with(2, zero_point)


def one_scale_for_activations(subject: Subject) -> None:
    """Activations with a scale for each channel get the largest of them."""
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        scale = pair.quantize.scale
        is_plain = scale is not None and scale.size > 1 and pair.quantize.stored == TYPE.INT8
        if is_plain and not _is_shifted(pair.quantize) and _is_closed(pair):
            set_scale(editor, pair, np.asarray(np.max(np.asarray(scale))))
    editor.drop_unused()


def float_biases(subject: Subject) -> None:
    """INT32 biases become the floats that they stand for."""
    _to_float(subject, [half for half in stored_weights(subject.graph) if half.stored == TYPE.INT32])


def float_operands(subject: Subject) -> None:
    """Stored integers that are no weights become the floats that they stand for."""
    nodes = {place.node for place in stored_operands(subject)}
    _to_float(subject, [half for half in stored_weights(subject.graph) if half.node in nodes])


def without_strange_types(subject: Subject) -> None:
    """Pairs of other types go; stored numbers become the floats that they stand for."""
    nodes = {half.node for half in quantizers(subject.graph) if half.stored not in _HELD}
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        if pair.quantize.node in nodes and pair.is_plain:
            _clamp(editor, pair.quantize)
            remove_pair(subject.graph, pairs_by_node(subject.graph)[pair.quantize.node])
    _to_float(subject, [half for half in stored_weights(subject.graph) if half.node in nodes])


def _clamp(editor: Editor, half: Quantizer) -> None:
    """Where the pair's range begins at 0, clip its value to that range: the pair stood for the activation."""
    if half.scale is None or half.zero_point is None or half.stored is None or not half.is_per_tensor:
        return
    span = np.iinfo(half.zero_point.dtype)
    if int(half.zero_point.reshape(-1)[0]) != span.min:
        return
    high = (span.max - span.min) * float(half.scale.reshape(-1)[0])
    bounds = [
        editor.constant(f"{half.source.name}_clip{bound}", np.asarray(bound, half.scale.dtype))
        for bound in (0.0, high)
    ]
    _put_back(editor, half, ir.node("Clip", [half.source, *bounds]))


_HELD = KNOWN | EIGHT_BITS | {TYPE.INT32, None}


def _to_float(subject: Subject, halves: list[Quantizer]) -> None:
    editor = Editor(subject.model)
    for half in halves:
        if half.scale is None or half.output.is_graph_output():
            continue
        real = real_values(half).astype(half.scale.dtype)
        value = editor.constant(f"{half.source.name}_float", real)
        half.output.replace_all_uses_with(value)
        subject.graph.remove(half.node, safe=True)
    editor.drop_unused()


def pairs_by_node(graph: ir.Graph) -> dict[ir.Node, Pair]:
    """The pairs by their QuantizeLinear."""
    return {pair.quantize.node: pair for pair in pairs(graph)}


def remove_pair(graph: ir.Graph, pair: Pair) -> None:
    """Let all readers of a plain pair read the float value, callers of the model included.

    An output whose value comes from an input of the model, or is an output already, stays as it is.
    """
    source = pair.quantize.source
    for half in pair.dequantizes:
        if not half.output.is_graph_output():
            half.output.replace_all_uses_with(source)
            graph.remove(half.node, safe=True)
        elif source.producer() is not None and not source.is_graph_output():
            source.shape = half.output.shape
            bypass(half.node, source)
    if not pair.quantize.output.uses() and not pair.quantize.output.is_graph_output():
        graph.remove(pair.quantize.node, safe=True)


def floor_scales(subject: Subject) -> None:
    """Scales of 0 become the smallest that is none."""
    editor = Editor(subject.model)
    for half in quantizers(subject.graph):
        scale = half.scale
        if scale is None or not (np.asarray(scale, np.float64) == 0).any():
            continue
        least = SMALLEST_HALF_SCALE if scale.dtype == np.float16 else SMALLEST_SCALE
        floored = np.where(np.asarray(scale, np.float64) == 0, least, scale).astype(scale.dtype)
        half.node.replace_input_with(1, editor.constant(f"{half.output.name}_scale", floored))
    editor.drop_unused()


def cast_scales(subject: Subject) -> None:
    """Scales take the type of what they scale."""
    editor = Editor(subject.model)
    for half in quantizers(subject.graph):
        scaled = half.source.dtype if half.is_quantize else half.output.dtype
        known = scaled in (TYPE.FLOAT, TYPE.FLOAT16, TYPE.BFLOAT16)
        if half.scale is None or not known or scaled is None or half.node.inputs[1] is None:
            continue
        if half.node.inputs[1].dtype != scaled:
            cast = half.scale.astype(scaled.numpy())
            half.node.replace_input_with(1, editor.constant(f"{half.output.name}_scale", cast))
    editor.drop_unused()
