"""Dynamic quantization by ONNX Runtime's own quantizer, kept from saturating."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from jettison.compress.passes import PassResult
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import LayerDecision
from jettison.engines.onnxruntime import dynamic_quantizer
from jettison.graph.edit import is_constant
from jettison.graph.model import open_model
from jettison.graph.save import save_model

OPERATORS = ("MatMul", "Gemm", "LSTM")
"""Operators with an integer kernel that is faster than float. ConvInteger is slower than float Conv."""


def dynamic_layers(graph: ir.Graph) -> tuple[str, ...]:
    """Names of the nodes that dynamic quantization reaches: those with constant float32 weights."""
    return tuple(
        node.name or ""
        for node in graph
        if node.op_type in OPERATORS and node.domain == "" and _has_float_weight(node)
    )


def _has_float_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return weight is not None and is_constant(weight) and weight.dtype == ir.DataType.FLOAT


def quantize_dynamically(model: ir.Model) -> PassResult:
    """The model with INT8 weights and activations quantized at run time.

    Weights use 7 bits, so that the 16-bit pair sums of x86 kernels without VNNI cannot saturate.
    """
    reached = dynamic_layers(model.graph)
    with tempfile.TemporaryDirectory(prefix="jettison-") as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        save_model(model, source)
        dynamic_quantizer()(source, result, op_types=OPERATORS)
        quantized = open_model(result)
        for value in quantized.graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    layers = tuple(
        LayerDecision(
            node=layer.name,
            kind=layer.kind,
            quantized=layer.name in reached,
            reason="integers at run time" if layer.name in reached else "no fast dynamic kernel for it",
        )
        for layer in find_layers(model.graph)
    )
    return PassResult(quantized, layers=layers, notes=("weights in 7 bits, which no kernel saturates",))
