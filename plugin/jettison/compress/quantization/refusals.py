"""Refusals that passes of quantization share: models and settings that none of them can work with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from jettison.compress.passes import Refusal
from jettison.compress.quantization.keep_float import unmatched

_QUANTIZED = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits",
        "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip


def refuse_quantized(graph: ir.Graph) -> Refusal | None:
    """Refuses a model that somebody quantized before: its float weights are lost."""
    count = sum(node.op_type in _QUANTIZED for node in graph.all_nodes())
    if not count:
        return None
    return Refusal(
        reasons=(f"the model is quantized already: it has {count} nodes such as QuantizeLinear",),
        instead="Give the float model that it was made from, or serve this one as it is",
    )


def refuse_unfit(graph: ir.Graph, keep_float: Sequence[str]) -> Refusal | None:
    """Refuses a quantized model, and patterns of `keep_float` that match no layer."""
    return refuse_quantized(graph) or unmatched(graph, keep_float)


def without_layers(found: Iterable[tuple[str, str | None]], *, instead: str) -> Refusal:
    """Refuses a model of which no layer can be quantized, with each reason once.

    Args:
        found: Kind of each weighted layer, and why it stays in float.
        instead: What applies to the model.
    """
    reasons = sorted({f"{kind}: {reason}" for kind, reason in found})
    return Refusal(
        reasons=tuple(reasons) or ("the model has no layer with constant weights",), instead=instead
    )
