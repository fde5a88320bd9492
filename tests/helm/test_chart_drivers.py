"""The verdict service as the chart runs it, and how each driver asks it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from chart_cases import AB, ARGO, CANDIDATE, DAEMON, FLAGGER, IMAGE, ROUTE, A, B, driver
from chart_render import CHART, container, kinds, merged, one, pod_specs, render

from jettison.experiment.settings_file import load_settings

URL = "http://edge-jettison-verdict.models.svc:8080"
GUARDS = [
    {"type": "latency", "limitMs": 50, "quantile": 0.99, "provenQuantile": 0.98},
    {"type": "errors"},
    {"type": "slice", "name": "pedestrian", "margin": 0.02, "proof": True},
]


def documents(*layers):
    return render(merged(IMAGE, AB, *layers))


def verdict_container(found):
    (spec,) = [spec for name, spec in pod_specs(found) if name == "Deployment edge-jettison-verdict"]
    return container(spec, "verdict")


def test_the_experiment_is_one_that_jettison_reads(tmp_path):
    found = documents({"ab": {"guards": GUARDS, "maxUnits": 10278, "minUnits": 100, "unitKey": "clip"}})
    path = tmp_path / "experiment.yaml"
    path.write_text(one(found, "ConfigMap", "edge-jettison-verdict")["data"]["experiment.yaml"])
    settings = load_settings(path)
    assert (settings.baseline, settings.candidate) == (A, B)
    assert (settings.margin, settings.planned_disagreement, settings.alpha) == (0.01, 0.04, 0.05)
    assert (settings.min_units, settings.max_units, settings.unit) == (100, 10278, "clip")
    assert settings.latency
    assert (settings.latency.limit_ms, settings.latency.proven_quantile) == (50, 0.98)
    assert settings.guard_errors
    assert [(part.name, part.margin, part.proof) for part in settings.slices] == [("pedestrian", 0.02, True)]


def test_no_guard_of_errors_where_none_is_asked_and_no_end_where_none_is(tmp_path):
    path = tmp_path / "experiment.yaml"
    found = documents({"ab": {"guards": []}})
    path.write_text(one(found, "ConfigMap", "edge-jettison-verdict")["data"]["experiment.yaml"])
    settings = load_settings(path)
    assert (settings.guard_errors, settings.max_units, settings.latency) == (False, None, None)


def test_the_command_line_names_what_is_mounted():
    found = documents(
        {"ab": {"counters": {"scrape": False, "claimName": "c"}, "signing": {"secretName": "k"}}}
    )
    main = verdict_container(found)
    paths = {mount["mountPath"] for mount in main["volumeMounts"]}
    given = [argument.partition("=")[2] for argument in main["command"] if "=/" in argument]
    assert len(given) == 5
    for path in given:
        assert any(path == mount or path.startswith(f"{mount}/") for mount in paths), path
    assert not [argument for argument in main["command"] if argument.startswith("--scrape")]


def test_the_command_line_is_one_that_the_service_takes():
    if importlib.util.find_spec("jettison.cli.ab_serve") is None:
        pytest.skip("`jettison ab serve` is not part of this version")
    from typer.main import get_command

    from jettison.cli.verbs import app

    command = verdict_container(documents({"ab": {"counters": {"claimName": "c"}}}))["command"]
    serve = get_command(app).commands["ab"].commands["serve"]  # type: ignore[attr-defined]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {argument.partition("=")[0] for argument in command[3:]} <= known


def test_the_verdict_service_is_one_pod_that_keeps_its_state():
    found = documents()
    deployment = one(found, "Deployment", "edge-jettison-verdict")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    claim = one(found, "PersistentVolumeClaim", "edge-jettison-verdict")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_token_is_in_no_object_but_flagger_s():
    for layers in ((ARGO,), ()):
        assert "0123456789abcdef" not in json.dumps(documents(*layers))
    assert "0123456789abcdef" in json.dumps(one(documents(FLAGGER), "Canary"))


def test_the_router_is_told_by_a_file_that_changes_without_a_restart():
    router = {"enabled": True, "experiment": "0" * 32, "weight": 2500, "salt": "s"}
    found = documents({"ab": {"mode": "split", "router": router}})
    state = json.loads(one(found, "ConfigMap", "edge-jettison-router")["data"]["state.json"])
    assert state == {
        "format": "jettison-router/1", "mode": "split", "weight": 2500, "experiment": "0" * 32, "salt": "s",
    }  # fmt: skip
    other = documents({"ab": {"mode": "split", "router": {**router, "weight": 5000}}})
    name = "edge-jettison-default"
    assert one(found, "Deployment", name) == one(other, "Deployment", name)
    off = documents({"ab": {"mode": "split", "router": {"enabled": True}}})
    assert json.loads(one(off, "ConfigMap", "edge-jettison-router")["data"]["state.json"])["mode"] == "off"


def test_a_router_can_take_its_node_s_name_from_its_pod():
    found = documents({"ab": {"router": {"enabled": True}}})
    (container,) = one(found, "Deployment", "edge-jettison-default")["spec"]["template"]["spec"]["containers"]
    fields = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container["env"]
        if "fieldRef" in entry.get("valueFrom", {})
    }
    assert (fields["NODE_NAME"], fields["POD_NAME"]) == ("spec.nodeName", "metadata.name")


def test_argo_asks_inline_until_it_knows():
    found = documents(ARGO, driver("argo", waitSeconds=3601, intervalSeconds=60))
    (metric,) = one(found, "AnalysisTemplate")["spec"]["metrics"]
    assert metric["successCondition"] == 'result.decision == "promote"'
    assert metric["failureCondition"] == 'result.decision == "rollback"'
    limits = {key: metric[key] for key in metric if key == "count" or key.endswith("Limit")}
    assert limits == {
        "count": 61,
        "inconclusiveLimit": 61,
        "failureLimit": 0,
        "consecutiveSuccessLimit": 1,
        "consecutiveErrorLimit": 20,
    }
    web = metric["provider"]["web"]
    assert web["url"] == f"{URL}/v1/experiments/experiment/verdict"
    assert web["headers"] == [{"key": "Authorization", "value": "Bearer {{args.token}}"}]


def test_argo_s_rollout_takes_our_deployment_over():
    found = documents(ARGO)
    spec = one(found, "Rollout")["spec"]
    deployment = one(found, "Deployment", spec["workloadRef"]["name"])
    assert spec["selector"] == deployment["spec"]["selector"]
    assert "replicas" not in deployment["spec"]  # Argo scales it down, and an upgrade must not undo that
    canary = spec["strategy"]["canary"]
    services = {document["metadata"]["name"] for document in found if document["kind"] == "Service"}
    assert {canary["stableService"], canary["canaryService"]} <= services
    template = {"templates": [{"templateName": one(found, "AnalysisTemplate")["metadata"]["name"]}]}
    assert canary["steps"] == [
        {"setWeight": 10}, {"analysis": template}, {"setWeight": 50}, {"pause": {"duration": "300s"}},
    ]  # fmt: skip
    assert "analysis" not in canary  # background analysis would succeed while nothing is known


def test_argo_s_plugin_weighs_the_routes_that_the_chart_makes():
    found = documents(ROUTE, driver("argo", argo={"gatewayPlugin": True}))
    plugin = one(found, "Rollout")["spec"]["strategy"]["canary"]["trafficRouting"]["plugins"]
    (settings,) = plugin.values()
    assert settings["httpRoutes"] == [{"name": one(found, "HTTPRoute")["metadata"]["name"]}]
    assert settings["grpcRoutes"] == [{"name": one(found, "GRPCRoute")["metadata"]["name"]}]


def test_autoscaling_scales_what_runs():
    found = documents(ARGO, {"autoscaling": {"enabled": True, "minReplicas": 2}})
    assert one(found, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "Rollout"


@pytest.mark.parametrize("layers", [(), (DAEMON,)])
def test_flagger_asks_four_questions_each_at_its_own_path(layers):
    found = documents(FLAGGER, *layers)
    spec = one(found, "Canary")["spec"]
    asked = {hook["type"]: hook["url"] for hook in spec["analysis"]["webhooks"]}
    assert asked == {
        "pre-rollout": f"{URL}/flagger/pre-rollout",
        "confirm-traffic-increase": f"{URL}/flagger/gate",
        "confirm-promotion": f"{URL}/flagger/promote",
        "rollback": f"{URL}/flagger/rollback",
    }
    assert all(hook["metadata"]["experiment"] == "experiment" for hook in spec["analysis"]["webhooks"])
    assert one(found, spec["targetRef"]["kind"], spec["targetRef"]["name"])
    assert spec["service"]["name"] not in {
        document["metadata"]["name"] for document in found if document["kind"] == "Service"
    }  # Flagger makes it


def test_flagger_tells_pods_apart_by_a_label_of_their_own():
    found = documents(FLAGGER)
    labels = one(found, "Deployment", "edge-jettison-default")["spec"]["selector"]["matchLabels"]
    assert labels["app"] == "edge-jettison-default"
    assert (
        "app"
        not in one(found, "Deployment", "edge-jettison-verdict")["spec"]["template"]["metadata"]["labels"]
    )


def test_kserve_promotes_by_the_name_of_the_predictor_that_runs():
    spec = one(documents(CANDIDATE, driver("kserve")), "InferenceService")["spec"]
    promoted = merged(
        IMAGE,
        AB,
        driver("kserve"),
        {"variants": {"baseline": {"digest": B}}, "ab": {"digests": {"baseline": A}}},
    )
    after = one(render(promoted), "InferenceService")["spec"]
    assert spec["canary"][0]["predictor"]["name"] == after["predictor"]["name"]
    assert spec["predictor"]["name"] != after["predictor"]["name"]
    assert "canary" not in after
    alone = render(merged(IMAGE, driver("kserve")))
    assert one(alone, "Service")["metadata"]["name"] == "edge-jettison-metrics"
    assert not {"Deployment", "PodDisruptionBudget"} & kinds(alone)


def test_the_gateway_s_weights_are_one_hundred():
    found = documents(ROUTE, CANDIDATE, driver("gateway"), {"route": {"candidateWeight": 25}})
    for kind in ("HTTPRoute", "GRPCRoute"):
        (rule,) = one(found, kind)["spec"]["rules"]
        assert {backend["name"]: backend["weight"] for backend in rule["backendRefs"]} == {
            "edge-jettison": 75,
            "edge-jettison-candidate": 25,
        }


def test_queries_ask_for_this_release_alone():
    found = documents({"monitoring": {"rules": {"enabled": True}}})
    rules = one(found, "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert all(re.search(r'namespace="models"', rule["expr"]) for rule in rules)
    assert (
        yaml.safe_load(rules[1]["annotations"]["summary"])
        == "More than 1 % of the requests to {{ $labels.model }} fail"
    )


def test_rules_and_panels_ask_for_counters_that_the_router_has():
    values = {"monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}}
    asked = set(re.findall(r"jettison_router_(\w+)_total", json.dumps(documents(values))))
    backend = CHART.parents[1] / "plugin" / "jettison" / "triton" / "backends" / "jettison_router"
    source = "".join(path.read_text() for path in backend.glob("*.py"))
    assert len(asked) >= 3
    assert [name for name in asked if f'"{name}"' not in source] == []


def test_rules_and_panels_ask_for_series_that_the_verdict_service_has():
    if importlib.util.find_spec("jettison.verdict_service") is None:
        pytest.skip("the verdict service is not part of this version")
    from jettison.verdict_service import metrics

    values = {"monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}}
    found = documents(values, FLAGGER, {"rollout": {"flagger": {"prometheusAddress": "http://prom:9090"}}})
    source = Path(metrics.__file__).read_text()
    assert [name for name in re.findall(r"\bab_\w+", json.dumps(found)) if f'"{name}"' not in source] == []
