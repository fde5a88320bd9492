"""A float ONNX as the rest of Jettison wants it: new enough, folded, without dead parts, all of it named."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from jettison.core.errors import ModelError
from jettison.graph.batchnorm import fold_batchnorm
from jettison.graph.dimensions import name_dimensions
from jettison.graph.edit import add_initializer, free_name, int_attribute, is_constant, names_in
from jettison.graph.inference import infer_symbolic, is_unnamed
from jettison.graph.linear import merge_bias
from jettison.graph.opset import raise_opset
from jettison.graph.save import IR_VERSION

MIN_CLEAN_OPSET = 19
"""Oldest opset whose QuantizeLinear takes float16 scales. Source: onnx/docs/Changelog.md, opset 19."""

_GROWTH_LIMIT = 1 << 16
"""Elements that folding may add per constant: shapes and masks fold, no weight is blown up."""

_SHARED_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def clean(model: ir.Model, *, opset: int = MIN_CLEAN_OPSET) -> ir.Model:
    """A cleaned copy that computes the same; the model given stays as it is, weights are shared.

    Functions inlined; initializers no longer inputs; opset raised; constants, constant `If`, Identity,
    Dropout, BatchNormalization and the bias of a MatMul folded; unused nodes, outputs of nodes and
    initializers removed; dimensions and nodes named; shapes inferred.

    Raises:
        ModelError: An operator cannot be converted to the opset, or a constant cannot be computed.
    """
    copy = model.clone()
    copy.ir_version = max(IR_VERSION, copy.ir_version)
    common.RemoveInitializersFromInputsPass()(copy)
    name_dimensions(copy)
    copy = raise_opset(copy, opset)
    infer_symbolic(copy)
    fold_constants(copy)
    _settle_reshapes(copy)
    merge_bias(copy)
    fold_batchnorm(copy)
    remove_unused(copy)
    name_everything(copy)
    _share_small_constants(copy)
    infer_symbolic(copy)
    name_dimensions(copy)
    return copy


def fold_constants(model: ir.Model) -> None:
    """Compute what does not depend on inputs, in place; Constant nodes become initializers.

    Raises:
        ModelError: A constant part of the graph cannot be computed.
    """
    from onnxscript import optimizer

    try:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=1 << 40,
            output_size_limit=_GROWTH_LIMIT,
            should_fold=_should_fold,
        )
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise ModelError(
            f"model {model.graph.name!r}",
            detail=f"a constant part of the graph cannot be computed: {' '.join(str(error).split())}",
            fix="Simplify the model with its exporter, or export it again",
        ) from error
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    _drop_identities(model)


def _drop_identities(model: ir.Model) -> None:
    """Remove Identity nodes, in place; outputs keep their names, even where two are one value."""
    names = [value.name for value in model.graph.outputs]
    common.IdentityEliminationPass()(model)
    common.OutputFixPass()(model)
    for value, name in zip(model.graph.outputs, names, strict=True):
        value.name = name


def remove_unused(model: ir.Model) -> None:
    """Remove nodes, optional outputs of nodes, initializers and opset imports that nothing uses, in place."""
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def name_everything(model: ir.Model) -> None:
    """Give every node and value a unique, non-empty name, in place; unique names stay."""
    common.NameFixPass()(model)
    taken: set[str] = set()
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    for node in nodes:
        wanted = node.name if node.name and node.name != "node" else node.op_type
        node.name = free_name(wanted, taken)


def _should_fold(node: ir.Node) -> bool | None:
    output = node.outputs[0]
    held = sum(
        value.const_value.size for value in node.inputs if value is not None and value.const_value is not None
    )
    if output.shape is None or not output.shape.is_static():
        return False if node.op_type in ("Expand", "Tile", "Range", "Resize", "Pad") else None
    return None if math.prod(output.shape.numpy()) <= max(held, _GROWTH_LIMIT) else False


def _share_small_constants(model: ir.Model) -> None:
    seen: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if (
            tensor is None
            or tensor.dtype not in _SHARED_TYPES
            or tensor.size > 1024
            or value.is_graph_output()
        ):
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        first = seen.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            del model.graph.initializers[name]


def _settle_reshapes(model: ir.Model) -> None:
    """Make computed shapes of Reshape constants where proven: 0 for a size kept, -1 for one open size."""
    proven = model.clone()
    infer_symbolic(proven, trusts_file=False)
    shapes = {value.name: value.shape for node in proven.graph for value in node.outputs}
    shapes.update((value.name, value.shape) for value in proven.graph.inputs)
    taken = names_in(model)
    for node in model.graph:
        if node.op_type == "Reshape" and node.domain == "" and not is_constant(node.inputs[1]):
            sizes = _reshape_sizes(node, shapes)
            if sizes is not None:
                name = free_name(f"{node.outputs[0].name}_shape", taken)
                node.replace_input_with(1, add_initializer(model.graph, name, np.array(sizes, np.int64)))


def _reshape_sizes(node: ir.Node, shapes: dict[str | None, ir.Shape | None]) -> list[int] | None:
    source = None if node.inputs[0] is None else shapes.get(node.inputs[0].name)
    target = shapes.get(node.outputs[0].name)
    if source is None or target is None or int_attribute(node, "allowzero", 0):
        return None
    sizes = []
    for axis, size in enumerate(target):
        if isinstance(size, int):
            sizes.append(size)
        else:
            kept = axis < source.rank() and not is_unnamed(size) and source[axis] == size
            sizes.append(0 if kept else -1)
    return None if sizes.count(-1) > 1 or 0 in [size for size in target if isinstance(size, int)] else sizes
