"""`jettison rollout render`: the objects by which a controller acts on the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import typer
import yaml
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.core.errors import InputError
from jettison.core.files import read_bounded
from jettison.rollout import argo, flagger, gateway
from jettison.rollout.plan import Document, RolloutPlan
from jettison.rollout.plan_file import load_plan

Driver = Literal["argo", "flagger", "gateway"]
PLAN = typer.Argument(..., help="The plan (YAML).")
DRIVER = typer.Option(..., "--driver", help="Who moves the traffic.")
TOKEN = typer.Option(
    None,
    "--token",
    help="For flagger: a file with the verdict service's token, which the object will hold.",
)
CANDIDATE_WEIGHT = typer.Option(
    None, "--candidate-weight", help="For gateway: of 100 requests, how many the candidate gets."
)
_LARGEST_TOKEN_BYTES = 4096
"""As the verdict service takes it."""


class Rendered(BaseModel):
    """What `rollout render --json` prints."""

    driver: str
    objects: tuple[Document, ...]


def render(
    plan: Path = PLAN,
    driver: Driver = DRIVER,
    token: Path | None = TOKEN,
    candidate_weight: int | None = CANDIDATE_WEIGHT,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of YAML."),
) -> None:
    """Render a rollout's objects as YAML; nothing is sent anywhere.

    Example: `jettison rollout render rollout.yaml --driver argo | kubectl apply -f -`
    """
    objects = objects_of(plan, driver, token=token, candidate_weight=candidate_weight)
    if as_json:
        print_json(Rendered(driver=driver, objects=objects))
    else:
        typer.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


def objects_of(
    plan: Path, driver: Driver, *, token: Path | None, candidate_weight: int | None
) -> tuple[Document, ...]:
    """A plan's objects, with the one option that the driver needs."""
    needs = {"flagger": ("--token", token), "gateway": ("--candidate-weight", candidate_weight)}
    _refuse_unread(driver, needs)
    return _objects(load_plan(plan), token, candidate_weight)


def _refuse_unread(driver: Driver, needs: Mapping[str, tuple[str, object]]) -> None:
    """Each option belongs to one driver, which cannot do without it."""
    for owner, (option, value) in needs.items():
        if owner != driver and value is not None:
            raise InputError(
                "rollout", detail=f"{option} is for driver {owner}, found {driver}", fix="Leave it out"
            )
        if owner == driver and value is None:
            raise InputError("rollout", detail=f"driver {driver} needs {option}", fix=f"Give {option}")


def _objects(plan: RolloutPlan, token: Path | None, candidate_weight: int | None) -> tuple[Document, ...]:
    """By the option that the driver needs: `_refuse_unread` saw that it is there, and no other."""
    if token is not None:
        return flagger.render(plan, bearer=_token(token))
    if candidate_weight is not None:
        return gateway.render(plan, candidate_weight=candidate_weight)
    return argo.render(plan)


def _token(path: Path) -> str:
    """The token in a file, without the line's end."""
    what = f"token {path}"
    content = read_bounded(
        path, what, most=_LARGEST_TOKEN_BYTES, missing="Correct the path", fix="Give a token"
    ).strip()
    if not content or any(not 0x21 <= byte <= 0x7E for byte in content):
        detail = "expected letters, digits and signs, found other bytes or none"
        raise InputError(what, detail=detail, fix="Give the token of the verdict service")
    return content.decode()
