"""The presets, to the letter: what is installed for whoever takes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from chart_cases import A
from chart_render import PRESETS, Document, container, lint, merged, one, pod_specs, preset, render, server
from chart_schemas import FIRST, LAST, faults
from chart_security import violations

GOLDEN = Path(__file__).parent / "golden"
OWN: dict[str, Document] = {
    "cpu": {
        "model": {"source": {"image": {"repository": "localhost:5001/fashion"}}},
        "variants": {"baseline": {"digest": A}},
    },
    "medical": {},
    "driving": {},
}
"""What a preset leaves to its user."""


def documents(name: str, minor: int = LAST) -> list[Document]:
    return render(merged(preset(name), OWN[name], {"kubeVersion": f"1.{minor}"}))


def test_there_is_a_golden_file_for_each_preset():
    assert sorted(path.stem for path in PRESETS.glob("*.yaml")) == sorted(OWN)


@pytest.mark.parametrize("name", OWN)
def test_a_preset_gives_what_its_golden_file_has(name, request):
    found = documents(name)
    for document in found:  # scripts are files of the chart, and tested by themselves
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].endswith("-scripts"):
            document["data"] = dict.fromkeys(document["data"], "...")
    for _, spec in pod_specs(found):
        assert spec["containers"]
    text = yaml.safe_dump_all(_without_digest_of_scripts(found), sort_keys=True, width=110)
    path = GOLDEN / f"{name}.yaml"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text(), "look at the difference; if it is meant: pytest --update-golden"


def _without_digest_of_scripts(found: list[Document]) -> list[Document]:
    for document in found:
        template = document.get("spec", {}).get("template", {}).get("metadata", {})
        if "jettison.dev/scripts" in template.get("annotations", {}):
            template["annotations"]["jettison.dev/scripts"] = "..."
    return found


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("minor", [FIRST, LAST])
def test_a_preset_is_valid_and_restricted(name, minor):
    found = documents(name, minor)
    assert [fault for document in found for fault in faults(document, minor=minor)] == []
    assert [text for _, spec in pod_specs(found) for text in violations(spec)] == []


@pytest.mark.parametrize("name", OWN)
def test_helm_lint_takes_a_preset(name):
    assert lint(merged(preset(name), OWN[name])) == []


def test_a_vehicle_needs_no_network_to_start():
    found = documents("driving")
    spec = server(found)
    pulls = {entry["imagePullPolicy"] for entry in [*spec["initContainers"], *spec["containers"]]}
    assert pulls == {"Never"}
    assert one(found, "NetworkPolicy")["spec"]["egress"] == []
    assert one(found, "PersistentVolume")["spec"]["hostPath"]["path"] == "/var/lib/jettison/models"
    assert [entry["name"] for entry in spec["initContainers"]] == ["verify-models", "check-gpu"]


def test_a_hospital_s_server_starts_only_with_signed_models():
    spec = server([doc for doc in documents("medical") if "verdict" not in doc["metadata"]["name"]])
    names = [entry["name"] for entry in spec["initContainers"]]
    assert names == ["verify-signature", "fetch-models", "unpack-models", "check-gpu"]
    assert "--insecure-ignore-tlog=true" in container(spec, "verify-signature")["args"]


def test_a_laptop_needs_no_gpu():
    spec = server(documents("cpu"))
    assert "affinity" not in spec
    assert set(container(spec, "server")["resources"]["limits"]) == {"memory"}
