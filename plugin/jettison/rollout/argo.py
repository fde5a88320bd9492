"""Argo Rollouts: a Rollout over our Deployment, and an inline analysis that asks for the verdict.

Inline, since background analysis counts as successful while nothing is known.
Source: https://argo-rollouts.readthedocs.io/en/stable/features/analysis/
"""

from __future__ import annotations

from collections.abc import Iterator

from jettison.core.errors import InputError
from jettison.rollout.plan import Document, RolloutPlan, Step

API = "argoproj.io/v1alpha1"
_ERRORS_IN_A_ROW = 20
"""Chosen: a verdict service that restarts is away for a minute or two, and is asked every minute."""


def render(plan: RolloutPlan) -> tuple[Document, ...]:
    """The AnalysisTemplate and the Rollout.

    Raises:
        InputError: The workload is a DaemonSet, one pod shall share traffic with itself, there are no
            steps, or gateways are given, which Argo does not read.
    """
    _check(plan)
    template = f"{plan.name}-verdict"
    return (
        plan.object_of(API, "AnalysisTemplate", template, _analysis(plan)),
        plan.object_of(API, "Rollout", plan.workload, _rollout(plan, template)),
    )


def _check(plan: RolloutPlan) -> None:
    plan.require_steps()
    plan.refuse_unread(
        ("gateways", "hosts"),
        why="Argo makes no routes of its own",
        fix="Name http_route or grpc_route whose weights it sets, or use driver flagger",
    )
    what = plan.what
    if plan.kind == "DaemonSet":
        raise InputError(
            what,
            detail="expected a Deployment, found a DaemonSet, which Argo Rollouts does not know",
            fix="Use driver flagger, or roll out cluster by cluster",
        )
    if not (plan.http_route or plan.grpc_route) and plan.replicas is not None and plan.replicas < 2:
        raise InputError(
            what,
            detail=f"expected 2 or more pods, found {plan.replicas}: without a route Argo shares by pods",
            fix="Add replicas, or name the route whose weights it sets",
        )


def _analysis(plan: RolloutPlan) -> Document:
    """Both conditions are given, so that "continue" is neither: inconclusive, as often as it is asked at all.

    When all questions are asked Argo pauses, which is right for an experiment that is exhausted.
    """
    verdict = plan.verdict
    secret = {"name": verdict.credentials, "key": verdict.credentials_key}
    web: Document = {
        "url": f"{verdict.url}/v1/experiments/{verdict.experiment}/verdict",
        "timeoutSeconds": 10,
        "jsonPath": "{$}",
        "headers": [{"key": "Authorization", "value": "Bearer {{args.token}}"}],
    }
    metric: Document = {
        "name": "verdict",
        "interval": f"{verdict.interval_s}s",
        "count": verdict.questions,
        "inconclusiveLimit": verdict.questions,
        "failureLimit": 0,
        "consecutiveSuccessLimit": 1,
        "consecutiveErrorLimit": _ERRORS_IN_A_ROW,
        "successCondition": 'result.decision == "promote"',
        "failureCondition": 'result.decision == "rollback"',
        "provider": {"web": web},
    }
    return {"args": [{"name": "token", "valueFrom": {"secretKeyRef": secret}}], "metrics": [metric]}


def _rollout(plan: RolloutPlan, template: str) -> Document:
    canary: Document = {
        "stableService": plan.name,
        "canaryService": f"{plan.name}-candidate",
        # The old pod holds the GPU that the new one waits for.
        "maxSurge": 0,
        "maxUnavailable": 1,
        **_routing(plan),
        "steps": [entry for step in plan.steps for entry in _step(step, template)],
    }
    return {
        **({} if plan.replicas is None else {"replicas": plan.replicas}),
        "progressDeadlineSeconds": plan.progress_s,
        "selector": {"matchLabels": dict(plan.selector)},
        "workloadRef": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": plan.workload, "scaleDown": "onsuccess",
        },
        "strategy": {"canary": canary},
    }  # fmt: skip


def _routing(plan: RolloutPlan) -> Document:
    """The Gateway API's plugin, where there are routes."""
    routes: Document = {}
    if plan.http_route:
        routes["httpRoutes"] = [{"name": plan.http_route}]
    if plan.grpc_route:
        routes["grpcRoutes"] = [{"name": plan.grpc_route}]
    if not routes:
        return {}
    plugin = {"argoproj-labs/gatewayAPI": {"namespace": plan.namespace, **routes}}
    return {"trafficRouting": {"plugins": plugin}}


def _step(step: Step, template: str) -> Iterator[Document]:
    yield {"setWeight": step.weight}
    if step.verdict:
        yield {"analysis": {"templates": [{"templateName": template}]}}
    if step.pause_s is not None:
        yield {"pause": {"duration": f"{step.pause_s}s"}}
