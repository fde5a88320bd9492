"""`jettison ab`: two models on the same inputs, and which of them is to serve."""

from __future__ import annotations

import typer

from jettison.cli.ab_audit import audit
from jettison.cli.ab_decide import decide
from jettison.cli.ab_label import label
from jettison.cli.ab_merge import merge
from jettison.cli.ab_plan import plan
from jettison.cli.ab_promote import promote, rollback
from jettison.cli.ab_replay import replay
from jettison.cli.ab_serve import serve
from jettison.cli.ab_start import start
from jettison.cli.ab_status import status
from jettison.cli.ab_wait import wait

AB_VERBS = (plan, start, status, label, wait, promote, rollback, replay, merge, decide, audit, serve)

ab = typer.Typer(
    name="ab",
    help="Compare two models on live traffic, and judge them.",
    rich_markup_mode="markdown",
)
for _verb in AB_VERBS:
    ab.command()(_verb)
