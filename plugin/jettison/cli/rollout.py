"""`jettison rollout`: how a verdict moves traffic in a cluster."""

from __future__ import annotations

import typer

from jettison.cli.rollout_apply import apply
from jettison.cli.rollout_render import render

ROLLOUT_VERBS = (render, apply)

rollout = typer.Typer(
    name="rollout",
    help="Write, or send to a cluster, what rollout controllers need to act on a verdict.",
    rich_markup_mode="markdown",
)
for _verb in ROLLOUT_VERBS:
    rollout.command()(_verb)


@rollout.callback()
def _rollout() -> None:
    """Write, or send to a cluster, what rollout controllers need to act on a verdict."""
