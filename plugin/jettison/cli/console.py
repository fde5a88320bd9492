"""What the user sees: tables on stdout, progress and errors on stderr, or one JSON document on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jettison.cli.interrupts import print_error_document
from jettison.core.errors import JettisonError
from jettison.core.progress import Progress as Meter
from jettison.core.progress import Reporter, silent

EVIDENCE_SAYS_NO = 1
"""Exit code where the command did its work and the answer is no."""

_WIDE = 120


class PlainConsole(Console):
    """A console that prints words as they are: names of models and nodes hold brackets, paths hold colons.

    Args:
        stderr: Print there.
        width: Of a line; the terminal's by default.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what fails on stdout says so."""
        with contextlib.nullcontext() if self.stderr else stdout_named():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> NoReturn:
        """Tell the border, where rich would end the process by itself."""
        raise BrokenPipeError


out = PlainConsole()
err = PlainConsole(stderr=True)


def print_json(document: BaseModel) -> None:
    """The document as JSON, alone on stdout."""
    with stdout_named():
        sys.stdout.write(document.model_dump_json(indent=1) + "\n")
        sys.stdout.flush()  # a closed pipe or a full disk is told here, not as the interpreter ends


@contextlib.contextmanager
def stdout_named() -> Iterator[None]:
    """Errors of writing there say that it was stdout, of which the system gives no name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "stdout"
        raise


def print_error(error: JettisonError, *, as_json: bool) -> None:
    """What failed, what was found and what to do, on stderr; with --json also as a document on stdout."""
    if as_json:
        print_error_document(error)
    err.print(Text("error: ", style="bold red"), end="")
    err.print(str(error), highlight=False, soft_wrap=True)


def table_console() -> Console:
    """A console for tables that stays wide where no terminal sets a width."""
    return out if out.is_terminal else PlainConsole(width=_WIDE)


@contextlib.contextmanager
def progress_bars() -> Iterator[Reporter]:
    """A reporter that draws a bar for each piece of work; silent when stderr is no terminal.

    What the user's own functions print meanwhile goes to stderr as well: stdout is for the answer.
    """
    if not err.is_terminal:
        with contextlib.redirect_stdout(sys.stderr):
            yield silent
        return
    title = TextColumn("{task.description}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bars:

        def reporter(title: str) -> Meter:
            task = bars.add_task(title, total=None, visible=False)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total, visible=done < total)

            return advance

        yield reporter
