"""`jettison ab plan`: how many units an experiment will take, and how long."""

from __future__ import annotations

import typer
from pydantic import ValidationError
from rich.table import Table

from jettison.cli.console import print_json, progress_bars, table_console
from jettison.experiment.planning import Forecast, Plan, Question
from jettison.experiment.planning import plan as forecast
from jettison.experiment.settings_file import settings_error


def plan(
    margin: float = typer.Option(
        ..., "--margin", help="How much worse it may be: 0.01 is one unit of a hundred."
    ),
    planned_disagreement: float = typer.Option(
        ..., "--planned-disagreement", help="The share of units on which the two are expected to differ."
    ),
    alpha: float = typer.Option(0.05, "--alpha", help="How often a bad candidate may pass."),
    difference: float = typer.Option(
        0.0, "--difference", help="What the candidate is in truth: 0 as good, -0.002 a little worse."
    ),
    harm: float | None = typer.Option(
        None,
        "--harm",
        help="How much worse the candidate is that shall be stopped, three margins by default.",
    ),
    power: float = typer.Option(0.9, "--power", help="The share of such candidates that shall be promoted."),
    rate: float | None = typer.Option(None, "--rate", help="Units an hour, over all nodes."),
    seed: int = typer.Option(0, "--seed", help="Seed of the experiments on paper.", min=0),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of a table."),
) -> None:
    """Plan an experiment: units, labels and hours until there is a verdict.

    By running it some thousand times on paper, looked at after every unit.

    Example: `jettison ab plan --margin 0.01 --planned-disagreement 0.04 --rate 200`
    """
    try:
        question = Question(
            margin=margin, planned_disagreement=planned_disagreement, alpha=alpha, difference=difference,
            harm=harm, power=power, rate=rate, seed=seed,
        )  # fmt: skip
    except ValidationError as error:
        raise settings_error("ab plan", error) from error
    with progress_bars() as reporter:
        found = forecast(question, reporter)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Plan) -> None:
    console = table_console()
    power = f"{found.question.power:.0%}"
    table = Table("candidate", "verdict", "half by", "on average", f"{power} by", "ever")
    table.add_row(f"{found.question.difference:+.4g}", "promote", *_words(found.promoted))
    table.add_row(f"{-found.harm:+.4g}", "rollback", *_words(found.rolled_back))
    console.print(table)
    console.print(f"a test with one look at the end: {found.fixed_sample:,} units", highlight=False)
    console.print(f"where the two never differ: {found.least:,} units", highlight=False)
    if found.labels is not None:
        console.print(f"labels, for disagreements only: {found.labels:,}", highlight=False)
    if found.hours is not None:
        console.print(f"{power} are promoted within {found.hours:,.1f} hours", highlight=False)
    console.print(f"suggested max_units: {found.max_units:,}", highlight=False)


def _words(some: Forecast) -> tuple[str, str, str, str]:
    median, enough = (f"{units:,}" if units is not None else "never" for units in (some.median, some.enough))
    return median, f"{some.mean:,}", enough, f"{some.share:.1%}"
