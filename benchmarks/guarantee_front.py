"""Partial quantization of EfficientNet-Lite0 for the CPU: the front between speed and accuracy, beside peers.

Every point is made, run on 512 unseen crops and timed against float and the files of other quantizers,
interleaved in one process whose idle threads do not spin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guarantee_checks import Check, Part, decibels, scored
from jettison.compress.passes import Workpiece
from jettison.compress.quantization.material import Material, gather
from jettison.compress.quantization.search import Point, Search, spread
from jettison.core.runner import Runner
from jettison.core.samples import Samples, first, open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.portability import PORTABLE_DB
from jettison.evaluate.reference import reference_of
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model
from peers import peers

ASKED = ((1.5, 23.0, 0.94), (1.4, 26.0, 0.96), (1.25, 29.0, 0.97))
"""Speed-up, SQNR in dB and agreement that some point must reach together."""
POINTS = 12
"""As many as the product evaluates jointly by default."""
MARGINS = (1.0, 1.03)
"""Points taken near each asked speed: the most accurate ones predicted to be that many times as fast."""
FEW = 128
"""Crops on which kernel and exact arithmetic are compared."""


@dataclass(frozen=True)
class Candidate:
    """A model to judge: its runner as it is served and in exact arithmetic, and what the search foretold."""

    kernel: Runner
    exact: Runner
    point: Point | None = None


def front(folder: Path) -> Part:
    """The front of EfficientNet-Lite0 in `folder`, and the peers' files."""
    model = clean(open_model(folder / "efficientnet-lite0.onnx"))
    calibration = open_samples(folder / "calibration-128", input_specs(model))
    evaluation = open_samples(folder / "evaluation", input_specs(model))
    material = gather(Workpiece(model, parse_target("cpu")), calibration, "measure", frozenset())
    search = Search(material.order, material.damages, material.cost)
    points = chosen(search.front(), material.cost(frozenset()))
    baseline = OnnxRuntimeRunner(folder / "efficientnet-lite0.onnx")
    candidates = {f"front-{i}": _candidate(material, point) for i, point in enumerate(points)}
    for name, path in peers(
        folder / "efficientnet-lite0.onnx", folder / "calibration-128", folder / "peers"
    ).items():
        candidates[name] = Candidate(OnnxRuntimeRunner(path), OnnxRuntimeRunner(path, optimize=False))
    rows = list(_rows(candidates, baseline, evaluation, base_cost=material.cost(frozenset())))
    return Part(
        "EfficientNet-Lite0 on the CPU, 512 unseen crops", rows, list(_checks(rows)), list(material.notes)
    )


def chosen(found: Sequence[Point], base_cost: float) -> list[Point]:
    """Points to measure: those near the asked speeds, the others spread over the front."""
    points: dict[frozenset[str], Point] = {}
    for speedup, _, _ in ASKED:
        for margin in MARGINS:
            fast = [point for point in found if base_cost / point.cost >= speedup * margin]
            if fast:
                best = min(fast, key=lambda point: point.damage)
                points[best.layers] = best
    for point in spread(found, POINTS - len(points)):
        points.setdefault(point.layers, point)
    return sorted(points.values(), key=lambda point: point.cost)


def _candidate(material: Material, point: Point) -> Candidate:
    model = material.quantize(point.layers)
    return Candidate(runner_of(model), runner_of(model, optimize=False), point)


def _rows(
    candidates: dict[str, Candidate], baseline: Runner, evaluation: Samples, *, base_cost: float
) -> Iterator[dict[str, Any]]:
    few = first(evaluation, FEW)
    reference, few_reference = reference_of(baseline, evaluation), reference_of(baseline, few)
    runners = {"float": baseline, **{name: candidate.kernel for name, candidate in candidates.items()}}
    inputs = next(evaluation.batches(1)).inputs
    speeds = compare_latency(runners, inputs, baseline="float", plan=LatencyPlan(max_seconds=120)).latencies
    for name, candidate in candidates.items():
        kernel, agreement = scored(candidate.kernel, evaluation, reference)
        gap = scored(candidate.exact, few, few_reference)[0] - scored(candidate.kernel, few, few_reference)[0]
        point = candidate.point
        yield {
            "model": name,
            "INT8_layers": len(point.layers) if point else None,
            "predicted_speedup": base_cost / point.cost if point else None,
            "predicted_db": decibels(point.damage) if point else None,
            "speedup": speeds[name].speedup,
            "kernel_db": kernel,
            "exact_minus_kernel_db": gap,
            "agreement": agreement,
        }


def _checks(rows: Sequence[dict[str, Any]]) -> Iterator[Check]:
    ours = [row for row in rows if row["INT8_layers"] is not None]
    for speedup, asked_db, agreement in ASKED:
        fast = [row for row in ours if row["speedup"] >= speedup]
        best = max(fast, key=lambda row: row["kernel_db"], default=None)
        held = any(row["kernel_db"] >= asked_db and row["agreement"] >= agreement for row in fast)
        found = f"{best['kernel_db']:.1f} dB, {best['agreement']:.3f}" if best else "no point so fast"
        yield Check(f"at {speedup}x: {asked_db} dB and {agreement}", found, held)
    gap = max(abs(row["exact_minus_kernel_db"]) for row in ours)
    yield Check(f"kernel within {PORTABLE_DB} dB of exact arithmetic", f"{gap:.2f} dB", gap <= PORTABLE_DB)
