"""`jettison ab label`: who was right where the two models differ."""

from __future__ import annotations

from pathlib import Path

import typer

from jettison.cli.ab_home import AS_JSON, HOME, the_running
from jettison.cli.console import EVIDENCE_SAYS_NO, print_json
from jettison.experiment.label_file import read_labels
from jettison.experiment.labels import LabelReport, take_labels


def label(
    file: Path = typer.Argument(
        ..., help="CSV or Parquet with the columns request and label (the right class), or request and score."
    ),
    name: str | None = typer.Option(
        None, "--name", help="The experiment; the only one that runs by default."
    ),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Tell which answer was right, for requests on which the two models differ.

    The same file may come again, and grow. A label that was taken stays: exit code 1 where the file has
    another one for the same request, or one that its answers cannot be held against.

    Example: `jettison ab label labels.csv --name night`
    """
    report = take_labels(the_running(home, name), read_labels(file))
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.changed or report.unfit:
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _print(report: LabelReport) -> None:
    typer.echo(f"{report.given:,} labels: {report.taken:,} taken, {report.repeated:,} known already")
    if report.unknown:
        some = ", ".join(report.unknown_requests)
        more = ", ..." if report.unknown > len(report.unknown_requests) else ""
        typer.echo(
            f"{report.unknown:,} of no kept disagreement (both answered alike, or not seen): {some}{more}"
        )
    for what, requests in (
        ("has another label already, which stands", report.changed),
        ("cannot be held against its label: use a column score", report.unfit),
    ):
        for request in requests[:20]:
            typer.echo(f"not taken: {request} {what}")
        if len(requests) > 20:
            typer.echo(f"not taken: {len(requests) - 20:,} more")
    between = report.judged - report.better - report.same - report.worse
    counts = f"better {report.better:,}, same {report.same:,}, worse {report.worse:,}, between {between:,}"
    typer.echo(f"judged by labels: {report.judged:,} units ({report.newly_judged:,} new): {counts}")
    if report.waiting:
        typer.echo(f"{report.waiting:,} units on which they differ still wait for labels")
    if report.unkept:
        typer.echo(
            f"{report.unkept:,} of them cannot get one, and count as worse: disagreement_bytes is used up"
        )
    if report.open:
        typer.echo(
            f"{report.open:,} labelled units lost an answer, or are not complete yet: label again later"
        )
