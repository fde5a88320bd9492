"""A float32 graph in 16-bit floats: the edit itself, and its simulation in float32.

Casts stand at borders only, one for each value; inputs and outputs keep their types. ONNX Runtime on the
CPU is no judge of such a graph: it has no bfloat16 kernels, and around float16 nodes it computes in float32
and drops the casts between them (1.32: 0.3 + 1000 - 1000 gives 0.29999, in float16 it is 0.5). The
simulation is: every value that a cast node writes is rounded there and back, which it leaves in place.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from jettison.graph.cast_edit import CastEdit, readers_of
from jettison.graph.cast_plan import name_of, plan_cast
from jettison.graph.cast_types import ONNX_TYPES, PAIRS, CastType, is_border, numpy_type


def cast_nodes(model: ir.Model, dtype: CastType, keep_float: frozenset[str] = frozenset()) -> ir.Model:
    """A copy whose nodes compute in `dtype` as `plan_cast` tells; the model given stays as it is.

    The weights of cast nodes are stored in `dtype`. Casting a second time changes nothing.
    """
    edit = CastEdit(model, plan_cast(model, dtype, keep_float))
    narrow = ONNX_TYPES[dtype]
    for value in edit.narrow:
        value.type = ir.TensorType(narrow)
        wide = [place for place in readers_of(value) if not edit.reads_narrow(place)]
        if wide or value.is_graph_output():
            edit.relay(value, wide, (ir.DataType.FLOAT,))
    for value, readers in edit.borders().items():
        edit.relay(value, readers, (narrow,))
    for node in edit.nodes:
        if node.op_type == "Cast" and edit.plan.slots[name_of(node)].outputs:
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
    edit = CastEdit(model, plan_cast(model, dtype, keep_float))
    there_and_back = (ONNX_TYPES[dtype], ir.DataType.FLOAT)
    for value in edit.narrow:
        producer = value.producer()
        if producer is not None and producer.op_type not in PAIRS:
            edit.relay(value, readers_of(value), there_and_back)
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


def _join_casts(graph: ir.Graph, dtype: ir.DataType) -> None:
    """Read a narrow value itself where it went to float32 and back, which changes nothing."""
    for node in [node for node in graph if is_border(node) and node.outputs[0].dtype == dtype]:
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is None or not is_border(source) or node.outputs[0].is_graph_output():
            continue
        origin = source.inputs[0]
        if origin is not None and origin.dtype == dtype:
            node.outputs[0].replace_all_uses_with(origin)
            graph.remove(node, safe=True)
            if not source.outputs[0].uses() and not source.outputs[0].is_graph_output():
                graph.remove(source, safe=True)
