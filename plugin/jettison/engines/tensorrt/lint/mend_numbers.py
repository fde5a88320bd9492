"""Mends scales, zero points and element types of activations. Each changes the model in place.

Whatever a pair meant, the new one covers the same range: an unsigned or shifted range [low, high] becomes
[-a, a] with a = max(|low|, |high|), which costs at most one bit. A pair also cuts off what lies outside of
its range, and ONNX Runtime's quantizer leaves out a Relu or Clip before a pair that does its work. So where
low is 0 a Relu is put back, and a Clip where both ends are whole or half numbers, as those of a Clip are;
other ranges are taken for calibrated ones. Both cost nothing behind a layer, into which they are fused.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from jettison.engines.tensorrt.lint.finding import Subject
from jettison.engines.tensorrt.lint.mend_weights import (
    HELD,
    LARGEST,
    MIDDLE,
    center_weights,
    point_to,
    to_float,
)
from jettison.engines.tensorrt.lint.numbers import TYPE, is_shifted
from jettison.engines.tensorrt.lint.pairs import (
    MOVES,
    Pair,
    Quantizer,
    array_of,
    detach,
    pairs,
    quantizers,
    stored_weights,
    weight_pairs,
)
from jettison.graph.edit import bypass
from jettison.graph.qdq import Editor, Scale

Array = np.ndarray[Any, Any]


def make_symmetric(subject: Subject) -> None:
    """Unsigned and shifted integers become INT8 around 0."""
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        if is_shifted(pair.quantize) and pair.is_closed:
            _center(editor, pair)
    center_weights(editor)
    editor.drop_unused()


def _center(editor: Editor, pair: Pair) -> None:
    half = pair.quantize
    low, high = (0, 255) if half.stored == TYPE.UINT8 else (-128, 127)
    scale = np.asarray(half.scale)
    zero = np.zeros((), np.int64) if half.zero_point is None else half.zero_point.astype(np.int64)
    is_middle = half.stored == TYPE.UINT8 and bool((zero == MIDDLE).all())
    ends = ((low - zero) * scale.astype(np.float64), (high - zero) * scale.astype(np.float64))
    if not is_middle:
        _put_back(editor, half, ends)
        scale = (np.maximum(np.abs(ends[0]), np.abs(ends[1])) / LARGEST).astype(scale.dtype)
    set_scale(editor, pair, scale)


def _put_back(editor: Editor, half: Quantizer, ends: tuple[Array, Array]) -> None:
    """Let the pair read its value through the activation that it stood for, if it stood for one."""
    if half.source.producer() is None:
        return  # no tool leaves out what stands on an input of the model
    low, high = (np.unique(end) for end in ends)
    if not low.any():
        if not _is_never_negative(half.source):
            _insert(editor, half, ir.node("Relu", [half.source]))
    elif len(low) == len(high) == 1 and (bounds := _bounds(half, float(low[0]), float(high[0]))):
        _clip(editor, half, bounds)


def _bounds(half: Quantizer, low: float, high: float) -> tuple[float, float] | None:
    """The whole or half numbers that both ends are to within half a step of the integers, or None."""
    half_step = float(np.max(np.asarray(half.scale, np.float64))) / 2
    rounded = round(low * 2) / 2, round(high * 2) / 2
    made = half.source.producer()
    near = all(abs(end - bound) <= half_step for end, bound in zip((low, high), rounded, strict=True))
    is_clipped = made is not None and made.op_type == "Clip"
    return rounded if near and not is_clipped and rounded[0] < rounded[1] else None


def _clip(editor: Editor, half: Quantizer, ends: tuple[float, float]) -> None:
    dtype = np.float32 if half.scale is None else half.scale.dtype
    stem = f"{half.source.name}_clip"
    bounds = [editor.constant(stem, np.asarray(end, dtype)) for end in ends]
    _insert(editor, half, ir.node("Clip", [half.source, *bounds]))


def _insert(editor: Editor, half: Quantizer, activation: ir.Node) -> None:
    output = activation.outputs[0]
    activation.name = editor.free_node_name(f"{half.source.name}_{activation.op_type}")
    output.name = editor.free_value_name(f"{half.source.name}_{activation.op_type.lower()}")
    output.shape, output.type = half.source.shape, half.source.type
    half.node.replace_input_with(0, output)
    graph = half.node.graph
    if graph is not None:
        graph.insert_before(half.node, activation)


_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Softplus", "Abs", "Sqrt"})
_KEEPS_SIGNS = frozenset(
    {
        "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Add", "Mul", "Slice",
        "Split", "QuantizeLinear", "DequantizeLinear", *MOVES,
    }
)  # fmt: skip
_ALL_INPUTS = frozenset({"Concat", "Add", "Mul"})


def _is_never_negative(value: ir.Value | None, depth: int = 8) -> bool:
    """Whether its maker, or what that only hands on, cannot be negative; followed for so many nodes."""
    node = None if value is None else value.producer()
    if node is None or depth == 0:
        return False
    if node.op_type in _NOT_NEGATIVE:
        return True
    if node.op_type == "Clip":
        least = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
        return least is not None and bool(np.asarray(least, np.float64) >= 0)
    read = node.inputs if node.op_type in _ALL_INPUTS else node.inputs[:1]
    return node.op_type in _KEEPS_SIGNS and all(_is_never_negative(each, depth - 1) for each in read)


def set_scale(editor: Editor, pair: Pair, scale: Array) -> None:
    """INT8 with that scale and zero points of 0, on all nodes of the pair."""
    parameters = editor.parameters(str(pair.quantize.source.name), Scale(scale, np.int8(0)))
    for half in pair.halves:
        point_to(half.node, *parameters)
    waiting = [pair.quantize.output]
    while waiting:
        value = waiting.pop()
        value.type = ir.TensorType(TYPE.INT8)
        waiting += [out for node, _ in value.uses() if node.op_type in MOVES for out in node.outputs]


def one_scale_for_activations(subject: Subject) -> None:
    """Activations with a scale for each channel get the largest of them."""
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        scale = pair.quantize.scale
        is_plain = scale is not None and scale.size > 1 and pair.quantize.stored == TYPE.INT8
        if is_plain and not is_shifted(pair.quantize) and pair.is_closed:
            set_scale(editor, pair, np.asarray(np.max(np.asarray(scale))))
    editor.drop_unused()


def without_strange_types(subject: Subject) -> None:
    """Pairs of other types go; stored numbers become the floats that they stand for."""
    nodes = {half.node for half in quantizers(subject.graph) if half.stored not in HELD}
    editor = Editor(subject.model)
    for pair in pairs(subject.graph):
        if pair.quantize.node in nodes and pair.is_plain:
            _cut_off(editor, pair.quantize)
            remove_pair(pair)
    for pair in weight_pairs(subject.graph):
        if pair.quantize.node in nodes and pair.is_plain:
            remove_pair(pair)
    to_float(subject, [half for half in stored_weights(subject.graph) if half.node in nodes])


def _cut_off(editor: Editor, half: Quantizer) -> None:
    """Put back the activation that a pair of integers stood for, which is about to go."""
    if half.scale is None or half.zero_point is None or half.stored is None or not half.is_per_tensor:
        return
    if half.stored.is_floating_point() or half.source.producer() is None:
        return
    span, scale = ml_dtypes.iinfo(half.zero_point.dtype), float(half.scale.reshape(-1)[0])
    zero = int(half.zero_point.reshape(-1)[0])
    low, high = (int(span.min) - zero) * scale, (int(span.max) - zero) * scale
    bounds = _bounds(half, low, high)
    if low == 0.0 or bounds:
        _clip(editor, half, bounds or (low, high))


def remove_pair(pair: Pair) -> None:
    """Let all readers of a plain pair read the float value, callers of the model included.

    An output whose value comes from an input of the model, or is an output already, stays as it is.
    """
    source = pair.quantize.node.inputs[0]
    if source is None:
        return
    for half in pair.dequantizes:
        if not half.output.is_graph_output():
            half.output.replace_all_uses_with(source)
            detach(half.node)
        elif source.producer() is not None and not source.is_graph_output():
            source.shape = half.output.shape
            bypass(half.node, source)
    if not pair.quantize.output.uses() and not pair.quantize.output.is_graph_output():
        detach(pair.quantize.node)
