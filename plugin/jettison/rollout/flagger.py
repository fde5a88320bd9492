"""Flagger: a Canary whose four webhooks ask the verdict service, each at a path of its own.

A yes to the webhook `rollback` is an order, so that it cannot share a path with the others.
Source: https://docs.flagger.app/usage/webhooks
"""

from __future__ import annotations

from jettison.core.errors import InputError
from jettison.rollout.plan import Document, RolloutPlan

API = "flagger.app/v1beta1"
_HOOKS = (
    ("may-start", "pre-rollout", "pre-rollout"),
    ("may-grow", "confirm-traffic-increase", "gate"),
    ("may-promote", "confirm-promotion", "promote"),
    ("must-go", "rollback", "rollback"),
)
"""Name, type, and the last part of the path."""


def render(plan: RolloutPlan, *, bearer: str, threshold: int = 5) -> tuple[Document, ...]:
    """The Canary.

    Args:
        plan: What shall be rolled out.
        bearer: The token that the verdict service wants. Flagger knows no Secrets: it stands in the object.
        threshold: Failed checks until the candidate is taken out.

    Raises:
        InputError: The plan asks for what Flagger does not do: routes of other people, gRPC, pauses of
            steps, or shares of traffic without a gateway.
    """
    _check(plan)
    spec: Document = {
        "targetRef": {"apiVersion": "apps/v1", "kind": plan.kind, "name": plan.workload},
        "progressDeadlineSeconds": plan.progress_s,
        "provider": "gatewayapi:v1" if plan.gateways else "kubernetes",
        "service": _service(plan),
        "analysis": {
            "interval": f"{plan.verdict.interval_s}s",
            "threshold": threshold,
            **_pace(plan),
            "webhooks": [_webhook(plan, bearer, *hook) for hook in _HOOKS],
        },
    }
    return (plan.object_of(API, "Canary", plan.workload, spec),)


def _check(plan: RolloutPlan) -> None:
    if plan.grpc_route:
        raise InputError(
            plan.what,
            detail=f"expected HTTP routes alone, found the GRPCRoute {plan.grpc_route!r}",
            fix="Flagger knows none: leave it out, or use driver argo",
        )
    plan.refuse_unread(
        ("http_route",),
        why="Flagger makes its own route",
        fix="Name the gateways where it shall hang it, or use driver argo",
    )
    if plan.gateways:
        plan.require_steps()
    else:
        plan.refuse_unread(
            ("steps", "hosts"),
            why="without a gateway Flagger gives the candidate no share of the traffic",
            fix="Name gateways, or leave it out: the candidate then runs beside until the verdict",
        )
    if any(step.pause_s is not None for step in plan.steps):
        raise InputError(
            plan.what,
            detail="expected steps without pause_s, found one: Flagger's steps last verdict.interval_s each",
            fix="Leave pause_s out, or use driver argo",
        )


def _service(plan: RolloutPlan) -> Document:
    service: Document = {
        "name": plan.name, "port": 8000, "targetPort": "http", "portName": "http", "portDiscovery": True,
    }  # fmt: skip
    if plan.gateways:
        service |= {"hosts": list(plan.hosts)} if plan.hosts else {}
        service["gatewayRefs"] = [gateway.model_dump(exclude_none=True) for gateway in plan.gateways]
    return service


def _pace(plan: RolloutPlan) -> Document:
    """Weights behind a gateway; without one the candidate runs beside, and the verdict decides."""
    if plan.gateways:
        return {"stepWeights": [step.weight for step in plan.steps]}
    return {"iterations": plan.verdict.questions}


def _webhook(plan: RolloutPlan, bearer: str, name: str, kind: str, path: str) -> Document:
    return {
        "name": name,
        "type": kind,
        "url": f"{plan.verdict.url}/flagger/{path}",
        "timeout": "10s",
        "metadata": {"experiment": plan.verdict.experiment, "token": bearer},
    }
