"""`jettison ab promote` and `ab rollback`: the candidate answers all, or the baseline does."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.ab_home import AS_JSON, HOME, NAME
from jettison.cli.console import EVIDENCE_SAYS_NO, err, print_json
from jettison.cli.surroundings import now
from jettison.experiment.ending import may_promote
from jettison.experiment.ending import promote as give_all
from jettison.experiment.ending import rollback as take_all
from jettison.experiment.folder import Act, ExperimentFolder, find_folder
from jettison.experiment.looking import look_at


class EndedDocument(BaseModel):
    """What `ab promote --json` and `ab rollback --json` print; `act` is null where nothing was done."""

    name: str
    experiment: str
    act: str | None
    decision: str
    reasons: tuple[str, ...]
    because: str
    verdict: Path | None


def promote(
    name: str = NAME,
    because: str = typer.Option(
        "", "--because", help="Why it is promoted although the verdict does not say so; it is kept."
    ),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Let the candidate answer all requests from the next one on.

    Nothing is reloaded. Exit code 1, and nothing is changed, where the verdict is not promote and no reason
    is given.

    Example: `jettison ab promote night`
    """
    folder = find_folder(home, name)
    look = look_at(folder)
    if look.act is None and not may_promote(look, because):
        _tell(folder, None, as_json=as_json)
        err.print("not promoted: wait for the verdict, or give a reason with --because", highlight=False)
        raise typer.Exit(EVIDENCE_SAYS_NO)
    act = give_all(folder, now=now(), because=because)
    _tell(folder, act, as_json=as_json)


def rollback(
    name: str = NAME,
    because: str = typer.Option("", "--because", help="Why, where no verdict says so; it is kept."),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Let the baseline answer all requests from the next one on, and close the experiment.

    Possible at any time, after a promotion too. Nothing is reloaded.

    Example: `jettison ab rollback night --because "the night shift complains"`
    """
    folder = find_folder(home, name)
    act = take_all(folder, now=now(), because=because)
    _tell(folder, act, as_json=as_json)


def _tell(folder: ExperimentFolder, act: Act | None, *, as_json: bool) -> None:
    look = look_at(folder)
    path = folder.verdict_path if folder.verdict_path.is_file() else None
    document = EndedDocument(
        name=folder.name, experiment=look.settings.id, act=act.act if act else None,
        decision=look.verdict.decision, reasons=look.verdict.reasons, because=act.because if act else "",
        verdict=path,
    )  # fmt: skip
    if as_json:
        print_json(document)
        return
    if act is not None:
        side = look.setup.candidate if act.act == "promote" else look.setup.baseline
        typer.echo(f"{side.model}:{side.version} answers all requests to {look.setup.router}")
    typer.echo(f"verdict: {document.decision}, after {look.verdict.units:,} units")
    for reason in document.reasons:
        typer.echo(f"  {reason}")
    if path is not None:
        typer.echo(f"check it: jettison ab audit {path}")
