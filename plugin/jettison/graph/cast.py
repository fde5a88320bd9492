"""A float32 graph in 16-bit floats: which nodes can go, the edit itself, and its simulation in float32.

Casts stand at borders only, one for each value; inputs and outputs keep their types. ONNX Runtime on the
CPU is no judge of such a graph: it has no bfloat16 kernels, and around float16 nodes it computes in float32
and drops the casts between them (1.32: 0.3 + 1000 - 1000 gives 0.29999, in float16 it is 0.5). The
simulation is: every value that a cast node writes is rounded there and back, which it leaves in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from jettison.core import dtypes
from jettison.graph.edit import add_initializer, constant_of, free_name, is_constant, names_in
from jettison.graph.model import opset_of

CastType = Literal["float16", "bfloat16"]
Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_LOSS = 0.01
"""A constant that rounding changes by more than this share of its norm stays in float32.

Rounding alone changes float16 by 2^-12 and bfloat16 by 2^-9 on average: more means that its values fell
among the subnormal numbers or vanished, as the 1e-12 of a guarded division does."""

_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}

_TYPED_BY_ATTRIBUTE = frozenset(
    {
        "Bernoulli", "Constant", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    }
)  # fmt: skip
"""Operators whose output's type stands in an attribute: cheap, and left as they are."""

_SELECTING = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
        "MaxPool", "Pad", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
"""Operators that move or select values; between float32 neighbours, 16 bits would only cost two casts."""

_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


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
    opset = opset_of(model)
    for node in model.graph:
        if not _is_float32(node) or _is_border(node):
            continue
        found = _slots(node, dtype, opset)
        if _name(node) in keep_float:
            kept[_name(node)] = "left in float32 as asked"
        elif isinstance(found, str):
            kept[_name(node)] = found
        elif any(value in sizes for value in (*node.inputs, *node.outputs) if _is_wide(value)):
            kept[_name(node)] = "it computes with sizes"
        elif (reason := _constants_reason(node, found, dtype)) is not None:
            kept[_name(node)] = reason
        else:
            slots[_name(node)] = found
    _keep_together(model.graph, slots, kept)
    return CastPlan(dtype, slots, kept)


def cast_nodes(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> ir.Model:
    """A copy whose nodes compute in `dtype` as `plan_cast` tells; the model given stays as it is.

    The weights of cast nodes are stored in `dtype`. Casting a second time changes nothing.
    """
    plan = plan_cast(model, dtype, keep_float)
    edit = _Edit(model, plan)
    for value in edit.narrow:
        _write_narrow(edit, value)
    for value, readers in edit.borders():
        low = edit.cast(value, _TYPES[dtype], edit.free(f"{value.name}_{dtype}"))
        edit.rewire(readers, low)
    for node in edit.nodes:
        if node.op_type == "Cast" and plan.slots[_name(node)].outputs:
            node.attributes["to"] = ir.AttrInt64("to", int(_TYPES[dtype]))
    edit.narrow_constants(stored=dtypes_of(dtype))
    _join_casts(edit.graph, _TYPES[dtype])
    edit.drop_unused()
    return edit.model


def simulate_cast(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> ir.Model:
    """A float32 copy that computes what `cast_nodes` would: run it without graph optimizations.

    Constants and the values that cast nodes read and write are rounded to `dtype`; sums inside a node stay
    in float32, as matrix units and normalizations keep them. What a DequantizeLinear writes is not rounded,
    since an integer kernel never does so.
    """
    plan = plan_cast(model, dtype, keep_float)
    edit = _Edit(model, plan)
    rounded = [value for value in edit.narrow if _writer(value) not in _PAIRS]
    for value in rounded:
        uses, outputs = list(value.uses()), edit.output_places(value)
        name = value.name or ""
        value.name = edit.free(f"{name}_exact") if outputs else name
        back = _there_and_back(edit, value, name if outputs else edit.free(f"{name}_rounded"))
        edit.rewire(uses, back, outputs)
    for value, readers in edit.borders():
        edit.rewire(readers, _there_and_back(edit, value, edit.free(f"{value.name}_rounded")))
    edit.narrow_constants(stored=np.dtype(np.float32))
    edit.drop_unused()
    return edit.model


def without_activation_pairs(model: ir.Model) -> ir.Model:
    """A copy of a Q/DQ model whose activations are not quantized; weights stay as they are stored.

    For judging a cast alone: next to a quantizer, the smallest rounding flips whole integer steps.
    """
    copy = model.clone()
    for node in list(copy.graph):
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None:
            continue
        readers = [usage.node for usage in node.outputs[0].uses()]
        if readers and all(r.op_type == "DequantizeLinear" and not _feeds_output(r) for r in readers):
            for reader in readers:
                reader.outputs[0].replace_all_uses_with(node.inputs[0])
            copy.graph.remove([*readers, node], safe=True)
    return copy


def dtypes_of(dtype: CastType) -> np.dtype[Any]:
    """The numpy dtype of that name."""
    row = dtypes.of_name(dtype)
    if row is None:
        raise ValueError(f"unknown element type {dtype!r}")
    return row.numpy


def largest_of(dtype: CastType) -> float:
    """The largest finite number of that type."""
    return float(ml_dtypes.finfo(dtypes_of(dtype)).max)


def _name(node: ir.Node) -> str:
    return node.name or ""


def _is_wide(value: ir.Value | None) -> bool:
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def _is_float32(node: ir.Node) -> bool:
    return any(_is_wide(value) for value in (*node.inputs, *node.outputs))


def _is_border(node: ir.Node) -> bool:
    """Whether the node is a Cast between float types, which a cast before this one may have placed."""
    types = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return node.op_type == "Cast" and all(
        value is not None and value.dtype in types for value in (node.inputs[0], node.outputs[0])
    )


def _writer(value: ir.Value) -> str:
    producer = value.producer()
    return "" if producer is None else producer.op_type


def _feeds_output(node: ir.Node) -> bool:
    return node.outputs[0].is_graph_output()


def _slots(node: ir.Node, dtype: CastType, opset: int) -> Slots | str:
    """What of the node can change its type, or why nothing can."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()):
        return "it holds a subgraph"
    if any(not isinstance(value.type, ir.TensorType) for value in values):
        return "an element type around it is not known"
    if node.op_type in _TYPED_BY_ATTRIBUTE or "output_dtype" in node.attributes or _has_statistics(node):
        return "an attribute sets its element type"
    missing = f"{node.op_type} has no {dtype} form at opset {opset}"
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return missing
    inputs = _allowed(node.inputs, schema.inputs, dtype)
    outputs = _allowed(node.outputs, schema.outputs, dtype)
    wide = {index for index, value in enumerate(node.outputs) if _is_wide(value)}
    if wide != outputs or not (inputs or outputs):
        return missing
    return Slots(frozenset(inputs), frozenset(outputs))


def _has_statistics(node: ir.Node) -> bool:
    """Whether a normalization writes mean and deviation, whose type is its attribute `stash_type`."""
    return node.op_type == "LayerNormalization" and len(node.outputs) > 1


def _allowed(values: Iterable[ir.Value | None], formal: Any, dtype: CastType) -> set[int]:
    """Indices of the float32 values whose formal parameter knows the type; the last may be variadic."""
    return {
        index
        for index, value in enumerate(values)
        if _is_wide(value) and f"tensor({dtype})" in formal[min(index, len(formal) - 1)].types
    }


def _size_values(graph: ir.Graph) -> set[ir.Value]:
    """Values computed from nothing but sizes: 16 bits would miscount from 2,048 (float16) or 256 on."""
    sizes: set[ir.Value] = set()
    for node in graph:
        sources = [value for value in node.inputs if value is not None and not is_constant(value)]
        moves_data = node.op_type in _SELECTING and node.op_type != "Concat"
        data = node.inputs[:1] if moves_data else sources
        if node.op_type in ("Shape", "Size") or (data and all(value in sizes for value in (*data, *sources))):
            sizes.update(node.outputs)
    return sizes


def _constants_reason(node: ir.Node, slots: Slots, dtype: CastType) -> str | None:
    for index in sorted(slots.inputs):
        value = node.inputs[index]
        array = constant_of(value)
        if array is None or value is None:
            continue
        if node.op_type in _PAIRS and not _is_lifted(node):
            reason = _scale_reason(array, dtype)
        else:
            reason = None if node.op_type in _PAIRS else _rounding_reason(array, dtype)
        if reason is not None:
            return f"its constant {value.name!r} {reason}"
    return None


def _rounding_reason(array: Array, dtype: CastType) -> str | None:
    finite = array[np.isfinite(array)]
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > largest_of(dtype):
        return f"reaches {largest:.3g}, beyond {dtype}"
    loss = float(np.linalg.norm(finite.astype(dtypes_of(dtype)).astype(np.float32) - finite))
    if loss > LARGEST_LOSS * float(np.linalg.norm(finite)):
        return f"is too small for {dtype}"
    return None


def _scale_reason(array: Array, dtype: CastType) -> str | None:
    least = float(ml_dtypes.finfo(dtypes_of(dtype)).smallest_normal)
    if float(array.min()) >= least and float(array.max()) <= largest_of(dtype):
        return None
    return f"is no normal number in {dtype} ({float(array.min()):.3g} to {float(array.max()):.3g})"


def _is_lifted(node: ir.Node) -> bool:
    """Whether the node holds stored integers per channel, which can take a larger scale."""
    return (
        node.op_type == "DequantizeLinear"
        and is_constant(node.inputs[0])
        and node.inputs[1] is not None
        and is_constant(node.inputs[1])
    )


def _keep_together(graph: ir.Graph, slots: dict[str, Slots], kept: dict[str, str]) -> None:
    changed = True
    while changed:
        changed = False
        for node in graph:
            for name, reason in (*_tied(node, slots), *_stranded(node, slots)):
                if slots.pop(name, None) is not None:
                    kept[name] = reason
                    changed = True


def _tied(node: ir.Node, slots: Mapping[str, Slots]) -> Iterator[tuple[str, str]]:
    """A DequantizeLinear and its readers, all of them, where one of them stays in float32."""
    if node.op_type != "DequantizeLinear" or not _is_wide(node.outputs[0]):
        return
    group = [node, *(usage.node for usage in node.outputs[0].uses())]
    staying = next((member for member in group if _name(member) not in slots), None)
    if staying is not None:
        yield from ((_name(member), f"it is quantized together with {_name(staying)}") for member in group)


def _stranded(node: ir.Node, slots: Mapping[str, Slots]) -> Iterator[tuple[str, str]]:
    if node.op_type not in _SELECTING or _name(node) not in slots:
        return
    readers = [usage for output in node.outputs for usage in output.uses()]
    if not any(_is_narrow(value, slots) for value in node.inputs) and not any(
        _reads_narrow(usage, slots) for usage in readers
    ):
        yield _name(node), "it only moves values between float32 nodes"


def _is_narrow(value: ir.Value | None, slots: Mapping[str, Slots]) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or value is None or _name(producer) not in slots:
        return False
    return producer.outputs.index(value) in slots[_name(producer)].outputs


def _reads_narrow(usage: ir.Usage, slots: Mapping[str, Slots]) -> bool:
    found = slots.get(_name(usage.node))
    return found is not None and usage.idx in found.inputs


def _write_narrow(edit: _Edit, value: ir.Value) -> None:
    """Let the value be of the narrow type, and give who needs float32 one Cast of it."""
    value.type = ir.TensorType(_TYPES[edit.plan.dtype])
    wide = [usage for usage in value.uses() if not _reads_narrow(usage, edit.plan.slots)]
    outputs, name = edit.output_places(value), value.name or ""
    if wide or outputs:
        value.name = edit.free(f"{name}_{edit.plan.dtype}") if outputs else name
        back = edit.cast(value, ir.DataType.FLOAT, name if outputs else edit.free(f"{name}_float32"))
        edit.rewire(wide, back, outputs)


def _there_and_back(edit: _Edit, value: ir.Value, name: str) -> ir.Value:
    low = edit.cast(value, _TYPES[edit.plan.dtype], edit.free(f"{value.name}_{edit.plan.dtype}"))
    return edit.cast(low, ir.DataType.FLOAT, name)


def _join_casts(graph: ir.Graph, dtype: ir.DataType) -> None:
    """Read a narrow value itself where it went to float32 and back, which changes nothing."""
    for node in list(graph):
        source = node.inputs[0].producer() if node.op_type == "Cast" and node.inputs[0] is not None else None
        if source is None or source.op_type != "Cast" or node.outputs[0].is_graph_output():
            continue
        origin = source.inputs[0]
        if origin is not None and origin.dtype == dtype == node.outputs[0].dtype and _is_wide(node.inputs[0]):
            node.outputs[0].replace_all_uses_with(origin)
            graph.remove(node, safe=True)
            if not source.outputs[0].uses() and not source.outputs[0].is_graph_output():
                graph.remove(source, safe=True)
