"""The Gateway API alone: weights of two backends, for a server-side apply that owns nothing else.

Mirrors are no help here: a gateway throws their answers away, so that they give no pairs.
Source: https://gateway-api.sigs.k8s.io/guides/traffic-splitting/
"""

from __future__ import annotations

from collections.abc import Iterator

from jettison.core.errors import InputError
from jettison.rollout.plan import Document, RolloutPlan

API = "gateway.networking.k8s.io/v1"
HTTP_PORT, GRPC_PORT = 8000, 8001
"""Of the chart's Services, as Triton's own."""


def render(plan: RolloutPlan, *, candidate_weight: int) -> tuple[Document, ...]:
    """The routes of the plan, with these weights.

    Raises:
        InputError: There is no route, the weight is no share of 100, or gateways are given, which it does
            not read.
    """
    what = plan.what
    plan.refuse_unread(
        ("gateways", "hosts"),
        why="only weights of a route that is there are set",
        fix="Leave it out, or use driver flagger",
    )
    if not 0 <= candidate_weight <= 100:
        detail = f"expected a weight from 0 to 100, found {candidate_weight}"
        raise InputError(what, detail=detail, fix="Correct it")
    found = tuple(_routes(plan, candidate_weight))
    if not found:
        raise InputError(what, detail="expected a route, found none", fix="Name an HTTPRoute or a GRPCRoute")
    return found


def _routes(plan: RolloutPlan, weight: int) -> Iterator[Document]:
    for kind, name, port in (
        ("HTTPRoute", plan.http_route, HTTP_PORT),
        ("GRPCRoute", plan.grpc_route, GRPC_PORT),
    ):
        if name is not None:
            backends = [
                {"name": plan.name, "port": port, "weight": 100 - weight},
                {"name": f"{plan.name}-candidate", "port": port, "weight": weight},
            ]
            yield plan.object_of(API, kind, name, {"rules": [{"backendRefs": backends}]})
