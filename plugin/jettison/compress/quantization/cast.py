"""The passes `{quantize: float16}` and `{quantize: bfloat16}`: 16-bit floats, with float32 islands.

TensorRT 11 is strongly typed: what the graph leaves in float32 stays in float32, so 16 bits are written into
it. Islands stay in float32 for one of two reasons, both measured: values that come near the end of
float16's range on the samples, and nodes whose rounding the outputs show. No operator is kept by its name:
on an EfficientNet-Lite0 and a MiniLM nothing but two guards of divisions had to stay (45 and 57 dB).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.islands import scorer_of, search
from jettison.compress.quantization.layers import KINDS
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.batching import fitting_batches
from jettison.core.errors import ModelError, SamplesError
from jettison.core.samples import Samples
from jettison.engines.onnxruntime import runner_of
from jettison.graph.cast import cast_nodes, simulate_cast, without_activation_pairs
from jettison.graph.cast_plan import IDLE_REASONS, CastPlan, plan_cast
from jettison.graph.cast_types import PAIRS, CastType, largest_of
from jettison.graph.model import input_specs, opset_of
from jettison.graph.observe import Observation, observed
from jettison.graph.opset import raise_opset

HEADROOM = 4.0
"""Values must stay this factor below the type's largest number on the samples. Extremes of 512 unseen samples
were up to 1.84 times those of 32 calibration samples (EfficientNet-Lite0, MiniLM); twice that."""

BFLOAT16_OPSET = 22
"""From here on convolutions, pooling and recurrent layers know bfloat16. Source: onnx/docs/Changelog.md."""

STANDS_FOR_INFINITY = 1e30
"""Constants beyond this are no quantities: exporters write float32's lowest number for a masked logit."""

_ONE_ELEMENT = 1 << 30
_NAMED = 6


class CastModel(BaseModel):
    """What both passes share; `least_sqnr_db` is what outputs must reach against the float32 model's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: CastType
    least_sqnr_db: float = Field(gt=0)
    keep_float: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses targets without such arithmetic, and models without a node that can be cast."""
        refusal = self._target_refusal(piece) or self._pattern_refusal(piece.model.graph)
        if refusal is not None:
            return refusal
        try:
            plan = plan_cast(prepared(piece.model, self.quantize), self.quantize)
        except ModelError as error:
            return Refusal(reasons=(error.detail,), instead=error.fix)
        if plan.slots:
            return None
        reasons = tuple(sorted(set(plan.kept.values()))) or (
            "the model has no node that computes in float32",
        )
        return Refusal(reasons=reasons, instead="Leave the pass out")

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model in 16-bit floats, inputs and outputs as before."""
        model = prepared(piece.model, self.quantize)
        view = without_activation_pairs(model)
        plan = plan_cast(view, self.quantize)
        kept = _overflowing(view, plan, samples, piece) if self.quantize == "float16" else {}
        kept |= dict.fromkeys(_matching(list(plan.slots), self.keep_float), "left as asked")
        pairs = {node.name for node in view.graph if node.op_type in PAIRS}
        candidates = [name for name in plan.slots if name not in kept and name not in pairs]
        scorer = scorer_of(piece, view, samples, dtype=self.quantize)
        found = search(scorer, candidates, frozenset(kept), least_db=self.least_sqnr_db)
        kept |= dict.fromkeys(found.islands, "its rounding shows in the outputs")
        result = cast_nodes(model, self.quantize, frozenset(kept))
        final = plan_cast(model, self.quantize, frozenset(kept))
        notes = (*self._notes(piece, model), *found.notes(self.least_sqnr_db), *_island_notes(kept))
        simulation = simulate_cast(model, self.quantize, frozenset(kept)) if piece.target.is_gpu else None
        decisions = tuple(_decisions(model.graph, final, kept))
        return PassResult(result, layers=decisions, notes=notes, simulation=simulation)

    def _target_refusal(self, piece: Workpiece) -> Refusal | None:
        if self.quantize == "bfloat16" and not piece.target.is_gpu:
            return Refusal(
                reasons=("ONNX Runtime has no bfloat16 kernels for the CPU",),
                instead="Use {quantize: full} for speed, or {quantize: float16} for a smaller file",
            )
        if self.quantize == "bfloat16" and piece.target.compute_capability == 75:
            return Refusal(
                reasons=("Turing (sm75) has no bfloat16 arithmetic",), instead="Use {quantize: float16}"
            )
        if not piece.target.is_gpu and any(node.op_type == "DequantizeLinear" for node in piece.model.graph):
            return Refusal(
                reasons=("ONNX Runtime's integer kernels for the CPU stand between float32 tensors only",),
                instead="Leave the pass out: the rest of a quantized model stays in float32 on the CPU",
            )
        return None

    def _pattern_refusal(self, graph: ir.Graph) -> Refusal | None:
        names = [node.name or "" for node in graph]
        for pattern in self.keep_float:
            if not _matching(names, (pattern,)):
                return Refusal(
                    reasons=(f"keep_float: {pattern!r} matches no node",),
                    instead=f"Nodes are {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}",
                )
        return None

    def _notes(self, piece: Workpiece, model: ir.Model) -> list[str]:
        notes = []
        if not piece.target.is_gpu:
            notes.append(
                "a smaller file, not a faster model: ONNX Runtime computes in float32 on the CPU and casts "
                "(1.05 to 1.25 times the time of float32 on an EfficientNet-Lite0 and a MiniLM)"
            )
        if self.quantize == "bfloat16":
            notes.append("needs a GPU from Ampere (sm80) on")
        if opset_of(model) > opset_of(piece.model):
            notes.append(f"opset {opset_of(model)}, the first one with {self.quantize} convolutions")
        if any(_endless(value).any() for value in piece.model.graph.initializers.values()):
            notes.append(f"constants that stand for infinity became {_soft_infinity(self.quantize):g}")
        return notes


class CastFloat16(CastModel):
    """16-bit floats with 11 bits of precision, up to 65,504: every NVIDIA GPU that is supported has them.

    40 dB is an error of 1 % of the outputs: INT8 leaves 15 to 30 dB, so this one is never the larger part.
    """

    quantize: Literal["float16"] = "float16"
    least_sqnr_db: float = Field(default=40.0, gt=0)


class CastBfloat16(CastModel):
    """16-bit floats with float32's range and 8 bits of precision: for models that float16 cannot hold.

    Three bits less are 18 dB less than float16 has. At 25 dB an EfficientNet-Lite0 still gives 97 % of its
    answers (benchmarks: INT8 at 25.6 dB, agreement 0.971).
    """

    quantize: Literal["bfloat16"] = "bfloat16"
    least_sqnr_db: float = Field(default=25.0, gt=0)


def prepared(model: ir.Model, dtype: CastType) -> ir.Model:
    """A copy at an opset that knows the type, with softer constants in place of stand-ins for infinity.

    Neither type holds float32's lowest number, by which exporters mask a logit. Half of what the range check
    allows is as good: exp(-8188) is 0 too, two masks add up within the range, and a row that is masked
    everywhere stays finite, where infinity would give NaN.

    Raises:
        ModelError: An operator cannot be converted to the newer opset.
    """
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if value.const_value is not None and (endless := _endless(value)).any():
            array = value.const_value.numpy()
            softened = np.where(endless, np.copysign(np.float32(_soft_infinity(dtype)), array), array)
            value.const_value = ir.tensor(softened, name=value.name)
    if dtype == "bfloat16" and opset_of(copy) < BFLOAT16_OPSET:
        raised = raise_opset(copy.clone(), BFLOAT16_OPSET)
        return raised if len(plan_cast(raised, dtype).slots) > len(plan_cast(copy, dtype).slots) else copy
    return copy


def _soft_infinity(dtype: CastType) -> float:
    return largest_of(dtype) / (2 * HEADROOM)


def _endless(value: ir.Value) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a constant holds finite numbers that stand for infinity."""
    if value.const_value is None or value.dtype != ir.DataType.FLOAT:
        return np.zeros(0, bool)
    array = np.asarray(value.const_value.numpy(), np.float32)
    return np.asarray(np.isfinite(array) & (np.abs(array) > STANDS_FOR_INFINITY), np.bool_)


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _overflowing(view: ir.Model, plan: CastPlan, samples: Samples, piece: Workpiece) -> dict[str, str]:
    """Nodes that read or write values too near the end of the range on these samples, with the reason."""
    touched: dict[str, list[str]] = {}
    for node in view.graph:
        if (slots := plan.slots.get(node.name or "")) is not None:
            values = [node.inputs[index] for index in sorted(slots.inputs)]
            values += [node.outputs[index] for index in sorted(slots.outputs)]
            names = [value.name for value in values if value is not None and value.const_value is None]
            touched[node.name or ""] = [name for name in names if name]
    extremes = _extremes(view, sorted({name for names in touched.values() for name in names}), samples, piece)
    end = largest_of(plan.dtype)
    return {
        node_name: f"{name!r} reaches {extremes[name]:.3g} on the samples, {plan.dtype} ends at {end:,.0f}"
        for node_name, names in touched.items()
        for name in names
        if extremes[name] > end / HEADROOM
    }


def _extremes(view: ir.Model, names: Sequence[str], samples: Samples, piece: Workpiece) -> dict[str, float]:
    """The largest finite magnitude of each value on the samples.

    Raises:
        SamplesError: A value became NaN in float32.
    """
    observations = [Observation(name, _ONE_ELEMENT) for name in names]
    runner = runner_of(observed(view, observations), threads=piece.threads)
    largest = dict.fromkeys(names, 0.0)
    for inputs in fitting_batches(samples, input_specs(view), progress=piece.progress):
        outputs = runner.run(inputs)
        for found in observations:
            ends = (float(outputs[found.lowest]), float(outputs[found.highest]))
            if math.isnan(float(outputs[found.total])) and ends != (-math.inf, math.inf):
                raise SamplesError(
                    "calibration",
                    detail=f"value {found.value!r} became NaN",
                    fix="Check the model in float on these samples: it breaks by itself",
                )
            finite = (abs(end) for end in ends if math.isfinite(end))
            largest[found.value] = max(largest[found.value], *finite)
    return largest


def _island_notes(kept: Mapping[str, str]) -> list[str]:
    if not kept:
        return []
    names = ", ".join(list(kept)[:_NAMED]) + (f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else "")
    return [f"{len(kept)} nodes kept in float32: {names}"]


def _decisions(graph: ir.Graph, plan: CastPlan, kept: Mapping[str, str]) -> list[LayerDecision]:
    """One for each weighted layer, and one for every other node that stays in float32, pairs aside."""
    decisions = []
    for node in graph:
        name = node.name or ""
        stays = plan.kept.get(name, IDLE_REASONS[0]) not in IDLE_REASONS and node.op_type not in PAIRS
        if stays or (name in plan.slots and node.op_type in KINDS):
            where = "float32" if stays else plan.dtype
            carried = _carried(node, where)
            reason = carried or f"computes in {where}"
            reason += f": {kept.get(name, plan.kept[name])}" if stays else ""
            is_quantized = carried is not None or not stays
            decisions.append(
                LayerDecision(node=name, kind=node.op_type, quantized=is_quantized, reason=reason)
            )
    return decisions


def _carried(node: ir.Node, where: str) -> str | None:
    """How a node computes whose inputs are quantized, in words; None where none is."""
    producers = [value.producer() for value in node.inputs if value is not None]
    stored = [
        found.inputs[0].dtype
        for found in producers
        if found is not None and found.op_type == "DequantizeLinear" and found.inputs[0] is not None
    ]
    if ir.DataType.INT4 in stored:
        return f"computes in {where} with INT4 weights"
    if stored:
        carrier = "FP8 carries it" if ir.DataType.FLOAT8E4M3FN in stored else "integers carry it"
        return f"{carrier}, {where} around it"
    return None
