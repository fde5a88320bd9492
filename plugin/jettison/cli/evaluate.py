"""`jettison evaluate`: score and latency of a model against a baseline."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer
from pydantic import ValidationError

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, progress_bars
from jettison.cli.surroundings import surroundings
from jettison.cli.tables import print_result
from jettison.core.targets import parse_target
from jettison.evaluate.gate import Gate
from jettison.pipeline.comparison import Comparison, compare
from jettison.recipe_effects import refuse_unmeasured_speed
from jettison.recipe_text import recipe_error
from jettison.sources.source import source_from

TOLERANCE_HELP = (
    "How far the score may fall, in the metric's unit: 0.01 is one point of top1. With 0 a variant must be "
    "proven better, since equal answers prove nothing about other samples."
)
MODEL_HELP = ".onnx, .pt2, .keras, or package.module:function that makes a torch module."
STATE_HELP = "The weights of a model that is a function: its state dict, .pt or .safetensors."
MIN_SPEEDUP_HELP = (
    "How many times as fast as the baseline it must be, 1 by default; only for target cpu, where latency is "
    "measured."
)


def gate_of(tolerance: float, min_speedup: float | None) -> Gate:
    """The gate that the options ask for; a speed that nobody asked for is the gate's own default.

    Raises:
        ValidationError: A number is out of its range.
    """
    if min_speedup is None:
        return Gate(tolerance=tolerance)
    return Gate(tolerance=tolerance, min_speedup=min_speedup)


def evaluate(
    model: str = typer.Argument(..., help=f"The model to judge: {MODEL_HELP}"),
    baseline: str = typer.Option(..., "--baseline", help="The model that it is compared with, in any form."),
    evaluation: str = typer.Option(
        ..., "--evaluation", help="Samples: .npz, a folder of them, or package.module:function."
    ),
    metric: str | None = typer.Option(
        None, "--metric", help="top1, top5, agreement, sqnr, mae or package.module:function."
    ),
    target: str = typer.Option(
        "cpu", "--target", help="cpu, tensorrt, or a compute capability such as sm89."
    ),
    tolerance: float = typer.Option(0.01, "--tolerance", help=TOLERANCE_HELP),
    min_speedup: float | None = typer.Option(None, "--min-speedup", help=MIN_SPEEDUP_HELP),
    state: Path | None = typer.Option(None, "--state", help=STATE_HELP),
    baseline_state: Path | None = typer.Option(
        None, "--baseline-state", help="The same for a --baseline that is a function."
    ),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of ONNX Runtime; 0 for one per core."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of every random choice."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of a table."),
) -> None:
    """Compare a model with a baseline, and judge it.

    Paired scores on the same samples, latency in one run, and the gate's verdict.

    Example: `jettison evaluate int8.onnx --baseline float.onnx --evaluation test.npz --metric top1`
    """
    place = parse_target(target)
    if min_speedup is not None:
        refuse_unmeasured_speed([place], "evaluate")
    try:
        gate = gate_of(tolerance, min_speedup)
    except ValidationError as error:
        raise recipe_error("evaluate", error) from error
    asked = Comparison(
        variant=source_from(model, state=state),
        baseline=source_from(baseline, state=baseline_state),
        samples=evaluation, target=place,
        metric=metric, gate=gate, seed=seed, threads=threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="jettison-") as folder, progress_bars() as reporter:
        result = compare(asked, surroundings(Path(folder), reporter))
    if as_json:
        print_json(result)
    else:
        print_result(result)
    if not result.variants[0].accepted:
        raise typer.Exit(EVIDENCE_SAYS_NO)
