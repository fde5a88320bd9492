"""Joint evaluations for passes that search: score and speed of a model on samples the verdict never uses."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from jettison.compress.passes import Measurement
from jettison.core.runner import Runner
from jettison.core.targets import Target
from jettison.core.tensors import format_shape
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.interval import paired_interval
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.scoring import score, score_reference
from jettison.pipeline.proof import Court
from jettison.pipeline.steps import Bench

_QUICK = LatencyPlan(max_rounds=60, max_seconds=4.0, stable_share=0.02)
"""A search compares many models and needs each speed to a few percent; the verdict measures again."""


def bench_of(court: Court, target: Target) -> Bench:
    """What a search on that target judges by."""
    shapes = ", ".join(f"{name} {a.dtype} {format_shape(a.shape)}" for name, a in court.inputs.items())
    judged = f"{court.samples.sha256} {court.metric.identity} {court.gate.confidence} seed={court.seed}"
    return Bench(measurer(court, target), court.gate.tolerance, f"{judged} {shapes}")


def measurer(court: Court, target: Target) -> Callable[[ir.Model], Measurement]:
    """A function that judges a model against the court's baseline on the court's samples."""

    def measure(model: ir.Model) -> Measurement:
        reference = court.reference.get()
        runner = runner_of(model, threads=court.steps.threads, optimize=not target.is_gpu)
        scores = score(runner, court.samples, metric=court.metric, reference=reference)
        baseline = score_reference(reference, court.samples, metric=court.metric)
        interval = paired_interval(
            scores.values, baseline.values, confidence=court.gate.confidence, seed=court.seed
        )
        return Measurement(
            score_delta=interval.delta,
            score_delta_low=interval.low,
            sqnr_db=scores.sqnr_db,
            speedup=None if target.is_gpu else _speedup(court, runner),
        )

    return measure


def _speedup(court: Court, runner: Runner) -> float:
    baseline = OnnxRuntimeRunner(court.baseline.path, threads=court.steps.threads)
    runners: dict[str, Runner] = {"baseline": baseline, "variant": runner}
    return (
        compare_latency(runners, court.inputs, baseline="baseline", plan=_QUICK).latencies["variant"].speedup
    )
