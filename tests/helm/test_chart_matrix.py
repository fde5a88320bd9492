"""Every row of the table of values gives objects that Kubernetes takes, in pods that are restricted."""

from __future__ import annotations

import json

import pytest
from chart_cases import CASES
from chart_render import Document, lint, merged, pod_specs, render
from chart_schemas import FIRST, LAST, faults
from chart_security import violations

_POD_FIELDS_OF_KSERVE = {"name", "minReplicas", "labels", "annotations"}


def at(values: Document, minor: int) -> list[Document]:
    """All objects for a version of Kubernetes."""
    return render(merged(values, {"kubeVersion": f"1.{minor}"}))


def as_pod(spec: Document) -> Document:
    """A pod specification as an object by itself, for those that a custom resource holds."""
    rest = {key: value for key, value in spec.items() if key not in _POD_FIELDS_OF_KSERVE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": rest}


def test_the_table_has_at_least_forty_rows():
    assert len(CASES) >= 40


@pytest.mark.parametrize("minor", range(FIRST, LAST + 1))
def test_objects_are_valid_in_strict_mode_for_every_version(minor):
    found: list[str] = []
    seen: set[str] = set()
    for name, case in CASES.items():
        if case.since > minor:
            continue
        documents = at(case.values, minor)
        pods = [as_pod(spec) for key, spec in pod_specs(documents) if key.startswith("InferenceService")]
        for document in documents + pods:
            text = json.dumps(document)
            if text not in seen:  # most rows share their Services, accounts and scripts
                seen.add(text)
                found += [f"{name}: {fault}" for fault in faults(document, minor=minor)]
    assert found == []


@pytest.mark.parametrize("name", CASES)
def test_every_pod_is_restricted_and_bounded(name):
    for where, spec in pod_specs(render(CASES[name].values)):
        assert violations(spec) == [], where
        assert spec["automountServiceAccountToken"] is False, where
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            assert "memory" in container["resources"]["limits"], (where, container["name"])
            mounts = [mount["name"] for mount in container.get("volumeMounts", ())]
            assert set(mounts) <= {volume["name"] for volume in spec["volumes"]}, (where, container["name"])
            assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(mounts), where


@pytest.mark.parametrize("name", CASES)
def test_helm_lint_strict_finds_nothing(name):
    assert lint(CASES[name].values) == []


@pytest.mark.parametrize("name", CASES)
def test_objects_have_names_and_labels_that_kubernetes_takes(name):
    documents = render(CASES[name].values)
    keys = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(keys)) == len(keys)
    for document in documents:
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "edge"
        assert all(len(value) <= 63 for value in labels.values())
        assert len(document["metadata"]["name"]) <= 63


@pytest.mark.parametrize("name", CASES)
def test_selectors_find_the_pods_that_they_mean(name):
    documents = render(CASES[name].values)
    workloads = [document for document in documents if document["kind"] in ("Deployment", "DaemonSet")]
    labels = [document["spec"]["template"]["metadata"]["labels"] for document in workloads]
    labels += [doc["spec"]["predictor"]["labels"] for doc in documents if doc["kind"] == "InferenceService"]
    for document in documents:
        if document["kind"] == "Service":
            wanted = document["spec"]["selector"].items()
        elif document["kind"] == "PodDisruptionBudget" or document in workloads:
            wanted = document["spec"]["selector"]["matchLabels"].items()
        else:
            continue
        assert any(wanted <= each.items() for each in labels), document["metadata"]["name"]


def test_the_checker_of_pods_finds_what_is_forbidden():
    bad = {
        "hostNetwork": True,
        "volumes": [{"name": "node", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "securityContext": {"privileged": True, "runAsUser": 0}}],
    }
    assert violations(bad) == [
        "hostNetwork",
        "volume node: hostPath",
        "c: privileged",
        "c: allowPrivilegeEscalation",
        "c: capabilities are not dropped",
        "c: runAsNonRoot",
        "c: runAsUser 0",
        "c: seccompProfile",
    ]


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "lifecycl"), {}, "lifecycl"),
        ("Rollout", ("spec", "strategy", "canary", "stepz"), [], "stepz"),
        ("AnalysisTemplate", ("spec", "metrics", 0, "provider", "web", "jsonPath"), "$", "{$}"),
    ],
)
def test_strict_schemas_find_a_field_that_is_not_there(kind, path, value, said):
    document = next(doc for doc in render(CASES["argo"].values) if doc["kind"] == kind)
    *outer, last = path
    place = document
    for key in outer:
        place = place[key]
    place[last] = value
    found = faults(document, minor=LAST)
    assert len(found) == 1
    assert said in found[0]
