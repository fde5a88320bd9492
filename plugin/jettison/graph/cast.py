"""A float32 graph in 16-bit floats: which nodes can go, the edit itself, and its simulation in float32.

Casts stand at borders only, one for each value; inputs and outputs keep their types. ONNX Runtime on the
CPU is no judge of such a graph: it has no bfloat16 kernels, and around float16 nodes it computes in float32
and drops the casts between them (1.32: 0.3 + 1000 - 1000 gives 0.29999, in float16 it is 0.5). The
simulation is: every value that a cast node writes is rounded there and back, which it leaves in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from jettison.core import dtypes
from jettison.graph.edit import add_initializer, constant_of, free_name, int_attribute, is_constant, names_in
from jettison.graph.model import opset_of

CastType = Literal["float16", "bfloat16"]
Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_LOSS = 0.01
"""A constant that the cast changes by more than this share of its norm stays in float32.

Rounding alone changes it by at most 2^-11 (float16) or 2^-8 (bfloat16): more means that its values fell
among the subnormal numbers or vanished, as the 1e-12 of a guarded division does."""

_ONNX_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
_FLOATS = (ir.DataType.FLOAT, *_ONNX_TYPES.values())

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

PAIRS = ("QuantizeLinear", "DequantizeLinear")
_Place = tuple[ir.Node, int]


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
        if not any(_is_wide(value) for value in (*node.inputs, *node.outputs)) or _is_border(node):
            continue
        found = _slots(node, dtype, opset_of(model))
        if _name(node) in keep_float:
            kept[_name(node)] = "left in float32 as asked"
        elif isinstance(found, str):
            kept[_name(node)] = found
        elif node.outputs[0] in sizes and node.op_type not in ("Shape", "Size"):
            kept[_name(node)] = IDLE_REASONS[0]
        elif (reason := _constants_reason(node, found, dtype)) is not None:
            kept[_name(node)] = reason
        else:
            slots[_name(node)] = found
    while changes := {
        name: why for node in model.graph for name, why in _drawn(node, slots) if name in slots
    }:
        kept.update(changes)
        slots = {name: found for name, found in slots.items() if name not in changes}
    return CastPlan(dtype, slots, kept)


def cast_nodes(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> ir.Model:
    """A copy whose nodes compute in `dtype` as `plan_cast` tells; the model given stays as it is.

    The weights of cast nodes are stored in `dtype`. Casting a second time changes nothing.
    """
    edit = _Edit(model, plan_cast(model, dtype, keep_float))
    narrow = _ONNX_TYPES[dtype]
    for value in edit.narrow:
        value.type = ir.TensorType(narrow)
        wide = [place for place in _readers(value) if not edit.reads_narrow(place)]
        if wide or value.is_graph_output():
            edit.relay(value, wide, (ir.DataType.FLOAT,))
    for value, readers in edit.borders().items():
        edit.relay(value, readers, (narrow,))
    for node in edit.nodes:
        if node.op_type == "Cast" and edit.plan.slots[_name(node)].outputs:
            node.attributes["to"] = ir.AttrInt64("to", int(narrow))
    edit.convert_constants(stored=numpy_type(dtype))
    _join_casts(edit.model.graph, narrow)
    return edit.model


def simulate_cast(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> ir.Model:
    """A float32 copy that computes what `cast_nodes` would: run it without graph optimizations.

    Constants and the values that cast nodes read and write are rounded to `dtype`; sums inside a node stay
    in float32, as matrix units and normalizations keep them. What a DequantizeLinear writes is not rounded,
    since an integer kernel never does so.
    """
    edit = _Edit(model, plan_cast(model, dtype, keep_float))
    there_and_back = (_ONNX_TYPES[dtype], ir.DataType.FLOAT)
    for value in edit.narrow:
        producer = value.producer()
        if producer is not None and producer.op_type not in PAIRS:
            edit.relay(value, _readers(value), there_and_back)
    for value, readers in edit.borders().items():
        edit.relay(value, readers, there_and_back)
    edit.convert_constants(stored=np.dtype(np.float32))
    return edit.model


def without_activation_pairs(model: ir.Model) -> ir.Model:
    """A copy of a Q/DQ model whose activations are not quantized; weights stay as they are stored.

    For judging a cast alone: next to a quantizer, the smallest rounding flips whole integer steps.
    """
    copy = model.clone()
    for node in [node for node in copy.graph if node.op_type == "QuantizeLinear"]:
        readers = [usage.node for usage in node.outputs[0].uses()]
        outputs = [reader.outputs[0] for reader in readers if reader.op_type == "DequantizeLinear"]
        if len(outputs) == len(readers) and not any(value.is_graph_output() for value in outputs):
            for value in outputs:
                value.replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
            copy.graph.remove([*readers, node], safe=True)
    return copy


def numpy_type(dtype: CastType) -> np.dtype[Any]:
    """The numpy dtype of that name."""
    return next(row.numpy for row in dtypes.TABLE if row.name == dtype)


def largest_of(dtype: CastType) -> float:
    """The largest finite number of that type."""
    return float(ml_dtypes.finfo(numpy_type(dtype)).max)


def _name(node: ir.Node) -> str:
    return node.name or ""


def _is_wide(value: ir.Value | None) -> bool:
    """Whether the value is a float32 tensor; an optional output that is left out has no name."""
    is_tensor = value is not None and bool(value.name) and isinstance(value.type, ir.TensorType)
    return is_tensor and value is not None and value.dtype == ir.DataType.FLOAT


def _readers(value: ir.Value) -> list[_Place]:
    return [(usage.node, usage.idx) for usage in value.uses()]


def _is_border(node: ir.Node) -> bool:
    """Whether the node is a Cast between float types, which a cast before this one may have placed."""
    ends = (node.inputs[0], node.outputs[0]) if node.op_type == "Cast" else ()
    return bool(ends) and all(value is not None and value.dtype in _FLOATS for value in ends)


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
    wide = {index for index, value in enumerate(node.outputs) if _is_wide(value)}
    if wide != outputs or not (inputs or outputs):
        return f"{node.op_type} has no {dtype} form at opset {opset}"
    return Slots(frozenset(inputs), frozenset(outputs))


def _allowed(values: Iterable[ir.Value | None], formal: Sequence[Any], dtype: CastType) -> set[int]:
    """Indices of the float32 values whose formal parameter knows the type; the last may be variadic."""
    return {
        index
        for index, value in enumerate(values)
        if _is_wide(value) and f"tensor({dtype})" in formal[min(index, len(formal) - 1)].types
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
    lifted = _lifted(node, dtype)
    for index in sorted(slots.inputs):
        array = constant_of(node.inputs[index])
        if array is not None:
            if node.op_type in PAIRS:
                reason = _scale_reason(array if lifted is None else lifted[1], dtype)
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


def _scale_reason(array: Array, dtype: CastType) -> str | None:
    least, largest = float(array.min()), float(array.max())
    if least >= float(ml_dtypes.finfo(numpy_type(dtype)).smallest_normal) and largest <= largest_of(dtype):
        return None
    return f"holds scales of {least:.3g} to {largest:.3g}, which are no normal numbers in {dtype}"


def _lifted(node: ir.Node, dtype: CastType) -> tuple[Array, Array] | None:
    """Integers and scales of a stored weight, tiny scales raised to the type's smallest normal number.

    A dead channel has a tiny scale for no reason (its integers are all zero), and as zero TensorRT would
    refuse it. None where no scale is tiny, or where coarser integers would lose too much.
    """
    arrays = [constant_of(value) for value in node.inputs]
    if node.op_type != "DequantizeLinear" or int_attribute(node, "block_size", 0):
        return None
    integers, scales = arrays[:2]
    if integers is None or scales is None or any(np.any(zero_point) for zero_point in arrays[2:]):
        return None
    raised = np.maximum(scales, np.float32(ml_dtypes.finfo(numpy_type(dtype)).smallest_normal))
    if np.array_equal(raised, scales):
        return None
    shape = [1] * integers.ndim
    if scales.ndim:
        shape[int_attribute(node, "axis", 1)] = -1
    exact = integers.astype(np.float32) * scales.reshape(shape)
    coarse = np.rint(exact / raised.reshape(shape))
    lost = np.linalg.norm(coarse * raised.reshape(shape) - exact)
    return None if lost > LARGEST_LOSS * np.linalg.norm(exact) else (coarse.astype(integers.dtype), raised)


def _drawn(node: ir.Node, slots: Mapping[str, Slots]) -> Iterator[tuple[str, str]]:
    """Nodes that stay because of their neighbours, each with the reason."""
    readers = [usage.node for output in node.outputs for usage in output.uses()]
    if node.op_type == "DequantizeLinear":
        group = [node, *readers]
        staying = next((_name(member) for member in group if _name(member) not in slots), None)
        if staying is not None:
            yield from ((_name(member), f"it is quantized together with {staying}") for member in group)
    elif node.op_type in _SELECTING:
        sources = [value.producer() for value in node.inputs if value is not None]
        if not any(_name(other) in slots for other in (*sources, *readers) if other is not None):
            yield _name(node), IDLE_REASONS[1]


def _join_casts(graph: ir.Graph, dtype: ir.DataType) -> None:
    """Read a narrow value itself where it went to float32 and back, which changes nothing."""
    for node in [node for node in graph if _is_border(node) and node.outputs[0].dtype == dtype]:
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is None or not _is_border(source) or node.outputs[0].is_graph_output():
            continue
        origin = source.inputs[0]
        if origin is not None and origin.dtype == dtype:
            node.outputs[0].replace_all_uses_with(origin)
            graph.remove(node, safe=True)
            if not source.outputs[0].uses() and not source.outputs[0].is_graph_output():
                graph.remove(source, safe=True)


class _Edit:
    """A copy of a model under change; `narrow` are the values that nodes of the plan write."""

    def __init__(self, model: ir.Model, plan: CastPlan) -> None:
        self.model, self.plan = model.clone(), plan
        self.nodes = [node for node in self.model.graph if _name(node) in plan.slots]
        self.narrow = {
            node.outputs[index]: None
            for node in self.nodes
            for index in sorted(plan.slots[_name(node)].outputs)
        }
        self._taken = names_in(model) | {_name(node) for node in model.graph}

    def reads_narrow(self, place: _Place) -> bool:
        """Whether that input changes its type."""
        found = self.plan.slots.get(_name(place[0]))
        return found is not None and place[1] in found.inputs

    def borders(self) -> dict[ir.Value, list[_Place]]:
        """Float32 values that are no constants, with the inputs that read them as narrow ones."""
        return {
            value: places
            for value, places in self._inputs().items()
            if not is_constant(value) and value not in self.narrow
        }

    def relay(self, value: ir.Value, readers: list[_Place], types: tuple[ir.DataType, ...]) -> None:
        """Let the readers take the value through Casts; so does a graph output that a plan's node writes."""
        outputs = self.model.graph.outputs
        places = [place for place, output in enumerate(outputs) if output is value and value in self.narrow]
        name, last, after = value.name or "", value, value.producer()
        if places:
            value.name = free_name(f"{name}_{self.plan.dtype}", self._taken)
        for dtype in types:
            is_end = bool(places) and dtype == types[-1]
            last_name = name if is_end else free_name(f"{name}_{dtype.name.lower()}", self._taken)
            node = ir.node(
                "Cast", [last], {"to": int(dtype)}, name=free_name(f"{last_name}_Cast", self._taken)
            )
            last, after = self._place(node, after), node
            last.name, last.shape, last.type = last_name, value.shape, ir.TensorType(dtype)
        for place in places:
            outputs[place] = last
        for node, index in readers:
            node.replace_input_with(index, last)

    def convert_constants(self, *, stored: np.dtype[Any]) -> None:
        """Round the constants that nodes of the plan read, and store them in `stored`."""
        for node in self.nodes:
            lifted = _lifted(node, self.plan.dtype)
            for index, content in enumerate(lifted or ()):
                node.replace_input_with(index, self._constant(f"{_name(node)}_{index}", content))
        for value, places in self._inputs().items():
            array = constant_of(value)
            if array is not None:
                rounded = array.astype(numpy_type(self.plan.dtype)).astype(stored)
                replaced = self._constant(f"{value.name}_{self.plan.dtype}", rounded)
                for node, index in places:
                    node.replace_input_with(index, replaced)
        for name, value in list(self.model.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.model.graph.initializers[name]

    def _inputs(self) -> dict[ir.Value, list[_Place]]:
        """What nodes of the plan read as narrow values, with the inputs that read it."""
        found: dict[ir.Value, list[_Place]] = {}
        for node in self.nodes:
            for index in sorted(self.plan.slots[_name(node)].inputs):
                value = node.inputs[index]
                if value is not None:
                    found.setdefault(value, []).append((node, index))
        return found

    def _constant(self, name: str, array: Array) -> ir.Value:
        return add_initializer(self.model.graph, free_name(name, self._taken), array)

    def _place(self, node: ir.Node, after: ir.Node | None) -> ir.Value:
        graph = self.model.graph
        if after is not None:
            graph.insert_after(after, node)
        else:
            graph.insert_before(graph[0], node)
        return node.outputs[0]
