"""Multiply-accumulates of the weighted operators: what a layer costs before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from jettison.core.errors import ModelError
from jettison.graph.edit import int_attribute
from jettison.graph.shapes import ShapeTable

Shape = tuple[int, ...]


def macs_by_node(model: ir.Model, shapes: ShapeTable) -> dict[str, int]:
    """Multiply-accumulates of every Conv, ConvTranspose, Gemm and MatMul of the main graph, by node name.

    Biases and activations are not counted.

    Raises:
        ModelError: The shape of an input or output of such a node is not in the table.
    """
    counted = [node for node in model.graph if node.domain == "" and node.op_type in _COUNTERS]
    return {node.name or "": _COUNTERS[node.op_type](node, shapes) for node in counted}


def total_macs(model: ir.Model, shapes: ShapeTable) -> int:
    """Multiply-accumulates of the whole main graph.

    Raises:
        ModelError: As `macs_by_node`.
    """
    return sum(macs_by_node(model, shapes).values())


def _shape(node: ir.Node, value: ir.Value | None, shapes: ShapeTable) -> Shape:
    name = "" if value is None or value.name is None else value.name
    if name not in shapes:
        raise ModelError(
            f"node {node.name!r} ({node.op_type})",
            detail=f"the shape of {name!r} is not known",
            fix="Infer the shapes with a probe, which runs the model once",
        )
    return shapes[name].shape


def _conv(node: ir.Node, shapes: ShapeTable) -> int:
    weight = _shape(node, node.inputs[1], shapes)
    return math.prod(_shape(node, node.outputs[0], shapes)) * math.prod(weight[1:])


def _conv_transpose(node: ir.Node, shapes: ShapeTable) -> int:
    weight = _shape(node, node.inputs[1], shapes)
    return math.prod(_shape(node, node.inputs[0], shapes)) * math.prod(weight[1:])


def _gemm(node: ir.Node, shapes: ShapeTable) -> int:
    left = _shape(node, node.inputs[0], shapes)
    inner = left[0 if int_attribute(node, "transA", 0) else 1]
    return math.prod(_shape(node, node.outputs[0], shapes)) * inner


def _matmul(node: ir.Node, shapes: ShapeTable) -> int:
    return math.prod(_shape(node, node.outputs[0], shapes)) * _shape(node, node.inputs[0], shapes)[-1]


_COUNTERS: dict[str, Callable[[ir.Node, ShapeTable], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
"""How each operator counts: outputs times the length of one sum (inputs times fan-out when transposed)."""
