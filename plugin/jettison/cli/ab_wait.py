"""`jettison ab wait`: wait for the verdict, and end by it."""

from __future__ import annotations

import time
from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.ab_home import AS_JSON, HOME, NAME
from jettison.cli.ab_status import notes_of, remember_look
from jettison.cli.console import EVIDENCE_SAYS_NO, err, print_json
from jettison.cli.endings import end
from jettison.core.errors import InputError, JettisonError
from jettison.experiment.folder import ExperimentFolder, find_folder
from jettison.experiment.looking import Look, look_at, take_next_share
from jettison.experiment.tally import BUCKETS

CODES = {"promote": 0, "rollback": 1, "exhausted": 2, "invalid": 3, "continue": 4}
"""Exit codes of --exit-code; `continue` is a timeout, or a ramp that is done."""
FAILED = 5
"""Its code where the command itself failed: 2 to 4 are verdicts there."""
_ATTEMPTS = 3
"""Chosen: a file of some kilobytes that is copied in place is whole long before."""


class WaitDocument(BaseModel):
    """What `ab wait --json` prints; `verdict` is the file that `ab audit` reads, null where there is none."""

    name: str
    experiment: str
    decision: str
    reasons: tuple[str, ...]
    units: int
    pending: int
    timed_out: bool
    verdict: Path | None
    notes: tuple[str, ...]


def wait(
    name: str = NAME,
    timeout_s: float | None = typer.Option(
        None, "--timeout", min=0.0, help="Seconds until it ends without a verdict; never by default."
    ),
    every_s: float = typer.Option(5.0, "--every", min=0.1, help="Seconds between two looks."),
    exit_code: bool = typer.Option(
        False,
        "--exit-code",
        help="0 promote, 1 rollback, 2 exhausted, 3 invalid, 4 no verdict yet, 5 the command failed.",
    ),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Wait for the verdict, keep it for an audit, and end by it.

    Exit code 0 for promote and 1 for all else; --exit-code tells them apart. Of a split it also takes the
    next share of the ramp, when the present one has seen enough.

    Example: `jettison ab wait night --timeout 86400 --exit-code`
    """
    try:
        folder = find_folder(home, name)
        look, timed_out = _wait(folder, timeout_s, every_s)
    except (JettisonError, OSError) as error:
        if not exit_code:
            raise
        raise typer.Exit(_failed(error, as_json=as_json)) from error
    _tell(folder, look, timed_out=timed_out, as_json=as_json)
    _end(look.decision, exit_code=exit_code)


def _wait(folder: ExperimentFolder, timeout_s: float | None, every_s: float) -> tuple[Look, bool]:
    """The look that ended it, and whether time was up first."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = ""
    while True:
        look = _patient_look(folder, every_s)
        remember_look(folder, look)
        if look.decision != "continue" or look.act is not None:
            _keep(folder, look)
            return look, False
        _refuse_newer(folder, look)
        if look.is_ramp_done:
            return look, False
        weight = take_next_share(folder, look)
        line = f"{look.progress}, {look.verdict.pending:,} waiting"
        if weight is not None:
            line = f"{line}; the candidate gets {weight / BUCKETS:.2%} from now on"
        if line != told:
            err.print(line, highlight=False)
            told = line
        if deadline is not None and time.monotonic() >= deadline:
            return look, True
        time.sleep(every_s if deadline is None else max(0.0, min(every_s, deadline - time.monotonic())))


def _patient_look(folder: ExperimentFolder, every_s: float, attempts: int = _ATTEMPTS) -> Look:
    """A look; counters of other nodes may be on their way while they are read.

    Raises:
        InputError: They could not be read several times in a row.
    """
    try:
        return look_at(folder)
    except InputError as error:
        if attempts == 1:
            raise
        err.print(f"looking again: {error}", highlight=False, soft_wrap=True)
    time.sleep(every_s)
    return _patient_look(folder, every_s, attempts - 1)


def _keep(folder: ExperimentFolder, look: Look) -> None:
    """A verdict that was reached stands, whatever is counted afterwards."""
    if not look.stands:
        _refuse_newer(folder, look)
        folder.keep_verdict(look.verdict)


def _refuse_newer(folder: ExperimentFolder, look: Look) -> None:
    if look.newer and look.act is None:
        raise InputError(
            f"experiment {folder.name!r}",
            detail=f"a newer version of {', '.join(look.newer)} is served than the one that is judged",
            fix=f"End it with jettison ab rollback {folder.name}, and begin another one",
        )


def _tell(folder: ExperimentFolder, look: Look, *, timed_out: bool, as_json: bool) -> None:
    path = folder.verdict_path if folder.verdict_path.is_file() else None
    document = WaitDocument(
        name=folder.name, experiment=look.settings.id, decision=look.decision, reasons=look.verdict.reasons,
        units=look.verdict.units, pending=look.verdict.pending, timed_out=timed_out, verdict=path,
        notes=notes_of(folder, look),
    )  # fmt: skip
    if as_json:
        print_json(document)
        return
    late = ", time is up" if timed_out else ""
    typer.echo(f"{document.decision}, after {look.progress}{late}")
    for reason in document.reasons:
        typer.echo(f"  {reason}")
    if path is not None:
        typer.echo(f"verdict: {path}")
    for note in document.notes:
        typer.echo(note if note.startswith("next: ") else f"note: {note}")


def _end(decision: str, *, exit_code: bool) -> None:
    code = CODES[decision] if exit_code else EVIDENCE_SAYS_NO * (decision != "promote")
    if code:
        raise typer.Exit(code)


def _failed(error: BaseException, *, as_json: bool) -> int:
    end(error, as_json=as_json)
    return FAILED
