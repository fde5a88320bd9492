"""Checks of scales, zero points and element types: what a pair says its integers mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from jettison.engines.tensorrt.capabilities import GENERIC
from jettison.engines.tensorrt.lint.finding import Place, Subject
from jettison.engines.tensorrt.lint.pairs import (
    WEIGHTED,
    Array,
    Quantizer,
    channel_axis,
    pairs,
    quantizers,
    readers_of,
    stored_weights,
)

TYPE = ir.DataType
EIGHT_BITS = frozenset({TYPE.INT8, TYPE.UINT8})
BLOCK_TYPES = frozenset({TYPE.INT4, TYPE.FLOAT4E2M1})
KNOWN = frozenset({TYPE.INT8, TYPE.FLOAT8E4M3FN, *BLOCK_TYPES})
"""What TensorRT's pairs may store. Source: its operator reference, IQuantizeLayer."""
BLOCK_OPSET = 21
"""The first opset whose DequantizeLinear has `block_size`, and integers of four bits."""
HALF_SCALE_OPSET = 19
"""The first opset whose QuantizeLinear takes scales of 16 bits."""
LEAST_CAPABILITY = {TYPE.FLOAT8E4M3FN: 89, TYPE.FLOAT4E2M1: 100, TYPE.INT4: 80}
"""The first compute capability with arithmetic for the type. Source: TensorRT's support matrix."""


def is_shifted(half: Quantizer) -> bool:
    """Whether it holds 8-bit integers that are unsigned, or whose zero point is not 0."""
    if half.scale is None or half.stored not in EIGHT_BITS:
        return False
    return half.stored == TYPE.UINT8 or (half.zero_point is not None and bool(half.zero_point.any()))


def shifted(subject: Subject) -> Iterator[Place]:
    """Zero points other than zero."""
    for half in quantizers(subject.graph):
        if half.stored != TYPE.INT32 and half.zero_point is not None and half.zero_point.any():
            points = sorted({int(point) for point in half.zero_point.reshape(-1)})
            yield Place(half.node, f"expected zero points of 0, found {_few(points)} ({_name(half.stored)})")


def unsigned(subject: Subject) -> Iterator[Place]:
    """UINT8 whose zero point is 0, or is not given."""
    for half in quantizers(subject.graph):
        if half.stored == TYPE.UINT8 and (half.zero_point is None or not half.zero_point.any()):
            given = "a zero point of 0" if len(half.node.inputs) > 2 else "no zero point, which means UINT8"
            yield Place(half.node, f"expected INT8, found UINT8 with {given}")


def strange_types(subject: Subject) -> Iterator[Place]:
    """Element types that its pairs do not know."""
    for half in quantizers(subject.graph):
        if half.stored is not None and half.stored not in KNOWN | EIGHT_BITS | {TYPE.INT32}:
            yield Place(half.node, f"expected INT8, FP8 E4M3, INT4 or FP4, found {_name(half.stored)}")


def missing_on_target(subject: Subject) -> Iterator[Place]:
    """Element types that the target has no arithmetic for."""
    capability = subject.target.compute_capability or GENERIC
    for half in quantizers(subject.graph):
        least = LEAST_CAPABILITY.get(half.stored) if half.stored is not None else None
        if least is not None and capability < least:
            found = f"{_name(half.stored)}, which begins with sm{least}"
            where = "every GPU" if subject.target.compute_capability is None else str(subject.target)
            yield Place(half.node, f"expected a type that {where} computes in, found {found}")


def bad_scales(subject: Subject) -> Iterator[Place]:
    """Scales that are not positive, or no numbers."""
    for half in quantizers(subject.graph):
        if half.scale is None:
            continue
        scale = np.asarray(half.scale, np.float64)
        wrong = ~(np.isfinite(scale) & (scale > 0))
        if wrong.any():
            example = scale.reshape(-1)[wrong.reshape(-1)][0]
            yield Place(
                half.node,
                f"expected scales above 0, found {example:g} in {int(wrong.sum())} of {scale.size}",
            )


def computed_scales(subject: Subject) -> Iterator[Place]:
    """Scales or zero points that the model computes as it runs."""
    for half in quantizers(subject.graph):
        has_point = len(half.node.inputs) > 2 and half.node.inputs[2] is not None
        if half.scale is None or (has_point and half.zero_point is None):
            yield Place(half.node, "expected a constant scale and zero point, found computed ones")


def scale_types(subject: Subject) -> Iterator[Place]:
    """Scales of another type than what they scale, or of 16 bits below the opset that knows them."""
    for half in quantizers(subject.graph):
        found = half.node.inputs[1].dtype if len(half.node.inputs) > 1 and half.node.inputs[1] else None
        scaled = half.source.dtype if half.is_quantize else half.output.dtype
        if found is None:
            continue
        if scaled is not None and scaled != found and scaled in (TYPE.FLOAT, TYPE.FLOAT16, TYPE.BFLOAT16):
            text = f"expected a scale of {_name(scaled)}, as its values, found {_name(found)}"
            yield Place(half.node, text)
        elif found in (TYPE.FLOAT16, TYPE.BFLOAT16) and subject.opset < HALF_SCALE_OPSET:
            text = f"expected opset {HALF_SCALE_OPSET} for a scale of {_name(found)}, found {subject.opset}"
            yield Place(half.node, text)


def channels_of_activations(subject: Subject) -> Iterator[Place]:
    """Activations with a scale for each channel."""
    for pair in pairs(subject.graph):
        for half in pair.halves:
            if half.scale is not None and half.scale.size > 1 and half.stored not in BLOCK_TYPES:
                yield Place(half.node, f"expected one scale on an activation, found {half.scale.size}")


def weight_axes(subject: Subject) -> Iterator[Place]:
    """Weights whose scales lie along another axis than their channels."""
    for half in _weights(subject):
        if half.scale is None or half.scale.size < 2 or half.block_size:
            continue
        for node, axis in _channel_axes(half):
            rank = len(half.constant.shape) if half.constant is not None else len(half.source.shape or ())
            if rank and half.axis % rank != axis:
                whose = f"of the weight of {node.name!r}"
                yield Place(half.node, f"expected scales along axis {axis} {whose}, found axis {half.axis}")
                break


def stored_biases(subject: Subject) -> Iterator[Place]:
    """Biases stored as INT32."""
    for half in stored_weights(subject.graph):
        if half.stored == TYPE.INT32:
            yield Place(half.node, "expected a bias in float, found INT32 with a DequantizeLinear")


def stored_operands(subject: Subject) -> Iterator[Place]:
    """Single stored integers that an operator without weights reads, as a number that is added."""
    for half in stored_weights(subject.graph):
        if half.stored == TYPE.INT32 or half.rank:
            continue
        strangers = [node for node, _ in readers_of(half) if node.op_type not in WEIGHTED]
        if strangers:
            reader = f"{strangers[0].op_type} {strangers[0].name!r}"
            yield Place(half.node, f"expected a number in float, found a stored integer that {reader} reads")


def blocks(subject: Subject) -> Iterator[Place]:
    """Blocks that cannot be: of a type, an opset, a size or an operator that has none."""
    for half in quantizers(subject.graph):
        if half.block_size:
            problem = _block_problem(subject, half)
            if problem:
                yield Place(half.node, problem)


def _block_problem(subject: Subject, half: Quantizer) -> str | None:
    if half.stored not in BLOCK_TYPES and half.stored != TYPE.FLOAT8E4M3FN:
        return f"expected blocks of INT4, FP4 or MXFP8, found blocks of {_name(half.stored)}"
    if subject.opset < BLOCK_OPSET:
        return f"expected opset {BLOCK_OPSET} for blocks, found {subject.opset}"
    stored = half.constant
    if stored is None or not -stored.ndim <= half.axis < stored.ndim:
        return None
    return _misfit(half, stored)


def _misfit(half: Quantizer, stored: Array) -> str | None:
    size = stored.shape[half.axis]
    if size % half.block_size:
        return f"expected an axis that blocks of {half.block_size} fill, found {size} elements"
    wanted = list(stored.shape)
    wanted[half.axis] = size // half.block_size
    if half.scale is not None and list(half.scale.shape) != wanted:
        found = list(half.scale.shape)
        return f"expected scales of the shape {wanted} for blocks along axis {half.axis}, found {found}"
    if half.stored in BLOCK_TYPES and stored.shape[-1] % 2:
        return f"expected an even last dimension, found {stored.shape[-1]}"
    return None


def blocks_of_convolutions(subject: Subject) -> Iterator[Place]:
    """Blocks on convolutions, which are decompressed to float."""
    for half in quantizers(subject.graph):
        layers = [node for node, _ in readers_of(half) if node.op_type in ("Conv", "ConvTranspose")]
        if half.stored in BLOCK_TYPES and layers:
            found = f"{layers[0].op_type} {layers[0].name!r}"
            yield Place(half.node, f"expected {_name(half.stored)} on MatMul or Gemm, found it on {found}")


def _weights(subject: Subject) -> Iterator[Quantizer]:
    """Halves on weights: that read stored integers, or that make integers of a stored float."""
    for half in quantizers(subject.graph):
        if half.stored != TYPE.INT32 and half.constant is not None:
            yield half


def _channel_axes(half: Quantizer) -> Iterator[tuple[ir.Node, int]]:
    waiting = [half]
    while waiting:
        for node, index in waiting.pop().output.uses():
            if node.op_type == "DequantizeLinear":
                waiting.append(Quantizer(node, None, None))
                continue
            axis = channel_axis(node)
            if index == 1 and axis is not None:
                yield node, axis


def _few(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:3])
    return f"{shown} and {len(numbers) - 3} more" if len(numbers) > 3 else shown


def _name(stored: ir.DataType | None) -> str:
    return "an unknown type" if stored is None else stored.name
