"""Joint evaluations for passes that search: the score of a model on samples the verdict never uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.passes import Measurement
from jettison.core.memory import trim
from jettison.core.targets import Target
from jettison.core.tensors import format_shape
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.interval import paired_interval
from jettison.evaluate.scoring import Scores, score
from jettison.pipeline.proof import Court
from jettison.pipeline.steps import Bench


@dataclass(frozen=True)
class TimeBudget:
    """How many seconds are left for the searches of a run."""

    left_s: Callable[[], float]

    def share(self, searches: int) -> TimeBudget:
        """An equal share of what is left now, where so many searches are still to come, this one included.

        What a search leaves over falls to those behind it.
        """
        end_s = self.left_s() * (1 - 1 / searches)
        return TimeBudget(lambda: self.left_s() - end_s)


def bench_of(court: Court, target: Target, budget: TimeBudget | None = None) -> Bench:
    """What a search on that target judges by, and how long."""
    shapes = ", ".join(f"{name} {a.dtype} {format_shape(a.shape)}" for name, a in court.inputs.items())
    judged = f"{court.samples.sha256} {court.metric.identity} {court.gate.confidence} seed={court.seed}"
    left_s = None if budget is None else budget.left_s
    return Bench(measurer(court, target), court.gate.tolerance, f"{judged} {shapes}", left_s)


def _without_difference(baseline: Scores, court: Court) -> float:
    """The lower bound that a model gets which scores like the baseline on every sample."""
    values = baseline.values
    return paired_interval(values, values, confidence=court.gate.confidence, seed=court.seed).low


def measurer(court: Court, target: Target) -> Callable[[ir.Model], Measurement]:
    """A function that judges a model against the court's baseline on the court's samples."""

    def measure(model: ir.Model) -> Measurement:
        reference = court.reference.get()
        scores = score(
            runner_of(model, threads=court.steps.threads, optimize=not target.is_gpu),
            court.samples,
            metric=court.metric,
            reference=reference,
        )
        trim()
        baseline = court.steps.baseline_scores(court.samples, court.metric, reference=court.reference)
        interval = paired_interval(
            scores.values, baseline.values, confidence=court.gate.confidence, seed=court.seed
        )
        return Measurement(
            score_delta=interval.delta,
            score_delta_low=interval.low,
            sqnr_db=scores.sqnr_db,
            best_low=_without_difference(baseline, court),
        )

    return measure
