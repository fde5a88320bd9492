"""`jettison rollout apply`: a rollout's objects, sent to a cluster."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.cli.rollout_render import CANDIDATE_WEIGHT, DRIVER, PLAN, TOKEN, Driver, objects_of
from jettison.rollout.cluster import ApiServer, Applied
from jettison.rollout.cluster import apply as apply_objects


class AppliedObjects(BaseModel):
    """What `rollout apply --json` prints."""

    driver: str
    dry_run: bool
    objects: tuple[Applied, ...]


def apply(
    plan: Path = PLAN,
    driver: Driver = DRIVER,
    token: Path | None = TOKEN,
    candidate_weight: int | None = CANDIDATE_WEIGHT,
    kubeconfig: Path | None = typer.Option(None, "--kubeconfig", help="The cluster's configuration."),
    context: str | None = typer.Option(None, "--context", help="The context in it."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Ask the server whether it would take all; change nothing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Send a rollout's objects to a cluster by server-side apply; nothing is forced.

    Example: `jettison rollout apply rollout.yaml --driver argo --context edge --dry-run`
    """
    objects = objects_of(plan, driver, token=token, candidate_weight=candidate_weight)
    taken = apply_objects(objects, ApiServer(kubeconfig, context), dry_run=dry_run)
    if as_json:
        print_json(AppliedObjects(driver=driver, dry_run=dry_run, objects=taken))
        return
    for one in taken:
        typer.echo(f"{one.kind} {one.namespace}/{one.name}: {'would be taken' if dry_run else 'applied'}")
