"""`jettison ab merge`: the counters of many nodes in one file."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.experiment.counter_file import read_all, write_counters


class MergedDocument(BaseModel):
    """What `ab merge --json` prints; `states` counts a node once for each time that it began anew."""

    experiment: str
    path: Path
    nodes: int
    states: int
    judged: int
    signed: bool


def merge(
    files: list[Path] = typer.Argument(..., help="Counter files of one experiment, merged ones too."),
    output: Path = typer.Option(
        ..., "--output", "-o", help="The file to write; it may be one of the others."
    ),
    key: Path | None = typer.Option(None, "--key", help="The key by which all counters must be signed."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Merge the counters of nodes, in any order and as often as one likes.

    Of each node its latest state counts. A file that comes twice, or late, changes nothing.

    Example: `jettison ab merge node-*.json -o all.json --key fleet.key`
    """
    merged = read_all(files, key=key)
    write_counters(output, merged)
    document = MergedDocument(
        experiment=merged.experiment,
        path=output.absolute(),
        nodes=merged.nodes,
        states=len(merged.states),
        judged=merged.tally().judged,
        signed=key is not None,
    )
    if as_json:
        print_json(document)
        return
    typer.echo(f"merged {document.nodes} nodes of experiment {document.experiment}: {output}")
    typer.echo(f"units judged: {document.judged}")
