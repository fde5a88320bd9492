"""`jettison rollout` as a user and as a script call it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jettison.cli.rollout import ROLLOUT_VERBS

PLAN = {
    "name": "fashion",
    "namespace": "models",
    "workload": "fashion-l4",
    "selector": {"app": "fashion-l4"},
    "replicas": 4,
    "steps": [{"weight": 10, "verdict": True}, {"weight": 50, "pause_s": 300}],
    "verdict": {
        "url": "http://verdict.models.svc:8080",
        "experiment": "night",
        "credentials": "verdict-token",
    },
}


@pytest.fixture
def plan(tmp_path):
    def write(**changes):
        path = tmp_path / "rollout.yaml"
        path.write_text(yaml.safe_dump(PLAN | changes))
        return path

    return write


def test_render_prints_yaml_that_kubectl_takes(jettison, plan):
    answer = jettison("rollout", "render", plan(), "--driver", "argo")
    assert (answer.code, answer.err) == (0, "")
    documents = list(yaml.safe_load_all(answer.out))
    assert [(one["kind"], one["metadata"]["name"]) for one in documents] == [
        ("AnalysisTemplate", "fashion-verdict"),
        ("Rollout", "fashion-l4"),
    ]
    assert all(one["metadata"]["namespace"] == "models" for one in documents)


def test_render_json_is_one_document(jettison, plan):
    found = jettison(
        "rollout", "render", plan(http_route="f"), "--driver", "gateway", "--candidate-weight", 20, "--json"
    )
    (route,) = found.document["objects"]
    assert [backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]] == [80, 20]


def test_flagger_s_token_comes_from_a_file(jettison, plan, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    given = plan(steps=[])
    answer = jettison("rollout", "render", given, "--driver", "flagger", "--token", tmp_path / "token")
    hooks = yaml.safe_load(answer.out)["spec"]["analysis"]["webhooks"]
    assert {hook["metadata"]["token"] for hook in hooks} == {"0123456789abcdef"}


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"kind": "DaemonSet"}, ("argo",), "found a DaemonSet"),
        ({"grpc_route": "g"}, ("flagger",), "driver flagger needs --token"),
        ({}, ("gateway",), "driver gateway needs --candidate-weight"),
        ({}, ("argo", "--candidate-weight", 5), "--candidate-weight is for driver gateway, found argo"),
        ({}, ("spinnaker",), "spinnaker"),
        ({"stepps": []}, ("argo",), "stepps"),
        ({"steps": []}, ("argo",), "expected steps, found none"),
        ({"steps": [{"weight": 10}, {"weight": 5}]}, ("argo",), "found 5 after 10"),
        ({"verdict": {**PLAN["verdict"], "token": "x"}}, ("argo",), "token"),
        ({"verdict": {**PLAN["verdict"], "intervals": 5}}, ("argo",), "Did you mean 'interval_s'?"),
        ({"steps": [{"weight": 10, "pause": 5}]}, ("argo",), "Did you mean 'pause_s'?"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_one_document(jettison, plan, changes, options, said):
    answer = jettison("rollout", "render", plan(**changes), "--driver", *options, "--json")
    assert answer.code == 2
    error = answer.document["error"]
    assert said in f"{error['what']} {error['detail']} {error['fix']}"


def test_flagger_does_not_drop_steps_in_silence(jettison, plan, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    answer = jettison(
        "rollout", "render", plan(), "--driver", "flagger", "--token", tmp_path / "token", "--json"
    )
    assert answer.code == 2
    assert "expected no steps, found it: without a gateway" in answer.document["error"]["detail"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe" * 9, b"two words"])
def test_a_token_that_is_none_is_refused(jettison, plan, tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    answer = jettison(
        "rollout", "render", plan(), "--driver", "flagger", "--token", tmp_path / "token", "--json"
    )
    assert answer.code == 2
    assert answer.document["error"]["fix"] == "Give the token of the verdict service"


def test_a_plan_that_is_not_there_is_told(jettison, tmp_path):
    answer = jettison("rollout", "render", tmp_path / "none.yaml", "--driver", "argo", "--json")
    assert (answer.code, answer.document["error"]["fix"]) == (2, "Give the path of a YAML file")


def test_the_plan_in_the_docs_is_one(jettison, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text()
    block = text.partition("### Without the chart")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "plan.yaml").write_text(block)
    answer = jettison("rollout", "render", tmp_path / "plan.yaml", "--driver", "argo")
    assert (answer.code, answer.err) == (0, "")
    assert "argoproj-labs/gatewayAPI" in answer.out


@pytest.mark.parametrize("verb", [verb.__name__ for verb in ROLLOUT_VERBS])
def test_every_verb_of_rollout_has_help_with_an_example(jettison, verb):
    answer = jettison("rollout", verb, "--help")
    assert answer.code == 0
    assert "Example" in answer.out
