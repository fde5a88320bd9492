"""What each repair is worth: every candidate of the repair ladder on unseen samples, all layers in INT8.

    python benchmarks/ablation.py [--json] [--models NAME ...] [--targets T ...]

Three models, two dialects; about five minutes each for the larger ones. Rows go to stderr as they come.
`chosen` marks what the ladder took, judging by calibration samples only: where it is not the best row,
held-out samples and unseen ones disagree. The tensorrt dialect is scored in exact arithmetic, the CPU's by
its kernels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from guarantee_checks import scored
from jettison.compress.passes import Workpiece
from jettison.compress.quantization.placement import Placement
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.repairs import MEASURED_RANGES, Bench, choose_repairs, first_rungs
from jettison.compress.quantization.static import RangeChoice
from jettison.core.samples import open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.reference import reference_of
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model
from prepared import efficientnet, minilm, parser_of

FASHION = Path(__file__).parent.parent / "examples" / "fashion"
TARGETS = ("cpu", "sm89")


@dataclass(frozen=True)
class Subject:
    """A model and its samples."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    metric: str


@dataclass(frozen=True)
class Row:
    """One candidate on one model for one target; `score` is the metric's mean."""

    model: str
    target: str
    candidate: str
    sqnr_db: float
    score: float
    chosen: bool


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", help="only these, by the names in the table")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="cpu, or a compute capability")
    arguments = parser.parse_args()
    rows = []
    for subject in subjects(arguments.cache):
        if arguments.models and subject.name not in arguments.models:
            continue
        for target in arguments.targets:
            for row in measure(subject, target):
                print(line(row), file=sys.stderr, flush=True)
                rows.append(row)
    print(json.dumps([asdict(row) for row in rows], indent=1) if arguments.json else table(rows))


def subjects(cache: Path) -> Iterator[Subject]:
    """The three models."""
    folder = efficientnet(cache)
    yield Subject(
        "EfficientNet-Lite0", folder / "efficientnet-lite0.onnx", folder / "calibration-128",
        folder / "evaluation", "agreement",
    )  # fmt: skip
    folder = minilm(cache)
    yield Subject(
        "all-MiniLM-L6-v2", folder / "all-minilm-l6-v2.onnx", folder / "calibration-128",
        folder / "evaluation", "sqnr",
    )  # fmt: skip
    yield Subject(
        "Fashion-MNIST", FASHION / "fashion.onnx", FASHION / "calibration.npz", FASHION / "evaluation.npz",
        "top1",
    )  # fmt: skip


def measure(subject: Subject, name: str) -> Iterator[Row]:
    """Every candidate that the ladder looked at."""
    model, target = clean(open_model(subject.model)), parse_target(name)
    calibration = open_samples(str(subject.calibration), input_specs(model))
    evaluation = open_samples(str(subject.evaluation), input_specs(model))
    reference = reference_of(OnnxRuntimeRunner(subject.model), evaluation)
    piece = Workpiece(model, target)
    choices = [RangeChoice(method) for method in MEASURED_RANGES]

    def everything(graph: ir.Graph) -> Placement:
        return place(graph, target.dialect, frozenset())

    chosen = choose_repairs(piece, calibration, everything, choices=choices, effort="all").candidate
    bench = Bench(piece, calibration, everything)
    rungs = list(first_rungs(choices, "all", equalize=bench.can_equalize))
    for candidate in dict.fromkeys([*rungs, chosen]):
        repairs = bench.make(candidate)
        quantized = repairs.quantize(everything(repairs.model.graph))
        runner = runner_of(quantized, optimize=not target.is_gpu)
        decibels, score = scored(runner, evaluation, reference, metric=subject.metric)
        yield Row(subject.name, name, candidate.short, decibels, score, candidate == chosen)


def table(rows: list[Row]) -> str:
    """All figures as Markdown."""
    lines = ["| model | target | repairs | SQNR | score | |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *map(line, rows)])


def line(row: Row) -> str:
    """One row as Markdown."""
    figures = f"{row.sqnr_db:.1f} dB | {row.score:.3f}"
    chosen = "chosen" if row.chosen else ""
    return f"| {row.model} | {row.target} | {row.candidate} | {figures} | {chosen} |"


if __name__ == "__main__":
    main()
