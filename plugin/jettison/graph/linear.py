"""Joins a matrix product of two dimensions and the bias added to it into one Gemm.

    Add(MatMul(x, w), b) = Gemm(x, w, b)

ONNX Runtime joins them too, but before it looks at Q/DQ pairs: the product of integers and a float bias
then runs in float. As a Gemm, the layer has a bias that can be quantized with it.
Source: ONNX Runtime's MatMulAddFusion (a level 1 optimization); seen in 1.32.
"""

from __future__ import annotations

import onnx_ir as ir

from jettison.graph.edit import bypass, is_constant


def merge_bias(model: ir.Model) -> int:
    """The number of additions merged into the MatMul before them, in place; the node keeps its name."""
    merged = 0
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Add" and node.domain == "":
                merged += _merge(node)
    return merged


def _merge(addition: ir.Node) -> bool:
    for source, bias in (addition.inputs[:2], addition.inputs[1::-1]):
        product = source.producer() if source is not None else None
        if product is not None and source is not None and _is_host(product, source) and _fits(product, bias):
            product.op_type = "Gemm"
            product.resize_inputs(3)
            product.replace_input_with(2, bias)
            bypass(addition, source)
            return True
    return False


def _is_host(node: ir.Node, output: ir.Value) -> bool:
    """Whether the node multiplies a matrix by constant weights, for the addition alone."""
    if node.op_type != "MatMul" or node.domain != "" or not is_constant(node.inputs[1]):
        return False
    return (
        len(output.uses()) == 1
        and not output.is_graph_output()
        and all(value is not None and value.shape is not None for value in node.inputs)
        and all(value.shape.rank() == 2 for value in node.inputs)  # type: ignore[union-attr]
    )


def _fits(product: ir.Node, bias: ir.Value | None) -> bool:
    """Whether the bias is one number for each column."""
    weight = product.inputs[1]
    if bias is None or weight is None or weight.shape is None or bias.shape is None or not is_constant(bias):
        return False
    columns = weight.shape[1]
    return bias.dtype == weight.dtype and tuple(bias.shape) in ((columns,), (1, columns))
