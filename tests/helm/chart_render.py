"""The chart as the real Helm renders it, and what comes out as documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "jettison"
PRESETS = Path(__file__).parents[2] / "deploy" / "edge"
RELEASE, NAMESPACE = "edge", "models"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C is ten times as fast, and not in every build of PyYAML."""

Document = dict[str, Any]


def helm() -> Any:
    """Helm 4's SDK; the test is skipped where there is no wheel of it."""
    return pytest.importorskip(
        "helm_python", reason="Helm's SDK has wheels for x86-64 only: pip install 'jettison[dev]' there"
    )


@cache
def _chart() -> Any:
    return helm().Chart.load(CHART)


def render_text(values: Mapping[str, Any]) -> dict[str, str]:
    """Each template's text, as an installation would send it; NOTES.txt too."""
    rendered: dict[str, str] = _chart().render(dict(values), name=RELEASE, namespace=NAMESPACE)
    return {path.removeprefix("jettison/templates/"): text for path, text in rendered.items() if text.strip()}


def render(values: Mapping[str, Any]) -> list[Document]:
    """All objects of the chart with these values, tests included; yours to change."""
    documents: list[Document] = json.loads(_rendered(json.dumps(values, sort_keys=True)))
    return documents


@cache
def _rendered(values: str) -> str:
    """Parsed once for each set of values: many tests look at the same ones."""
    texts = (text for path, text in sorted(render_text(json.loads(values)).items()) if path.endswith(".yaml"))
    return json.dumps([doc for text in texts for doc in yaml.load_all(text, _LOADER) if doc])


def refusal(values: Mapping[str, Any]) -> str:
    """Helm's words where it refuses values."""
    with pytest.raises(helm().HelmError) as caught:
        render_text(values)
    return str(caught.value)


def lint(values: Mapping[str, Any]) -> list[str]:
    """What `helm lint --strict` has against the chart with these values, beside the wish for an icon."""
    report = helm().lint(CHART, dict(values), strict=True, namespace=NAMESPACE)
    return [
        f"{one['path']}: {one['error']}"
        for one in report["messages"]
        if one["error"] != "icon is recommended"
    ]


def one(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """The document of this kind, which there is only one of."""
    found = [
        document
        for document in documents
        if document["kind"] == kind and (name is None or document["metadata"]["name"] == name)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def kinds(documents: list[Document]) -> set[str]:
    """The kinds that there are."""
    return {document["kind"] for document in documents}


def preset(name: str) -> Document:
    """The values of a preset."""
    values: Document = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    return values


def pod_specs(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """The specification of every pod that the objects make, with the object's name."""
    for document in documents:
        kind, spec = document["kind"], document.get("spec", {})
        name = f"{kind} {document['metadata']['name']}"
        if kind == "Pod":
            yield name, spec
        elif kind in ("Deployment", "DaemonSet", "Job"):
            yield name, spec["template"]["spec"]
        elif kind == "InferenceService":
            yield name, spec["predictor"]
            yield from ((f"{name} canary", canary["predictor"]) for canary in spec.get("canary", ()))


def server(documents: list[Document]) -> Document:
    """The pod specification of the one server."""
    return next(spec for name, spec in pod_specs(documents) if not name.startswith(("Pod", "Job")))


def container(spec: Document, name: str) -> Document:
    """A container or init container of a pod."""
    everyone = [*spec.get("initContainers", ()), *spec["containers"]]
    return next(entry for entry in everyone if entry["name"] == name)


def merged(*layers: Mapping[str, Any]) -> Document:
    """Values over values, as `-f a.yaml -f b.yaml` lays them."""
    result: Document = {}
    for layer in layers:
        for key, value in json.loads(json.dumps(layer)).items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result
