"""`jettison rollback`: serve an older version of a model again."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.cli.publish import proof
from jettison.cli.surroundings import now
from jettison.triton.live import Live, roll_back


class RolledBackDocument(BaseModel):
    """What `rollback --json` prints.

    `before` are the versions that were served, `proven` says whether a server was seen to serve it,
    `proven_by` by what.
    """

    model: str
    version: int
    before: tuple[int, ...]
    proven: bool
    proven_by: tuple[str, ...]
    notes: tuple[str, ...]


def rollback(
    name: str = typer.Argument(..., help="The model's name in the repository."),
    repository: Path = typer.Option(..., "--repository", help="The model repository."),
    to: int | None = typer.Option(
        None, "--to", min=1, help="The version to serve; by default the one before the newest served."
    ),
    url: str | None = typer.Option(
        None, "--url", help="HOST:PORT of a server's HTTP service that serves this repository."
    ),
    deadline_s: float = typer.Option(60.0, "--deadline", min=1.0, help="Seconds until it must be proven."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Serve an older version of a model again, and no newer one.

    Nothing is deleted. With --url the server loads it without an outage and is asked for its golden answers.

    Example: `jettison rollback fashion-int8 --repository models --url 127.0.0.1:8000`
    """
    live = None if url is None else Live(url, deadline_s)
    done = roll_back(repository, name, now=now(), to=to, live=live)
    if as_json:
        print_json(
            RolledBackDocument(
                model=done.model,
                version=done.version,
                before=done.before,
                proven=bool(done.proven_by),
                proven_by=done.proven_by,
                notes=done.notes,
            )
        )
        return
    for note in done.notes:
        typer.echo(f"note: {note}")
    before = ", ".join(str(version) for version in done.before)
    serves = "serves" if done.proven_by else "will serve"
    typer.echo(f"{done.model} {serves} version {done.version} again; before: {before}")
    typer.echo(proof(done.proven_by))
