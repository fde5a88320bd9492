"""`python -m jettison.cli.verdict`: `jettison ab serve` alone, where no model library is installed."""

from __future__ import annotations

import typer

from jettison.cli.ab_serve import serve
from jettison.cli.main import main


def app() -> typer.Typer:
    """The command line with this one verb."""
    found = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    found.command()(serve)
    return found


if __name__ == "__main__":
    main(app)
