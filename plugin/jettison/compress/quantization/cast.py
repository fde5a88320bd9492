"""The passes `{quantize: float16}` and `{quantize: bfloat16}`: 16-bit floats, with float32 islands.

TensorRT 11 is strongly typed: what the graph leaves in float32 stays in float32, so 16 bits are written into
it. Islands stay in float32 for one of two reasons, both measured: values that come near the end of
float16's range on the samples, and nodes whose rounding the outputs show. No operator is kept by its name:
on an EfficientNet-Lite0 and a MiniLM nothing but two guards of divisions had to stay (45 and 57 dB).
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.layers import KINDS
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.batching import fitting_batches, fixed_batch_size
from jettison.core.errors import ModelError, SamplesError
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.sqnr import SqnrMeter
from jettison.graph.cast import (
    IDLE_REASONS,
    PAIRS,
    CastPlan,
    CastType,
    cast_nodes,
    largest_of,
    plan_cast,
    simulate_cast,
    without_activation_pairs,
)
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

SCORED_SAMPLES = 32
"""Samples on which outputs are compared. Which 32 of 128 it is moves the SQNR by 0.2 to 0.7 dB (one standard
deviation; EfficientNet-Lite0 and MiniLM, both types)."""

LARGEST_SEARCH = 64
"""Simulated trials at most: one culprit among 200 nodes takes about 20."""

LEAST_GAIN = 0.2
"""An island must take away this share of the noise (1 dB): it costs two casts and breaks a fusion."""

_SMALL_ISLAND = 8
"""Segments up to so many nodes are kept whole where no part of them does half as well."""
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
        notes = (*self._notes(piece, model), *found.notes(self), *_island_notes(kept))
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


@dataclass
class Scorer:
    """How much of the outputs is noise when nodes are cast, by simulation; `trials` counts the runs."""

    view: ir.Model
    dtype: CastType
    batches: tuple[Arrays, ...]
    references: tuple[Arrays, ...]
    threads: int = 0
    trials: int = 0

    def noise(self, keep_float: frozenset[str]) -> float | None:
        """Noise over signal of the worst output, 0 to 1; None where no output is a float with a signal."""
        self.trials += 1
        simulated = simulate_cast(self.view, self.dtype, keep_float)
        runner = runner_of(simulated, threads=self.threads, optimize=False)
        meter = SqnrMeter()
        for inputs, reference in zip(self.batches, self.references, strict=True):
            meter.add(reference, runner.run(inputs))
        return None if meter.db is None else _share(meter.db)


def scorer_of(piece: Workpiece, view: ir.Model, samples: Samples, *, dtype: CastType) -> Scorer:
    """A scorer against the piece's own outputs, on samples spread over all that there are."""
    batch = fixed_batch_size(input_specs(view)) or 1
    wanted = max(SCORED_SAMPLES // batch, 1)
    step = max(samples.count // batch // wanted, 1)
    fitting = fitting_batches(samples, input_specs(view))
    batches = tuple(itertools.islice(fitting, 0, wanted * step, step))
    original = without_activation_pairs(piece.model)
    runner = runner_of(original, threads=piece.threads, optimize=False)
    references = tuple(runner.run(inputs) for inputs in batches)
    return Scorer(view, dtype, batches, references, piece.threads)


@dataclass(frozen=True)
class Found:
    """What a search ended with: the islands, in the order found, and the outputs' SQNR before and after."""

    islands: tuple[str, ...] = ()
    before_db: float | None = None
    after_db: float | None = None
    trials: int = 0

    def notes(self, settings: CastModel) -> tuple[str, ...]:
        """The figures in words."""
        if self.after_db is None or self.before_db is None:
            return ("no output is a floating point number with a signal: only ranges were checked",)
        text = f"outputs at {self.after_db:.1f} dB of the float32 model's, simulated on calibration samples"
        if self.islands:
            text += f"; {self.before_db:.1f} dB without islands, which {self.trials} trials found"
        if self.after_db >= settings.least_sqnr_db:
            return (text,)
        return (text, f"below the {settings.least_sqnr_db:g} dB asked for, and no small island would mend it")


def search(scorer: Scorer, candidates: Sequence[str], kept: frozenset[str], *, least_db: float) -> Found:
    """The islands that bring the outputs to `least_db`, found by halving the graph again and again.

    Each round follows the part (first half, middle, last half) whose return to float32 takes most noise
    away. Both ends of a loss (a sum and the difference behind it) often must return together, so a short
    part is kept whole where its halves do not do half as well.
    """
    start = scorer.noise(kept)
    if start is None:
        return Found()
    islands: list[str] = []
    noise = start
    while noise > _share(least_db) and scorer.trials < LARGEST_SEARCH:
        rest = [name for name in candidates if name not in islands]
        part, after = _culprit(scorer, rest, kept | set(islands), noise)
        is_large = len(islands) + len(part) > max(len(candidates) // 2, 1)
        if is_large or after > noise * (1 - LEAST_GAIN):
            break
        islands, noise = [*islands, *part], after
    return Found(tuple(islands), _db(start), _db(noise), scorer.trials)


def _culprit(
    scorer: Scorer, part: Sequence[str], kept: frozenset[str], noise: float
) -> tuple[Sequence[str], float]:
    """The smallest part found whose return to float32 takes most of the noise away, and the noise then."""
    after = 0.0
    while len(part) > 1 and scorer.trials < LARGEST_SEARCH:
        half, quarter = (len(part) + 1) // 2, len(part) // 4
        parts = [part[:half], part[half:], *([part[quarter : quarter + half]] if quarter else [])]
        tried = [scorer.noise(kept | set(smaller)) or 0.0 for smaller in parts]
        best = min(range(len(parts)), key=tried.__getitem__)
        if len(part) <= _SMALL_ISLAND and noise - tried[best] < (noise - after) / 2:
            break
        part, after = parts[best], tried[best]
    return part, after


def _share(db: float) -> float:
    return float(10 ** (-db / 10))


def _db(share: float) -> float:
    return -10 * math.log10(max(share, 1e-15))


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
            integers = any(value is not None and _is_dequantized(value) for value in node.inputs)
            where = "float32" if stays else plan.dtype
            reason = f"integers carry it, {where} around it" if integers else f"computes in {where}"
            reason += f": {kept.get(name, plan.kept[name])}" if stays else ""
            decisions.append(
                LayerDecision(node=name, kind=node.op_type, quantized=integers or not stays, reason=reason)
            )
    return decisions


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
