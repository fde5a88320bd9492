"""`jettison ab status`: how an experiment stands, once or as it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer
from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jettison.cli.ab_home import AS_JSON, HOME, NAME
from jettison.cli.console import err, out, print_json, table_console
from jettison.cli.surroundings import now
from jettison.core.errors import InputError
from jettison.core.files import write_bytes
from jettison.evaluate.figures import beyond
from jettison.experiment.eprocess import e_value
from jettison.experiment.estimates import Bounds
from jettison.experiment.folder import ExperimentFolder, find_folder
from jettison.experiment.history import Snapshot, remember, snapshot_of
from jettison.experiment.looking import Look, look_at
from jettison.experiment.plot import plot
from jettison.experiment.tally import BUCKETS, Tally
from jettison.experiment.verdict import Verdict

_BARS = "▁▂▃▄▅▆▇█"
_BARS_SHOWN = 48
"""Chosen: what fits beside its name in a terminal of 80 letters."""


class StatusDocument(BaseModel):
    """What `ab status --json` prints.

    `stands` tells whether `verdict` is the one that ended the experiment, or that of this moment. `act` is
    what was done in the end, null while it runs; `mode` and `weight` are the router's, null where its state
    cannot be read.
    """

    name: str
    experiment: str
    started: str
    router: str
    mode: str | None
    weight: float | None
    decision: str
    stands: bool
    act: str | None
    because: str
    verdict: Verdict
    notes: tuple[str, ...]


def status(
    name: str = NAME,
    watch: bool = typer.Option(False, "--watch", help="Go on until there is a verdict, or Ctrl-C."),
    every_s: float = typer.Option(2.0, "--every", min=0.2, help="Seconds between two looks of --watch."),
    plot_file: Path | None = typer.Option(
        None, "--plot", help="Draw e-values and bounds over all looks so far, as SVG."
    ),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Show an experiment: verdict, counts, every test.

    Look as often as you like: that is what the test is made for.

    Example: `jettison ab status night --watch --plot night.svg`
    """
    if watch and as_json:
        fix = "Leave one of them out: jettison ab wait NAME --json ends with a document"
        raise InputError("ab status", detail="--watch goes on, and --json is one document", fix=fix)
    folder = find_folder(home, name)
    looks = _watch(folder, every_s) if watch else remember_look(folder, look_at(folder))
    if plot_file is not None:
        write_bytes(plot_file.absolute(), plot(folder.settings(), looks).encode())
    if watch:
        return
    look = look_at(folder)
    if as_json:
        print_json(document_of(folder, look))
    else:
        table_console().print(page(folder, look, looks))
        if plot_file is not None:
            typer.echo(f"plot: {plot_file}")


def remember_look(folder: ExperimentFolder, look: Look) -> Sequence[Snapshot]:
    """All looks with this one; where the history cannot be written, a warning and this one alone."""
    snapshot = snapshot_of(look.verdict, now())
    try:
        return remember(folder.history_path, snapshot)
    except OSError as error:
        err.print(f"warning: history {folder.history_path}: {error}", highlight=False, soft_wrap=True)
        return (snapshot,)


def document_of(folder: ExperimentFolder, look: Look) -> StatusDocument:
    """The look as a document."""
    return StatusDocument(
        name=folder.name,
        experiment=look.settings.id,
        started=look.setup.started,
        router=look.setup.router,
        mode=look.state.mode if look.state else None,
        weight=look.state.weight / BUCKETS if look.state else None,
        decision=look.decision,
        stands=look.stands,
        act=look.act.act if look.act else None,
        because=look.act.because if look.act else "",
        verdict=look.verdict,
        notes=notes_of(folder, look),
    )


def notes_of(folder: ExperimentFolder, look: Look) -> tuple[str, ...]:
    """What else whoever looks must know, and the next command."""
    notes = []
    if look.state is None:
        notes.append("the router's state cannot be read: it goes on as it was")
    if look.newer and look.act is None:
        notes.append(f"a newer version of {', '.join(look.newer)} is served than the one that is judged")
    if look.is_ramp_done:
        notes.append("the ramp is done and nothing objects; split traffic alone proves no quality")
    elif look.setup.mode == "split" and look.decision == "continue":
        notes.append("a split can roll back or be invalid; it proves no quality, and no verdict promotes it")
    tally = look.tally
    if look.act is None and not (tally.offered or tally.arms):
        notes.append("nothing is counted yet: do requests reach the router, and is it loaded?")
    if look.act is None and look.decision == "promote":
        notes.append(f"next: jettison ab promote {folder.name}")
    elif look.act is None and look.decision != "continue":
        notes.append(f"next: jettison ab rollback {folder.name}")
    return tuple(notes)


def page(folder: ExperimentFolder, look: Look, looks: Sequence[Snapshot]) -> RenderableType:
    """The look as a page of tables."""
    verdict = look.verdict
    stands = ", which stands" if look.stands else ""
    lines = [
        Text(f"{folder.name}: {look.decision}, after {look.progress}{stands}", style="bold"),
        *(Text(f"  {reason}") for reason in verdict.reasons),
        Text(_traffic(look)),
    ]
    figure = _figure(look)
    course = _course(look, looks)
    rows = [line for line in (figure, course) if line]
    notes = [Text(note if note.startswith("next: ") else f"note: {note}") for note in notes_of(folder, look)]
    counts = _arms(look.tally) if look.setup.mode == "split" else _counts(look.tally)
    return Group(*lines, counts, _tests(verdict), *map(Text, rows), *notes)


def _traffic(look: Look) -> str:
    setup, state = look.setup, look.state
    who = " against ".join(f"{side.model}:{side.version}" for side in (setup.baseline, setup.candidate))
    if look.act is not None:
        why = f" ({look.act.because})" if look.act.because else ""
        done = "the candidate answers" if look.act.act == "promote" else "the baseline answers"
        return f"{who}; {done} since {look.act.at}{why}"
    share = f", {state.weight / BUCKETS:.2%} to the candidate" if state and state.mode == "split" else ""
    mode = f"mode {state.mode}{share}" if state else f"mode {setup.mode} at first"
    return f"{who}, {mode}, since {setup.started}"


def _counts(tally: Tally) -> Table:
    table = Table("better", "same", "worse", "between", "waiting", "lost", "agree", "disagree")
    between = tally.judged - tally.better - tally.same - tally.worse
    lost = tally.baseline_lost + tally.candidate_lost
    counts = tally.better, tally.same, tally.worse, between, tally.pending, lost, tally.agree, tally.disagree
    table.add_row(*(f"{count:,}" for count in counts))
    return table


def _arms(tally: Tally) -> Table:
    """What each of the two got at each share, and failed."""
    table = Table("share", "baseline", "candidate", "baseline failed", "candidate failed")
    for weight, arms in tally.arms:
        counts = arms.baseline_units, arms.candidate_units, arms.baseline_errors, arms.candidate_errors
        table.add_row(f"{weight / BUCKETS:.2%}", *(f"{count:,}" for count in counts))
    return table


def _tests(verdict: Verdict) -> Table:
    table = Table("test", "shows, once it is reached", "e", "asked", "reached")
    for entry in verdict.e_values:
        told = beyond(entry.e, entry.threshold), f"{entry.threshold:.6g}", "yes" if entry.reached else "no"
        table.add_row(entry.name, entry.claim, *told)
    return table


def _figure(look: Look) -> str:
    estimates = look.verdict.estimates
    if estimates.difference is not None:
        return _bounds("difference", estimates.difference, sign="+")
    return (
        _bounds("share of disagreements", estimates.disagreement, sign="") if estimates.disagreement else ""
    )


def _bounds(what: str, bounds: Bounds, *, sign: str) -> str:
    if bounds.value is None:
        return ""
    return (
        f"{what} {bounds.value:{sign}.4g}, at least {bounds.low:{sign}.4g}, at most {bounds.high:{sign}.4g}"
    )


def _course(look: Look, looks: Sequence[Snapshot]) -> str:
    """The main e-value over the looks, as a line of bars from 0 to what is asked."""
    name = "quality" if look.settings.evidence == "labels" else "agreement"
    top = max(entry.threshold for entry in look.verdict.e_values if entry.name == name)
    values = [e_value(snapshot.log_e.get(name, 0.0)) for snapshot in looks]
    if len(values) < 2:
        return ""
    step = max(1, len(values) // _BARS_SHOWN)
    bars = "".join(_BARS[min(7, int(8 * value / top))] for value in values[::-1][::step][::-1])
    return f"e of {name} over {len(looks)} looks: {bars}"


def _watch(folder: ExperimentFolder, every_s: float) -> Sequence[Snapshot]:
    """Look until there is a verdict; on a terminal in place, else page after page where something changed."""
    with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
        shown: Sequence[Snapshot] = ()
        while True:
            look = look_at(folder)
            looks = remember_look(folder, look)
            if out.is_terminal or looks[-1:] != shown[-1:]:
                live.update(page(folder, look, looks), refresh=out.is_terminal)
            shown = looks
            if look.decision != "continue" or look.act is not None or look.is_ramp_done:
                return looks
            time.sleep(every_s)
