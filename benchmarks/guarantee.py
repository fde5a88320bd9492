"""Partial quantization on EfficientNet-Lite0: the whole front between speed and accuracy, in one run.

Every point of the front is made, run on 512 unseen crops and timed against float and against ONNX
Runtime's static quantizer, interleaved in one process whose idle threads do not spin.

    python benchmarks/guarantee.py --json
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress_methods import METHODS
from jettison.compress.passes import Workpiece
from jettison.compress.quantization.material import Material, gather
from jettison.compress.quantization.search import Point, Search, spread
from jettison.core.runner import Runner
from jettison.core.samples import Samples, first, open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.portability import PORTABLE_DB
from jettison.evaluate.reference import Reference, reference_of
from jettison.evaluate.scoring import score
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model
from prepared import efficientnet, parser_of

HERE = Path(__file__).parent
POINTS = 12
"""Joint evaluations that the product allows itself by default."""
ASKED = ((1.5, 23.0, 0.94), (1.4, 26.0, 0.96), (1.25, 29.0, 0.97))
"""Speed-up, SQNR in dB and agreement that some point must reach together."""
PEERS = ("ort-minmax", "ort-per-channel")
MOST_FORWARDS = 80.0
MOST_MEMORY = 2.0


@dataclass(frozen=True)
class Row:
    """One model of the front, or a peer's; `gap_db` is exact arithmetic minus kernel, on 128 crops."""

    name: str
    integer_layers: int | None
    predicted_speedup: float | None
    predicted_db: float | None
    speedup: float
    kernel_db: float
    gap_db: float
    agreement: float


@dataclass(frozen=True)
class Cost:
    """What the search took: seconds, float forward passes over the calibration samples, and memory."""

    seconds: float
    forwards: float
    peak_rss_bytes: int
    inference_rss_bytes: int


def main() -> int:
    """Search, measure, print; 1 where a target is missed."""
    arguments = _arguments()
    cache = efficientnet(arguments.cache)
    model = clean(open_model(cache / "efficientnet-lite0.onnx"))
    calibration = open_samples(cache / "calibration-128", input_specs(model))
    evaluation = open_samples(cache / "evaluation", input_specs(model))
    floor, inference_rss = _floor(model, calibration)
    material, points, seconds = _search(model, calibration)
    cost = Cost(seconds, seconds / floor, _peak(), inference_rss)
    rows = measure(material, points, evaluation, cache)
    checks = verdicts(rows, cost)
    document = {
        "front": [asdict(row) for row in rows],
        "search": asdict(cost),
        "notes": material.notes,
        "checks": checks,
    }
    print(json.dumps(document, indent=1) if arguments.json else table(rows, cost, checks))
    return 0 if all(check["held"] for check in checks) else 1


def _floor(model: Any, calibration: Samples) -> tuple[float, int]:
    """Seconds of a plain float pass over the calibration samples, and the memory it took."""
    runner = runner_of(model)
    started = time.perf_counter()
    for batch in calibration.batches(8):
        runner.run(batch.inputs)
    return time.perf_counter() - started, _peak()


def _search(model: Any, calibration: Samples) -> tuple[Material, list[Point], float]:
    """The front, the fastest point first, and the seconds it took to find."""
    started = time.perf_counter()
    material = gather(Workpiece(model, parse_target("cpu")), calibration, "measure", frozenset())
    search = Search(material.order, material.damages, material.cost)
    points = spread(search.front(), POINTS)
    return material, points, time.perf_counter() - started


def measure(material: Material, points: list[Point], evaluation: Samples, cache: Path) -> list[Row]:
    """Every point and peer on the unseen crops, and all speeds in one run."""
    baseline = OnnxRuntimeRunner(cache / "efficientnet-lite0.onnx")
    reference, few = reference_of(baseline, evaluation), first(evaluation, 128)
    few_reference = reference_of(baseline, few)
    models = {f"front-{index}": material.quantize(point.layers) for index, point in enumerate(points)}
    with tempfile.TemporaryDirectory(prefix="guarantee-") as folder:
        runners: dict[str, Runner] = {"float": baseline}
        exact: dict[str, Runner] = {}
        for name, found in models.items():
            runners[name], exact[name] = runner_of(found), runner_of(found, optimize=False)
        for peer in PEERS:
            path = Path(folder) / f"{peer}.onnx"
            METHODS[peer](cache / "efficientnet-lite0.onnx", cache / "calibration-128", path)
            runners[peer], exact[peer] = OnnxRuntimeRunner(path), OnnxRuntimeRunner(path, optimize=False)
    inputs = next(evaluation.batches(1)).inputs
    speeds = compare_latency(runners, inputs, baseline="float", plan=LatencyPlan(max_seconds=120)).latencies
    base_us = material.cost(frozenset())
    rows = []
    for name, exactly in exact.items():
        kernel, agreement = _scored(runners[name], evaluation, reference)
        few_kernel, _ = _scored(runners[name], few, few_reference)
        few_exact, _ = _scored(exactly, few, few_reference)
        point = points[int(name.removeprefix("front-"))] if name.startswith("front-") else None
        rows.append(
            Row(
                name=name,
                integer_layers=len(point.layers) if point else None,
                predicted_speedup=base_us / point.cost if point else None,
                predicted_db=_decibels(point.damage) if point else None,
                speedup=speeds[name].speedup,
                kernel_db=kernel,
                gap_db=few_exact - few_kernel,
                agreement=agreement,
            )
        )
    return rows


def verdicts(rows: list[Row], cost: Cost) -> list[dict[str, Any]]:
    """Each target with its figure, and whether it holds."""
    ours = [row for row in rows if row.integer_layers is not None]
    checks: list[dict[str, Any]] = []
    for speedup, decibels, agreement in ASKED:
        fast = [row for row in ours if row.speedup >= speedup]
        best = max(fast, key=lambda row: row.kernel_db, default=None)
        held = any(row.kernel_db >= decibels and row.agreement >= agreement for row in fast)
        found = f"{best.kernel_db:.1f} dB, {best.agreement:.3f}" if best else "no point so fast"
        checks.append({"what": f"at {speedup}x: {decibels} dB and {agreement}", "found": found, "held": held})
    gap = max(abs(row.gap_db) for row in ours)
    checks += [
        {
            "what": f"kernel within {PORTABLE_DB} dB of simulation",
            "found": f"{gap:.2f} dB",
            "held": gap <= PORTABLE_DB,
        },
        {
            "what": f"search in at most {MOST_FORWARDS:g} float passes over the calibration samples",
            "found": f"{cost.forwards:.0f}",
            "held": cost.forwards <= MOST_FORWARDS,
        },
        {
            "what": f"peak memory at most {MOST_MEMORY:g} times plain inference",
            "found": f"{cost.peak_rss_bytes / cost.inference_rss_bytes:.2f}",
            "held": cost.peak_rss_bytes <= MOST_MEMORY * cost.inference_rss_bytes,
        },
    ]
    return checks


def table(rows: list[Row], cost: Cost, checks: list[dict[str, Any]]) -> str:
    """All figures as Markdown."""
    lines = [
        "| model | INT8 layers | predicted | speed-up | kernel | exact - kernel | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        predicted = (
            f"{row.predicted_speedup:.2f}x, {row.predicted_db:.1f} dB" if row.predicted_speedup else ""
        )
        lines.append(
            f"| {row.name} | {row.integer_layers or ''} | {predicted} | {row.speedup:.2f}x "
            f"| {row.kernel_db:.1f} dB "
            f"| {row.gap_db:+.2f} dB | {row.agreement:.3f} |"
        )
    lines += [
        "",
        f"Search: {cost.seconds:.0f} s, {cost.forwards:.0f} float passes over the calibration samples.",
    ]
    lines += ["", "| target | found | held |", "|---|---|---|"]
    lines += [
        f"| {check['what']} | {check['found']} | {'yes' if check['held'] else 'NO'} |" for check in checks
    ]
    return "\n".join(lines)


def _scored(runner: Runner, samples: Samples, reference: Reference) -> tuple[float, float]:
    found = score(runner, samples, metric=resolve_metric("agreement"), reference=reference)
    return found.sqnr_db or 0.0, found.mean


def _decibels(damage: float) -> float:
    return -10.0 * math.log10(max(damage, 1e-15))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _arguments() -> argparse.Namespace:
    return parser_of(__doc__).parse_args()


if __name__ == "__main__":
    sys.exit(main())
