"""`jettison compress`: one model, one target, an answer within the tolerance."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from pydantic import ValidationError

from jettison.cli.console import progress_bars
from jettison.cli.evaluate import MIN_SPEEDUP_HELP, MODEL_HELP, STATE_HELP, TOLERANCE_HELP, gate_of
from jettison.cli.run import finish
from jettison.cli.surroundings import surroundings
from jettison.core.targets import parse_target
from jettison.pipeline.run import run as walk
from jettison.recipe import ModelSource, Recipe, SampleSources
from jettison.recipe_effects import OPTIONS, check_effects
from jettison.recipe_text import parse_variant, recipe_error
from jettison.sources.source import Source, source_from

_LONGEST_NAME = 100
"""Of the 128 characters that a model's name may have, the rest is left for a variant's name behind it."""

_CALIBRATION = typer.Option(
    ..., "--calibration", help="Samples: .npz, a folder of them, or package.module:function."
)
_SEARCH = typer.Option(
    None,
    "--search",
    help="Samples that {quantize: partial} judges its choices by; the calibration's by default.",
)
_EVALUATION = typer.Option(
    None, "--evaluation", help="Samples that decide; half of the calibration samples by default."
)
_TRAINING = typer.Option(
    None, "--training", help="Samples that {train: labels} and {train: baseline} learn from."
)
_METRIC = typer.Option(None, "--metric", help="top1, top5, agreement, sqnr, mae or package.module:function.")
_TIME_BUDGET_S = typer.Option(
    None,
    "--time-budget",
    metavar="SECONDS",
    help="Seconds from the start after which searches make no further joint evaluation and take the "
    "best that they found; no limit by default.",
)


def compress(
    model: str = typer.Argument(..., help=f"The float model: {MODEL_HELP}"),
    calibration: str = _CALIBRATION,
    search: str | None = _SEARCH,
    evaluation: str | None = _EVALUATION,
    training: str | None = _TRAINING,
    metric: str | None = _METRIC,
    target: str = typer.Option(..., "--target", help="cpu, tensorrt, or a compute capability such as sm89."),
    variant: list[str] = typer.Option([], "--variant", help="NAME=[PASS, ...]; a sensible set by default."),
    tolerance: float = typer.Option(0.01, "--tolerance", help=TOLERANCE_HELP),
    min_speedup: float | None = typer.Option(None, "--min-speedup", help=MIN_SPEEDUP_HELP),
    time_budget_s: float | None = _TIME_BUDGET_S,
    state: Path | None = typer.Option(None, "--state", help=STATE_HELP),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of ONNX Runtime; 0 for one per core."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of every random choice."),
    output: Path = typer.Option(..., "--output", "-o", help="Where results and steps go."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of a table."),
) -> None:
    """Compress one model for one target and prove the result.

    Example: `jettison compress model.onnx --calibration cal.npz --evaluation test.npz --target cpu -o out`
    """
    source = source_from(model, state=state)
    try:
        recipe = Recipe(
            model=ModelSource(name=_name_of(source), **dict(source)),
            samples=SampleSources(
                calibration=calibration, search=search, evaluation=evaluation, training=training
            ),
            metric=metric,
            targets=(parse_target(target),),
            variants=tuple(parse_variant(text) for text in variant),
            gate=gate_of(tolerance, min_speedup),
            seed=seed,
            threads=threads,
            time_budget_s=time_budget_s,
        )
    except ValidationError as error:
        raise recipe_error("compress", error) from error
    check_effects(recipe, "compress", spelled=OPTIONS)
    with progress_bars() as reporter:
        result = walk(recipe, surroundings(output, reporter))
    finish(result, output, as_json=as_json)


def _name_of(source: Source) -> str:
    """The file's or function's name as a model's: letters, digits, dots, dashes, underscores, not many."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.stem)[:_LONGEST_NAME].strip("-.")
    return name if name[:1].isalpha() else f"model-{name}".rstrip("-")
