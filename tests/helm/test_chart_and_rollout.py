"""The chart and the renderers of `jettison.rollout` write the same objects, and refuse the same plans."""

from __future__ import annotations

from typing import Any

import pytest
from chart_cases import AB, ARGO, CANDIDATE, FLAGGER, IMAGE, ROUTE, driver
from chart_render import Document, merged, one, render
from pydantic import ValidationError

from jettison.core.errors import InputError
from jettison.rollout import argo, flagger, gateway
from jettison.rollout.plan import Gateway, RolloutPlan, Step, VerdictEndpoint

VERDICT = VerdictEndpoint(
    url="http://edge-jettison-verdict.models.svc:8080", experiment="experiment", credentials="verdict"
)


SHARES = (Step(weight=10, verdict=True), Step(weight=50))


def plan(**changes: Any) -> RolloutPlan:
    """The plan that the chart's values in this module come to."""
    values: dict[str, Any] = {
        "name": "edge-jettison",
        "namespace": "models",
        "workload": "edge-jettison-default",
        "selector": {
            "app": "edge-jettison-default",
            "app.kubernetes.io/name": "jettison",
            "app.kubernetes.io/instance": "edge",
            "app.kubernetes.io/component": "server",
            "jettison.dev/target": "default",
            "jettison.dev/variant": "baseline",
        },
        "replicas": 4,
        "steps": (Step(weight=10, verdict=True), Step(weight=50, pause_s=300)),
        "verdict": VERDICT,
    }
    return RolloutPlan.model_validate(values | changes)


def chart(*layers: Document) -> list[Document]:
    return render(merged(IMAGE, AB, *layers))


@pytest.mark.parametrize("routes", [False, True])
def test_argo_s_objects_are_those_of_the_chart(routes):
    layers = (ROUTE, {"rollout": {"argo": {"gatewayPlugin": True}}}) if routes else ()
    found = chart(ARGO, *layers)
    names = {"http_route": "edge-jettison-http", "grpc_route": "edge-jettison-grpc"} if routes else {}
    template, rollout = argo.render(plan(**names))
    assert template["spec"] == one(found, "AnalysisTemplate")["spec"]
    expected = one(found, "Rollout")["spec"]
    del expected["revisionHistoryLimit"]  # the chart's own
    assert rollout["spec"] == expected


@pytest.mark.parametrize("routes", [False, True])
def test_flagger_s_object_is_that_of_the_chart(routes):
    layers = (ROUTE, {"route": {"kinds": ["HTTPRoute"], "hostnames": ["models.example"]}}) if routes else ()
    found = chart(FLAGGER, *layers)
    hung = {
        "gateways": (Gateway(name="edge", namespace="gateways"),),
        "hosts": ("models.example",),
        "steps": SHARES,
    }
    (canary,) = flagger.render(plan(**(hung if routes else {"steps": ()})), bearer="0123456789abcdef")
    assert canary["spec"] == one(found, "Canary")["spec"]


def test_the_gateway_s_weights_are_those_of_the_chart():
    found = chart(ROUTE, CANDIDATE, driver("gateway"), {"route": {"candidateWeight": 25}})
    routes = gateway.render(
        plan(http_route="edge-jettison-http", grpc_route="edge-jettison-grpc"), candidate_weight=25
    )
    for route in routes:
        expected = one(found, str(route["kind"]))
        (rule,) = expected["spec"]["rules"]
        assert route["spec"] == {"rules": [{"backendRefs": rule["backendRefs"]}]}


def test_argo_refuses_a_daemonset_and_one_pod_without_a_route():
    with pytest.raises(InputError, match=r"found a DaemonSet.*Use driver flagger"):
        argo.render(plan(kind="DaemonSet"))
    with pytest.raises(InputError, match=r"expected 2 or more pods, found 1.*name the route"):
        argo.render(plan(replicas=1))
    assert argo.render(plan(replicas=1, http_route="r"))
    assert argo.render(plan(replicas=None))


def test_flagger_refuses_grpc_and_takes_a_daemonset():
    with pytest.raises(InputError, match=r"found the GRPCRoute 'g'.*use driver argo"):
        flagger.render(plan(grpc_route="g"), bearer="t")
    (canary,) = flagger.render(plan(kind="DaemonSet", steps=()), bearer="t")
    assert canary["spec"]["targetRef"]["kind"] == "DaemonSet"  # type: ignore[index]


def test_flagger_refuses_what_it_would_not_read():
    edge = (Gateway(name="edge"),)
    with pytest.raises(InputError, match=r"no steps, found it: without a gateway .*Name gateways"):
        flagger.render(plan(), bearer="t")
    with pytest.raises(InputError, match=r"no hosts, found it: without a gateway"):
        flagger.render(plan(steps=(), hosts=("h",)), bearer="t")
    with pytest.raises(InputError, match=r"no http_route, found it: Flagger makes its own route.*gateways"):
        flagger.render(plan(http_route="r", gateways=edge, steps=SHARES), bearer="t")
    with pytest.raises(InputError, match=r"expected steps without pause_s.*use driver argo"):
        flagger.render(plan(gateways=edge), bearer="t")
    with pytest.raises(InputError, match=r"expected steps, found none\. Add steps"):
        flagger.render(plan(gateways=edge, steps=()), bearer="t")


def test_argo_and_gateway_refuse_gateways_that_they_would_not_read():
    edge = (Gateway(name="edge"),)
    with pytest.raises(InputError, match=r"no gateways and no hosts, found it.*http_route"):
        argo.render(plan(gateways=edge, hosts=("h",)))
    with pytest.raises(InputError, match=r"expected steps, found none"):
        argo.render(plan(steps=()))
    with pytest.raises(InputError, match=r"no gateways, found it.*use driver flagger"):
        gateway.render(plan(http_route="r", gateways=edge), candidate_weight=5)


def test_weights_that_fall_are_refused():
    with pytest.raises(ValidationError, match=r"never fall, found 5 after 10"):
        plan(steps=[{"weight": 10}, {"weight": 5}, {"weight": 50}])
    assert plan(steps=[{"weight": 10, "verdict": True}, {"weight": 10}])


def test_the_gateway_refuses_no_route_and_no_share():
    with pytest.raises(InputError, match=r"expected a route, found none\. Name an HTTPRoute"):
        gateway.render(plan(), candidate_weight=5)
    with pytest.raises(InputError, match=r"expected a weight from 0 to 100, found 101"):
        gateway.render(plan(http_route="r"), candidate_weight=101)


def test_a_plan_with_a_path_in_its_url_is_none():
    with pytest.raises(ValidationError, match="url"):
        VerdictEndpoint(url="http://x/v1", experiment="e", credentials="s")


@pytest.mark.parametrize(("wait_s", "questions"), [(59, 1), (60, 1), (61, 2), (86_400, 1440)])
def test_it_is_asked_until_the_wait_is_over(wait_s, questions):
    assert VERDICT.model_copy(update={"wait_s": wait_s}).questions == questions
