"""`jettison ab decide`: the verdict on three counts, or on an experiment's counters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.table import Table

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, table_console
from jettison.core.errors import InputError
from jettison.evaluate.figures import beyond
from jettison.experiment.counter_file import read_all
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.settings import Rules
from jettison.experiment.settings_file import load_settings, settings_error
from jettison.experiment.tally import MOST_COUNTED, Tally
from jettison.experiment.verdict import Verdict
from jettison.experiment.verdict import decide as judge
from jettison.experiment.verdict_file import write_verdict

GOES_ON = ("promote", "continue")
"""Decisions that end with exit code 0; all others say no, or that nothing more is to be expected."""


def decide(
    better: int | None = typer.Option(
        None, "--better", min=0, max=MOST_COUNTED, help="Units on which only the candidate is right."
    ),
    same: int | None = typer.Option(
        None, "--same", min=0, max=MOST_COUNTED, help="Units on which both are as good."
    ),
    worse: int | None = typer.Option(
        None, "--worse", min=0, max=MOST_COUNTED, help="Units on which only the baseline is right."
    ),
    margin: float | None = typer.Option(
        None, "--margin", help="How much worse it may be: 0.01 is one unit of a hundred."
    ),
    alpha: float | None = typer.Option(
        None, "--alpha", help="How often a bad one may pass, 0.05 by default."
    ),
    planned_disagreement: float | None = typer.Option(
        None, "--planned-disagreement", help="The share of units on which the two were expected to differ."
    ),
    settings: Path | None = typer.Option(
        None, "--settings", help="An experiment's settings (YAML), instead of all of the above."
    ),
    counters: list[Path] = typer.Option([], "--counters", help="Its counter files; all nodes, not some."),
    key: Path | None = typer.Option(None, "--key", help="The key by which all counters must be signed."),
    output: Path | None = typer.Option(None, "--output", "-o", help="Write the verdict there, for an audit."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of a table."),
) -> None:
    """Decide from counts: promote, continue, rollback, exhausted or invalid.

    It may be asked after every unit. Exit code 0 for promote and continue, 1 for all others.

    Example: `jettison ab decide --better 60 --same 2900 --worse 55 --margin 0.01 --planned-disagreement 0.04`
    """
    bare = {
        "--better": better, "--same": same, "--worse": worse, "--margin": margin,
        "--planned-disagreement": planned_disagreement,
    }  # fmt: skip
    if settings is None:
        _refuse({"--counters": counters or None, "--key": key})
        _require(bare)
        given = {"margin": margin, "planned_disagreement": planned_disagreement, "alpha": alpha}
        verdict = judge(_rules(given), _counted(better or 0, same or 0, worse or 0))
    else:
        _refuse({**bare, "--alpha": alpha})
        verdict = judge(load_settings(settings), _read(counters, key))
    if output is not None:
        write_verdict(output, verdict)
    if as_json:
        print_json(verdict)
    else:
        _print(verdict)
    if verdict.decision not in GOES_ON:
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _rules(given: Mapping[str, float | None]) -> Rules:
    """The rules that the options ask for: quality alone, since there are no other counts."""
    try:
        told = {name: value for name, value in given.items() if value is not None}
        return Rules.model_validate(told | {"guard_errors": False})
    except ValidationError as error:
        raise settings_error("ab decide", error) from error


def _counted(better: int, same: int, worse: int) -> CounterSet:
    tally = Tally(better=better, same=same, worse=worse)
    return CounterSet("", (Counters("", "command-line", sequence=1, slices=((WHOLE, tally),)),))


def _read(paths: list[Path], key: Path | None) -> CounterSet:
    if not paths:
        fix = "Give the counter files of all nodes with --counters"
        raise InputError("ab decide", detail="expected counters beside --settings, found none", fix=fix)
    return read_all(paths, key=key)


def _require(options: Mapping[str, object]) -> None:
    missing = [name for name, value in options.items() if value is None]
    if missing:
        fix = "Give all of them, or --settings and --counters"
        raise InputError("ab decide", detail=f"missing {', '.join(missing)}", fix=fix)


def _refuse(options: Mapping[str, object]) -> None:
    idle = [name for name, value in options.items() if value is not None]
    if idle:
        fix = "Give either counts and a margin, or --settings and --counters"
        raise InputError("ab decide", detail=f"{', '.join(idle)} would have no effect", fix=fix)


def _print(verdict: Verdict) -> None:
    console = table_console()
    console.print(f"{verdict.decision}, after {verdict.units} units")
    for reason in verdict.reasons:
        console.print(f"  {reason}", highlight=False, soft_wrap=True)
    table = Table("test", "shows, once it is reached", "e", "asked", "reached")
    for entry in verdict.e_values:
        told = beyond(entry.e, entry.threshold), f"{entry.threshold:.6g}", "yes" if entry.reached else "no"
        table.add_row(entry.name, entry.claim, *told)
    console.print(table)
    difference = verdict.estimates.difference
    if difference is not None and difference.value is not None:
        bounds = f"at least {difference.low:+.4g}, at most {difference.high:+.4g}"
        console.print(f"difference {difference.value:+.4g}, {bounds}", highlight=False)
