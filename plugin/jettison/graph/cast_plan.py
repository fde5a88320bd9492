"""Which nodes of a float32 graph can compute in 16-bit floats, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from jettison.graph.cast_scales import lifted, scale_reason
from jettison.graph.cast_types import (
    LARGEST_LOSS,
    PAIRS,
    Array,
    CastType,
    is_border,
    is_wide,
    largest_of,
    numpy_type,
)
from jettison.graph.edit import constant_of, is_constant
from jettison.graph.model import opset_of

_TYPED_BY_ATTRIBUTE = frozenset(
    {"Bernoulli", "Constant", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal", "RandomNormalLike",
     "RandomUniform", "RandomUniformLike"}
)  # fmt: skip
"""Operators whose output's type stands in an attribute: cheap, and left as they are."""

_SELECTING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
     "MaxPool", "Pad", "Relu", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze",
     "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators that move, select or measure values; between float32 neighbours, 16 bits only cost two casts."""

IDLE_REASONS = ("it computes with sizes", "it only moves values between float32 nodes")
"""Why nodes stay in float32 that lose nothing by it."""


@dataclass(frozen=True)
class Slots:
    """Which inputs and outputs of a cast node change their type, by index."""

    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(frozen=True)
class CastPlan:
    """Which nodes of the main graph compute in `dtype`, and why the other float32 nodes do not, by name."""

    dtype: CastType
    slots: Mapping[str, Slots]
    kept: Mapping[str, str]


def plan_cast(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> CastPlan:
    """The nodes that can compute in `dtype`.

    Left in float32 are: nodes named in `keep_float`; operators whose ONNX schema at the model's opset knows
    no such type; nodes with a subgraph and all that is in it; arithmetic on sizes; nodes with a constant
    that the type cannot hold; and a quantized layer as a whole, with the DequantizeLinear nodes before it,
    where one part of it stays (a Cast between them would undo the integer kernel).
    """
    slots: dict[str, Slots] = {}
    kept: dict[str, str] = {}
    sizes = _size_values(model.graph)
    for node in model.graph:
        if not any(is_wide(value) for value in (*node.inputs, *node.outputs)) or is_border(node):
            continue
        found = _slots(node, dtype, opset_of(model))
        if name_of(node) in keep_float:
            kept[name_of(node)] = "left in float32 as asked"
        elif isinstance(found, str):
            kept[name_of(node)] = found
        elif node.outputs[0] in sizes and node.op_type not in ("Shape", "Size"):
            kept[name_of(node)] = IDLE_REASONS[0]
        elif (reason := _constants_reason(node, found, dtype)) is not None:
            kept[name_of(node)] = reason
        else:
            slots[name_of(node)] = found
    while changes := {
        name: why for node in model.graph for name, why in _drawn(node, slots) if name in slots
    }:
        kept.update(changes)
        slots = {name: found for name, found in slots.items() if name not in changes}
    return CastPlan(dtype, slots, kept)


def name_of(node: ir.Node) -> str:
    """The node's name, which a clean graph always has."""
    return node.name or ""


def _slots(node: ir.Node, dtype: CastType, opset: int) -> Slots | str:
    """What of the node can change its type, or why nothing can."""
    if any("GRAPH" in attribute.type.name for attribute in node.attributes.values()):
        return "it holds a subgraph"
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if any(not isinstance(value.type, ir.TensorType) for value in values):
        return "an element type around it is not known"
    has_statistics = node.op_type == "LayerNormalization" and len(node.outputs) > 1
    if node.op_type in _TYPED_BY_ATTRIBUTE or "output_dtype" in node.attributes or has_statistics:
        return "an attribute sets its element type"
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return f"{node.op_type} is no operator of ONNX, so its element types are not known"
    inputs = _allowed(node.inputs, schema.inputs, dtype)
    outputs = _allowed(node.outputs, schema.outputs, dtype)
    wide = {index for index, value in enumerate(node.outputs) if is_wide(value)}
    if wide != outputs or not (inputs or outputs):
        return f"{node.op_type} has no {dtype} form at opset {opset}"
    return Slots(frozenset(inputs), frozenset(outputs))


def _allowed(values: Iterable[ir.Value | None], formal: Sequence[Any], dtype: CastType) -> set[int]:
    """Indices of the float32 values whose formal parameter knows the type; the last may be variadic."""
    return {
        index
        for index, value in enumerate(values)
        if is_wide(value) and f"tensor({dtype})" in formal[min(index, len(formal) - 1)].types
    }


def _size_values(graph: ir.Graph) -> set[ir.Value]:
    """Values computed from nothing but sizes: float16 miscounts from 2,049 on, bfloat16 from 257."""
    sizes: set[ir.Value] = set()
    for node in graph:
        sources = [value for value in node.inputs if value is not None and not is_constant(value)]
        moves = node.op_type in _SELECTING and node.op_type != "Concat"
        needed = [*sources, *(value for value in node.inputs[:1] if moves and value is not None)]
        if node.op_type in ("Shape", "Size") or (needed and sizes.issuperset(needed)):
            sizes.update(node.outputs)
    return sizes


def _constants_reason(node: ir.Node, slots: Slots, dtype: CastType) -> str | None:
    raised = lifted(node, dtype)
    for index in sorted(slots.inputs):
        array = constant_of(node.inputs[index])
        if array is not None:
            if node.op_type in PAIRS:
                reason = scale_reason(array if raised is None else raised[1], dtype)
            else:
                reason = _rounding_reason(array, dtype)
            if reason is not None:
                return f"its constant {node.inputs[index].name!r} {reason}"  # type: ignore[union-attr]
    return None


def _rounding_reason(array: Array, dtype: CastType) -> str | None:
    finite = array[np.isfinite(array)]
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > largest_of(dtype):
        return f"reaches {largest:.3g}, beyond {dtype}"
    lost = float(np.linalg.norm(finite.astype(numpy_type(dtype)).astype(np.float32) - finite))
    return f"is too small for {dtype}" if lost > LARGEST_LOSS * float(np.linalg.norm(finite)) else None


def _drawn(node: ir.Node, slots: Mapping[str, Slots]) -> Iterator[tuple[str, str]]:
    """Nodes that stay because of their neighbours, each with the reason."""
    readers = [usage.node for output in node.outputs for usage in output.uses()]
    if node.op_type == "DequantizeLinear":
        group = [node, *readers]
        staying = next((name_of(member) for member in group if name_of(member) not in slots), None)
        if staying is not None:
            yield from ((name_of(member), f"it is quantized together with {staying}") for member in group)
    elif node.op_type in _SELECTING:
        sources = [value.producer() for value in node.inputs if value is not None]
        if not any(name_of(other) in slots for other in (*sources, *readers) if other is not None):
            yield name_of(node), IDLE_REASONS[1]
