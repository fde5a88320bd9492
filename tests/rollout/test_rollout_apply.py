"""`rollout apply`, by the official client against a small API server that speaks the protocol over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from api_server import ApiServer, api_server
from typer.testing import CliRunner

from jettison.cli.rollout import rollout
from jettison.core.errors import ExternalError, InputError, MissingError
from jettison.rollout import cluster

pytest.importorskip("kubernetes", reason="the extra 'kubernetes' is missing")

PLAN = {
    "name": "fashion",
    "namespace": "models",
    "workload": "fashion-l4",
    "selector": {"app": "fashion-l4"},
    "replicas": 4,
    "steps": [{"weight": 10, "verdict": True}],
    "verdict": {"url": "http://verdict:8080", "experiment": "night", "credentials": "verdict"},
    "http_route": "fashion",
}
TEMPLATE, ROLLOUT = (
    f"/apis/argoproj.io/v1alpha1/namespaces/models/{name}"
    for name in ("analysistemplates/fashion-verdict", "rollouts/fashion-l4")
)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    return path


def said(server: ApiServer, plan: Path, *more: str, driver: str = "argo"):
    line = ["apply", str(plan), "--driver", driver, "--json", *more]
    return CliRunner().invoke(rollout, [*line, "--kubeconfig", str(server.kubeconfig(plan.parent))])


def test_all_are_tried_before_any_is_sent_and_what_is_referred_to_comes_first(server, plan):
    result = said(server, plan)
    assert result.exit_code == 0, result.output
    taken = json.loads(result.stdout)
    assert [one["kind"] for one in taken["objects"]] == ["AnalysisTemplate", "Rollout"]
    assert [(path, query.get("dryRun")) for path, _, query in server.asked] == [
        (TEMPLATE, "All"), (ROLLOUT, "All"), (TEMPLATE, None), (ROLLOUT, None),
    ]  # fmt: skip
    assert {query["fieldManager"] for _, _, query in server.asked} == {"jettison"}
    assert {query["fieldValidation"] for _, _, query in server.asked} == {"Strict"}
    assert all(query.get("force") in (None, "false", "False") for _, _, query in server.asked)
    assert server.objects[ROLLOUT]["spec"]["replicas"] == 4


def test_without_json_each_object_is_a_line(server, plan):
    line = ["apply", str(plan), "--driver", "argo", "--kubeconfig", str(server.kubeconfig(plan.parent))]
    assert CliRunner().invoke(rollout, line).stdout.splitlines() == [
        "AnalysisTemplate models/fashion-verdict: applied",
        "Rollout models/fashion-l4: applied",
    ]


def test_a_dry_run_changes_nothing(server, plan):
    result = said(server, plan, "--dry-run")
    assert json.loads(result.stdout)["dry_run"] is True
    assert server.objects == {}


def test_applying_again_is_no_conflict_with_oneself(server, plan):
    assert said(server, plan).exit_code == 0
    plan.write_text(yaml.safe_dump(PLAN | {"replicas": 6}))
    assert said(server, plan).exit_code == 0
    assert server.objects[ROLLOUT]["spec"]["replicas"] == 6


def test_another_manager_s_field_is_a_conflict_and_nothing_is_sent(server, plan):
    theirs = {"metadata": {"name": "fashion-l4"}, "spec": {"replicas": 9}}
    server.apply(ROLLOUT, theirs, manager="helm", dry_run=False)
    with pytest.raises(ExternalError) as caught:
        apply_plan(server, plan)
    assert caught.value.what == "apply of Rollout 'fashion-l4' in namespace 'models'"
    assert 'conflict with "helm": .spec.replicas' in caught.value.detail
    assert "let that manager give it up" in caught.value.fix
    assert TEMPLATE not in server.objects
    assert server.objects[ROLLOUT]["spec"] == {"replicas": 9}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, r"expected the right to patch it, found 403: no such right\. Use a context"),
        (422, r"expected that the server takes it, found 422: no such right\. Correct the plan"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server, plan, status, expected):
    server.refused["fashion-l4"] = (status, "no such right")
    with pytest.raises(ExternalError, match=expected):
        apply_plan(server, plan)
    assert server.objects == {}


def test_a_kind_that_the_cluster_does_not_know_is_missing(server, tmp_path):
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "g", "namespace": "models"},
        "spec": {},
    }
    with pytest.raises(MissingError, match=r"knows GRPCRoute of gateway.*Install that controller there"):
        cluster.apply([route], cluster.ApiServer(server.kubeconfig(tmp_path)))


def test_no_configuration_and_no_server_are_told_apart(server, plan, tmp_path):
    with pytest.raises(InputError, match=r"expected a cluster's configuration.*Give --kubeconfig"):
        cluster.ApiServer(tmp_path / "nowhere")
    with pytest.raises(InputError, match="Give --kubeconfig and --context"):
        cluster.ApiServer(server.kubeconfig(tmp_path), "elsewhere")
    with api_server() as gone:
        path = gone.kubeconfig(tmp_path)
    with pytest.raises(ExternalError, match="expected an API server that answers"):
        cluster.ApiServer(path)


def test_a_driver_s_refusal_comes_before_any_word_to_the_cluster(server, plan):
    plan.write_text(yaml.safe_dump(PLAN | {"kind": "DaemonSet"}))
    assert said(server, plan).exit_code != 0
    assert server.asked == []


def apply_plan(server: ApiServer, plan: Path) -> None:
    from jettison.rollout import argo
    from jettison.rollout.plan_file import load_plan

    cluster.apply(argo.render(load_plan(plan)), cluster.ApiServer(server.kubeconfig(plan.parent)))
