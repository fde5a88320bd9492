"""`jettison report`: a finished run as one HTML page."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel, ConfigDict

from jettison.cli.console import out, print_json
from jettison.core.errors import InputError
from jettison.core.files import write_bytes
from jettison.experiment.folder import ExperimentFolder
from jettison.experiment.history import read_history
from jettison.experiment.verdict import Verdict
from jettison.experiment.verdict_file import read_verdict
from jettison.report.course import Course, EValue, Look
from jettison.report.page import PAGE_FILE, page_of


class ReportDocument(BaseModel):
    """Where the page is, and how large."""

    model_config = ConfigDict(frozen=True)

    run: Path
    path: Path
    size_bytes: int


def report(
    run: Path = typer.Argument(..., metavar="RUN_DIR", help="A finished run: the folder with report.json."),
    compare: tuple[str, str] | None = typer.Option(
        None, "--compare", metavar="A B", help="Two variants, or `baseline`, to open the page with."
    ),
    experiment: Path | None = typer.Option(
        None,
        "--experiment",
        help="An experiment's folder, or a verdict file; its looks are read from history.jsonl beside it.",
    ),
    output: Path | None = typer.Option(
        None, "--output", "-o", help=f"The page; {PAGE_FILE} in the run's folder by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Write a finished run as one HTML page.

    It needs no server, no network and no other file. `run` and `compress` write it by themselves; this verb
    writes it again, for two variants side by side, or with what live traffic said.

    Example: `jettison report examples/fashion/runs/fashion --compare baseline int8`
    """
    course = None if experiment is None else course_in(experiment)
    path = write_page(run, compare=compare, experiment=course, output=output)
    if as_json:
        print_json(ReportDocument(run=run.resolve(), path=path.resolve(), size_bytes=path.stat().st_size))
    else:
        out.print(f"report: {path}", highlight=False, soft_wrap=True)


def write_page(
    run: Path,
    *,
    compare: tuple[str, str] | None = None,
    experiment: Course | None = None,
    output: Path | None = None,
) -> Path:
    """Write the page of a finished run, and tell where.

    Raises:
        InputError: The folder holds no run, a name is not in it, or the output is a folder.
    """
    path = output or run / PAGE_FILE
    if path.is_dir():
        raise InputError(
            f"-o {path}",
            detail="expected a file, found a folder",
            fix=f"Give the path of a file, as {PAGE_FILE}",
        )
    content = page_of(run, compare=compare, experiment=experiment).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def course_in(path: Path) -> Course:
    """The verdict in that file or experiment's folder, with the looks that are known beside it.

    Raises:
        InputError: There is no verdict, or it cannot be read.
    """
    file = ExperimentFolder(path).verdict_path if path.is_dir() else path
    verdict = read_verdict(file)
    looks = read_history(ExperimentFolder(file.parent).history_path)
    return Course(
        experiment=verdict.experiment,
        decision=verdict.decision,
        reasons=verdict.reasons,
        units=verdict.units,
        pending=verdict.pending,
        tests=_tests(verdict),
        looks=tuple(Look(look.at, look.units, look.log_e) for look in looks),
    )


def _tests(verdict: Verdict) -> tuple[EValue, ...]:
    return tuple(
        EValue(entry.name, entry.role, entry.claim, entry.log_e, entry.threshold, entry.reached)
        for entry in verdict.e_values
    )
