"""Joint evaluations for passes that search: score and speed of a model on samples the verdict never uses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.passes import Measurement
from jettison.core.memory import trim
from jettison.core.runner import Runner
from jettison.core.targets import Target
from jettison.core.tensors import format_shape
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.interval import paired_interval
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.scoring import Scores, score
from jettison.pipeline.proof import Court
from jettison.pipeline.steps import Bench
from jettison.recipe import BASELINE

_QUICK = LatencyPlan(max_rounds=60, max_seconds=4.0, stable_share=0.02)
"""A search compares many models and needs each speed to a few percent; the verdict measures again."""


@dataclass(frozen=True)
class TimeBudget:
    """How many seconds all searches of a run may take together, and how many are left."""

    seconds: float
    left_s: Callable[[], float]


def bench_of(court: Court, target: Target, budget: TimeBudget | None = None) -> Bench:
    """What a search on that target judges by, and how long."""
    shapes = ", ".join(f"{name} {a.dtype} {format_shape(a.shape)}" for name, a in court.inputs.items())
    judged = f"{court.samples.sha256} {court.metric.identity} {court.gate.confidence} seed={court.seed}"
    limit, left_s = ("", None) if budget is None else (f" within {budget.seconds:g} s", budget.left_s)
    return Bench(measurer(court, target), court.gate.tolerance, f"{judged} {shapes}{limit}", left_s)


def _without_difference(baseline: Scores, court: Court) -> float:
    """The lower bound that a model gets which scores like the baseline on every sample."""
    values = baseline.values
    return paired_interval(values, values, confidence=court.gate.confidence, seed=court.seed).low


def measurer(court: Court, target: Target) -> Callable[[ir.Model], Measurement]:
    """A function that judges a model against the court's baseline on the court's samples."""

    @functools.cache
    def baseline_runner() -> Runner:
        return OnnxRuntimeRunner(court.baseline.path, threads=court.steps.threads)

    def speedup(model: ir.Model) -> float:
        timed = runner_of(model, threads=court.steps.threads, is_timed=True)
        runners: dict[str, Runner] = {BASELINE: baseline_runner(), "variant": timed}
        report = compare_latency(runners, court.inputs, baseline=BASELINE, plan=_QUICK)
        return report.latencies["variant"].speedup

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
            speedup=None if target.is_gpu else speedup(model),
            best_low=_without_difference(baseline, court),
        )

    return measure
