"""Which quantized nodes the compiled engine computes in float all the same, and why.

A quantized node is not always a quantized layer. The compiler falls back without a word; the reasons here are
what lint knows of the node, or of its operator.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from jettison.core.targets import Target
from jettison.engines.tensorrt.lint.finding import Finding
from jettison.engines.tensorrt.lint.lint import lint
from jettison.engines.tensorrt.lint.pairs import WEIGHTED, Quantizer, origin, quantizer_of
from jettison.engines.tensorrt.report import AuditedLayer, LayerPrecision
from jettison.engines.tensorrt.shares import precision_by_node

_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_MEANT_FLOAT = frozenset({ir.DataType.INT4, ir.DataType.FLOAT4E2M1})
"""Types of weights that are decompressed on purpose, where only the weight is quantized."""
_BY_OPERATOR = {
    "ConvTranspose": "TensorRT-RTX has no integer kernel for ConvTranspose; TensorRT has one for some shapes",
}
_UNKNOWN = "the compiler chose so, and does not say why: often the layer is too narrow, or float was faster"


def fallbacks(model: ir.Model, layers: Sequence[LayerPrecision], target: Target) -> tuple[AuditedLayer, ...]:
    """The layers with quantized inputs that are computed in float, in the graph's order.

    Args:
        model: What was compiled.
        layers: The compiler's list of layers; nodes that it does not name are left out.
        target: Where the model shall run.
    """
    halves = {node: _halves(node) for node in model.graph if node.op_type in WEIGHTED}
    wanted = {node: found for node, found in halves.items() if any(found)}
    computed = precision_by_node(layers, [node.name for node in wanted if node.name])
    findings = lint(model, target) if any(dtype in _FLOATS for dtype in computed.values()) else ()
    return tuple(
        AuditedLayer(
            node=str(node.name),
            operator=node.op_type,
            computed_in=computed[node.name],
            reason=_reason(node, found, findings),
        )
        for node, found in wanted.items()
        if node.name and computed.get(node.name) in _FLOATS and not _is_meant(found)
    )


def _halves(node: ir.Node) -> tuple[Quantizer | None, ...]:
    """What dequantizes each of the first two inputs."""
    makers = [None if value is None else origin(value).producer() for value in node.inputs[:2]]
    return tuple(
        quantizer_of(maker) if maker is not None and maker.op_type == "DequantizeLinear" else None
        for maker in makers
    )


def _is_meant(halves: tuple[Quantizer | None, ...]) -> bool:
    return halves[0] is None and halves[1] is not None and halves[1].stored in _MEANT_FLOAT


def _reason(node: ir.Node, halves: tuple[Quantizer | None, ...], findings: Sequence[Finding]) -> str:
    names = {node.name, *(half.node.name for half in halves if half is not None)}
    for half in halves:
        maker = None if half is None else half.source.producer()
        names |= {maker.name} if maker is not None else set()
    for finding in findings:
        if finding.node in names and finding.code in _CAUSES:
            return f"{finding.code}: {finding.reason}"
    return _BY_OPERATOR.get(node.op_type, _UNKNOWN)


_CAUSES = frozenset({"T118", "T119", "T207", "T208", "T211"})
"""Checks whose fault makes a layer fall back to float."""
