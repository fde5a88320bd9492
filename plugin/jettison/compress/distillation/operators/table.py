"""THE table of operators that can be trained through, and the refusal of all others."""

from __future__ import annotations

import onnx_ir as ir

from jettison.compress.distillation.operators.elementwise import ELEMENTWISE
from jettison.compress.distillation.operators.node import Build, Compute, NoGradientError
from jettison.compress.distillation.operators.pools import POOLS
from jettison.compress.distillation.operators.products import PRODUCTS
from jettison.compress.distillation.operators.reductions import REDUCTIONS
from jettison.compress.distillation.operators.resize import RESIZE
from jettison.compress.distillation.operators.shapes import SHAPES

TABLE: dict[str, Build] = {**ELEMENTWISE, **PRODUCTS, **POOLS, **REDUCTIONS, **RESIZE, **SHAPES}
"""By ONNX's name in the default domain. QuantizeLinear and DequantizeLinear are in `distillation/qdq.py`."""

_BEFORE = "Train before the pass that brings it, as in [{train: labels}, {quantize: ...}]"
_LATER_PASSES = {
    "DynamicQuantizeLinear": _BEFORE,
    "MatMulInteger": _BEFORE,
    "ConvInteger": _BEFORE,
    "QLinearConv": "Give the model with QuantizeLinear and DequantizeLinear instead",
    "QLinearMatMul": "Give the model with QuantizeLinear and DequantizeLinear instead",
}
"""What to do where a quantizer brought the operator."""


def compute_of(node: ir.Node) -> Compute:
    """What the node computes.

    Raises:
        NoGradientError: It cannot be trained through, or not in this form.
    """
    build = TABLE.get(node.op_type) if node.domain == "" else None
    if build is None:
        instead = _LATER_PASSES.get(node.op_type) if node.domain == "" else None
        raise NoGradientError(node, "has no gradient here", *([instead] if instead else []))
    return build(node)
