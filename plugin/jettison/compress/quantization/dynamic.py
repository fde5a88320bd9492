"""Dynamic quantization by ONNX Runtime's own quantizer, kept from saturating."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from jettison.compress.passes import PassResult
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.compress.quantization.placement import LayerDecision
from jettison.engines.onnxruntime import dynamic_quantizer
from jettison.graph.clean import remove_unused
from jettison.graph.edit import (
    add_initializer,
    constant_of,
    float_attribute,
    free_name,
    int_attribute,
    is_constant,
    names_in,
)
from jettison.graph.model import open_model
from jettison.graph.save import save_model

OPERATORS = ("MatMul", "Gemm", "LSTM")
"""Operators with an integer kernel that is faster than float. ConvInteger is slower than float Conv."""


def dynamic_layers(graph: ir.Graph) -> tuple[str, ...]:
    """Names of the nodes that dynamic quantization reaches: those with constant float32 weights."""
    return tuple(
        node.name or ""
        for node in graph
        if node.op_type in OPERATORS and node.domain == "" and _has_float_weight(node) and _is_plain(node)
    )


def _has_float_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return weight is not None and is_constant(weight) and weight.dtype == ir.DataType.FLOAT


def _is_plain(node: ir.Node) -> bool:
    """Whether ONNX Runtime's quantizer can write a Gemm as MatMul and Add; it leaves others in float."""
    return node.op_type != "Gemm" or (
        float_attribute(node, "alpha", 1.0) == float_attribute(node, "beta", 1.0) == 1.0
        and not int_attribute(node, "transA", 0)
    )


def quantize_dynamically(model: ir.Model) -> PassResult:
    """The model with INT8 weights and activations quantized at run time.

    Weights use 7 bits, so that the 16-bit pair sums of x86 kernels without VNNI cannot saturate.
    """
    reached = dynamic_layers(model.graph)
    with tempfile.TemporaryDirectory(prefix="jettison-") as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        save_model(_with_straight_weights(model), source)
        dynamic_quantizer()(source, result, op_types=OPERATORS)
        quantized = open_model(result)
        for value in quantized.graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    layers = tuple(_decision(layer, reached) for layer in find_layers(model.graph))
    return PassResult(quantized, layers=layers, notes=("weights in 7 bits, which no kernel saturates",))


def _decision(layer: Layer, reached: tuple[str, ...]) -> LayerDecision:
    is_reached = layer.name in reached
    reason = "integers at run time" if is_reached else "no fast dynamic kernel for it"
    return LayerDecision(node=layer.name, kind=layer.kind, quantized=is_reached, reason=reason)


def _with_straight_weights(model: ir.Model) -> ir.Model:
    """A copy in which no Gemm transposes its weight, so that the quantizer need not.

    Before ONNX Runtime 1.32 it transposes in place: the shape that the file states is then a lie, at which
    its shape inference stops, and weights that two layers share are transposed twice, which is silent where
    they are square. Source: microsoft/onnxruntime issue 25890. Ends with a floor of 1.32, which needs
    Python 3.11.
    """
    copy = model.clone()
    taken = names_in(copy)
    for graph in copy.graphs():
        straight: dict[ir.Value, ir.Value] = {}
        for node in graph:
            weight = _transposed_weight(node)
            if weight is None:
                continue
            if weight not in straight:
                straight[weight] = _transposed(graph, weight, taken)
            node.replace_input_with(1, straight[weight])
            del node.attributes["transB"]
    remove_unused(copy)
    return copy


def _transposed_weight(node: ir.Node) -> ir.Value | None:
    is_transposing = node.op_type == "Gemm" and node.domain == "" and int_attribute(node, "transB", 0)
    return node.inputs[1] if is_transposing and is_constant(node.inputs[1]) else None


def _transposed(graph: ir.Graph, weight: ir.Value, taken: set[str]) -> ir.Value:
    array = constant_of(weight)
    if array is None:
        raise ValueError(f"{weight.name!r} is no constant")
    return add_initializer(graph, free_name(f"{weight.name}_transposed", taken), array.T)
