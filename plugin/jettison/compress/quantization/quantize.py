"""The passes `{quantize: full}` and `{quantize: dynamic}`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.calibrate import Calibration, calibrate
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
from jettison.graph.judged import is_blind

_PLACES = {"cpu": place_for_cpu, "tensorrt": place_for_tensorrt}
_BLIND = (
    "no output of the model holds floats or comes from an ArgMax or TopK over floats, so no repair could be "
    "told from another: the first one was kept"
)
_HALF = "Quantize the float32 original; cast to float16 afterwards, or use {quantize: float16} alone"


def place(
    graph: ir.Graph,
    dialect: Dialect,
    keep_in_float: frozenset[str] = frozenset(),
    *,
    attention: bool = False,
) -> Placement:
    """Where pairs stand in this graph for that dialect; with `attention` also on products of activations."""
    return _PLACES[dialect](graph, keep_in_float, attention=attention)


class QuantizeFull(BaseModel):
    """Static INT8 for every layer that can take it: weights per channel, activations per tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["full"] = "full"
    ranges: RangeMethod | Literal["measure"] = "max"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    repair: Effort = "none"
    keep_float: tuple[str, ...] = ()
    attention: Literal["float", "int8"] = "float"

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a model without a layer that integers can carry, and names that match none.

        With `attention: int8` also a model and target without a product of activations that they can carry.
        """
        graph = piece.model.graph
        if (refusal := refuse_unfit(graph, self.keep_float)) is not None:
            return refusal
        placement = self._placement(piece)
        decisions = placement.layers
        if any(decision.quantized for decision in decisions):
            return self._without_products(placement)
        half = any(layer.refusal and "FLOAT16" in layer.refusal for layer in find_layers(graph))
        return without_layers(
            ((decision.kind, decision.reason) for decision in decisions),
            instead=_HALF if half else "Serve it in float, or try {quantize: float16}",
        )

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with Q/DQ pairs and INT8 weights, in the target's dialect; notes tell the repairs."""
        kept, dialect = kept_layers(piece.model.graph, self.keep_float), piece.target.dialect
        attention = self.attention == "int8"
        if attention:
            piece = _observing_attention(piece)
        methods = MEASURED_RANGES if self.ranges == "measure" else (self.ranges,)
        chosen = choose_repairs(
            piece,
            samples,
            lambda graph: place(graph, dialect, kept, attention=attention),
            choices=[RangeChoice(method, self.percentile) for method in methods],
            effort=self.repair,
        )
        placement = place(chosen.repairs.model.graph, dialect, kept, attention=attention)
        layers = (*placement.layers, *placement.products)
        return PassResult(
            chosen.repairs.quantize(placement),
            layers=layers,
            notes=chosen.notes,
            warnings=(_BLIND,) if chosen.notes and is_blind(piece.model) else (),
            counterpart=chosen.repairs.counterpart,
        )

    def _without_products(self, placement: Placement) -> Refusal | None:
        """Refuses `attention: int8` where not one product of activations can be quantized."""
        products = placement.products
        if self.attention == "float" or any(product.quantized for product in products):
            return None
        reasons = sorted({f"attention: {product.reason}" for product in products})
        return Refusal(
            reasons=tuple(reasons) or ("attention: the model has no product of two activations",),
            instead="Leave out `attention: int8`",
        )

    def _placement(self, piece: Workpiece) -> Placement:
        graph = piece.model.graph
        kept = kept_layers(graph, self.keep_float)
        return place(graph, piece.target.dialect, kept, attention=self.attention == "int8")


def _observing_attention(piece: Workpiece) -> Workpiece:
    """The piece with a calibration of its own: the shared one leaves out the operands of attention."""

    def observing(model: ir.Model, samples: Samples) -> Calibration:
        return calibrate(model, samples, threads=piece.threads, progress=piece.progress, attention=True)

    return replace(piece, calibrate=observing)


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
