"""`jettison ab audit`: a verdict made again from its own file."""

from __future__ import annotations

from pathlib import Path

import typer

from jettison.cli.console import EVIDENCE_SAYS_NO, out, print_json
from jettison.experiment.counter_file import read_key
from jettison.experiment.verdict_file import audit as decide_again
from jettison.experiment.verdict_file import read_verdict


def audit(
    file: Path = typer.Argument(..., help="A verdict file, as `ab decide -o` writes it."),
    key: Path | None = typer.Option(None, "--key", help="The key by which all counters must be signed."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Check a verdict: compute every figure again from its counters.

    Exit code 1 where anything differs.

    Example: `jettison ab audit verdict.json --key fleet.key`
    """
    found = decide_again(read_verdict(file), key=None if key is None else read_key(key))
    if as_json:
        print_json(found)
    else:
        out.print("agrees" if found.agrees else "differs")
        for difference in found.differences:
            out.print(f"  {difference}", highlight=False, soft_wrap=True)
        out.print(f"decision by its counters: {found.decision or 'none, they are of another experiment'}")
        for reason in found.reasons:
            out.print(f"  {reason}", highlight=False, soft_wrap=True)
    if not found.agrees:
        raise typer.Exit(EVIDENCE_SAYS_NO)
