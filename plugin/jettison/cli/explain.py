"""`jettison explain`: what a log of Triton or TensorRT says, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from jettison.cli.console import print_json, table_console
from jettison.core.errors import InputError
from jettison.pipeline.explain_log import LogExplanation, explain_log

_STDIN = "-"


def explain(
    log: str = typer.Argument(..., help="A log of tritonserver or TensorRT; - for stdin."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Tell what errors in a log of Triton or TensorRT mean.

    Reads a file or stdin to its end, at most 1 GiB. No known message is no proof that all is well.

    Example: `kubectl logs triton-0 | jettison explain -`
    """
    found = _read(log)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _read(log: str) -> LogExplanation:
    if log == _STDIN:
        return explain_log(sys.stdin.buffer, "stdin")
    try:
        with Path(log).open("rb") as stream:
            return explain_log(stream, str(Path(log).absolute()))
    except OSError as error:
        detail = f"expected a file that can be read, found: {error.strerror or error}"
        raise InputError(f"log {log}", detail=detail, fix="Give the path of a log, or - for stdin") from error


def _print(found: LogExplanation) -> None:
    console = table_console()
    for cause in found.causes:
        times = "" if cause.count == 1 else f", {cause.count} lines"
        console.print(
            f"line {cause.line}{times}, {cause.speaker}: {cause.cause}", highlight=False, soft_wrap=True
        )
        console.print(f"  {cause.text}", highlight=False, soft_wrap=True)
        console.print(f"  {cause.fix} (source: {cause.source})", highlight=False, soft_wrap=True)
    if not found.causes:
        console.print(f"no known message in {found.lines} lines; that is no proof that all is well")
    if not found.is_whole:
        console.print(f"note: only the first {found.lines} lines were read")
