"""Where experiments stand, and what `ab` verbs share of the command line."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import typer

from jettison.core.errors import InputError
from jettison.experiment.folder import ExperimentFolder, find_folder, folders

HOME = typer.Option(
    Path("experiments"),
    "--home",
    envvar="JETTISON_EXPERIMENTS",
    help="Where all experiments of a machine stand.",
)
NAME = typer.Argument(..., help="The experiment's name.")
AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")


def the_running(home: Path, name: str | None) -> ExperimentFolder:
    """The experiment of that name, or where there is no name the only one that runs.

    Raises:
        InputError: There is none, or there are several.
    """
    if name is not None:
        return find_folder(home, name)
    running = [folder for folder in folders(home) if folder.act() is None]
    if len(running) == 1:
        return running[0]
    found = ", ".join(folder.name for folder in running) or "none"
    raise InputError(
        "experiment", detail=f"expected one that runs in {home}, found {found}", fix="Name it with --name"
    )


def host() -> str:
    """This machine's name in the letters that a node's name may have."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()).lstrip("._-")[:56] or "node"
