"""The passes `{quantize: full}` and `{quantize: dynamic}`."""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.dynamic import dynamic_layers, quantize_dynamically
from jettison.compress.quantization.keep_float import kept_layers
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import Dialect, Placement
from jettison.compress.quantization.placement_cpu import place_for_cpu
from jettison.compress.quantization.placement_tensorrt import place_for_tensorrt
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.refusals import refuse_quantized, refuse_unfit, without_layers
from jettison.compress.quantization.repairs import MEASURED_RANGES, Effort, choose_repairs
from jettison.compress.quantization.static import RangeChoice
from jettison.core.samples import Samples

_PLACES = {"cpu": place_for_cpu, "tensorrt": place_for_tensorrt}
_HALF = "Quantize the float32 original; cast to float16 afterwards, or use {quantize: float16} alone"


def place(graph: ir.Graph, dialect: Dialect, keep_in_float: frozenset[str] = frozenset()) -> Placement:
    """Where pairs stand in this graph for that dialect."""
    return _PLACES[dialect](graph, keep_in_float)


class QuantizeFull(BaseModel):
    """Static INT8 for every layer that can take it: weights per channel, activations per tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["full"] = "full"
    ranges: RangeMethod | Literal["measure"] = "max"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    repair: Effort = "none"
    keep_float: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a model without a layer that integers can carry, and names that match none."""
        graph = piece.model.graph
        if (refusal := refuse_unfit(graph, self.keep_float)) is not None:
            return refusal
        decisions = self._placement(piece).layers
        if any(decision.quantized for decision in decisions):
            return None
        half = any(layer.refusal and "FLOAT16" in layer.refusal for layer in find_layers(graph))
        return without_layers(
            ((decision.kind, decision.reason) for decision in decisions),
            instead=_HALF if half else "Serve it in float, or try {quantize: float16}",
        )

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with Q/DQ pairs and INT8 weights, in the target's dialect; notes tell the repairs."""
        kept, dialect = kept_layers(piece.model.graph, self.keep_float), piece.target.dialect
        methods = MEASURED_RANGES if self.ranges == "measure" else (self.ranges,)
        chosen = choose_repairs(
            piece,
            samples,
            lambda graph: place(graph, dialect, kept),
            choices=[RangeChoice(method, self.percentile) for method in methods],
            effort=self.repair,
        )
        placement = place(chosen.repairs.model.graph, dialect, kept)
        return PassResult(chosen.repairs.quantize(placement), layers=placement.layers, notes=chosen.notes)

    def _placement(self, piece: Workpiece) -> Placement:
        graph = piece.model.graph
        return place(graph, piece.target.dialect, kept_layers(graph, self.keep_float))


class QuantizeDynamic(BaseModel):
    """INT8 weights, activations quantized at run time by ONNX Runtime: needs no samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["dynamic"] = "dynamic"

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses TensorRT, which has no such operator, and models without a product to quantize."""
        if piece.target.is_gpu:
            return Refusal(
                reasons=("TensorRT cannot run DynamicQuantizeLinear and MatMulInteger",),
                instead="Use {quantize: full}, or target cpu and serve it with Triton's ONNX Runtime backend",
            )
        if (refusal := refuse_quantized(piece.model.graph)) is not None:
            return refusal
        if not dynamic_layers(piece.model.graph):
            return Refusal(
                reasons=(
                    "ONNX Runtime quantizes MatMul, Gemm and LSTM with constant float32 weights dynamically, "
                    "and the model has none",
                ),
                instead="Use {quantize: full}",
            )
        return None

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model as ONNX Runtime's dynamic quantizer writes it; the samples are not used."""
        del samples
        return quantize_dynamically(piece.model)
