"""`jettison ab`: two models on the same inputs, and which of them is to serve."""

from __future__ import annotations

import typer

from jettison.cli.ab_audit import audit
from jettison.cli.ab_decide import decide
from jettison.cli.ab_merge import merge
from jettison.cli.ab_plan import plan
from jettison.cli.ab_serve import serve

AB_VERBS = (plan, merge, decide, audit, serve)

ab = typer.Typer(
    name="ab",
    help="Compare two models on live traffic, and judge them.",
    rich_markup_mode="markdown",
)
for _verb in AB_VERBS:
    ab.command()(_verb)
