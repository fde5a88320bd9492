"""Kubernetes' own schemas in strict form, and ours for the fields that we write into custom resources."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chart_crds import CUSTOM
from chart_render import Document

FIRST, LAST = 29, 37
"""Minor versions: the first is the chart's kubeVersion, the last the newest that kubernetes-validate has."""


def _library() -> Any:
    return pytest.importorskip(
        "kubernetes_validate", reason="Kubernetes' schemas are missing: pip install 'jettison[dev]'"
    )


@cache
def _folder(minor: int) -> Path:
    root = Path(_library().__file__).parent / "kubernetes-json-schema"
    return root / f"v1.{minor}.0-local-strict"


@cache
def _registry(minor: int) -> Any:
    referencing = pytest.importorskip("referencing", reason="it comes with kubernetes-validate")
    path = _folder(minor) / "_definitions.json"
    document = json.loads(path.read_text())
    resource = referencing.Resource.from_contents(document)
    return referencing.Registry().with_resource(path.name, resource).crawl()


@cache
def _validator(minor: int, kind: str, api_version: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="it comes with kubernetes-validate")
    if "." in api_version.split("/", maxsplit=1)[0] and (api_version, kind) in CUSTOM:
        return jsonschema.Draft202012Validator(CUSTOM[api_version, kind])
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.split(".")[0], version)))
    path = _folder(minor) / f"{name}.json"
    assert path.is_file(), f"Kubernetes 1.{minor} has no {api_version} {kind}, and we have no schema for it"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=_registry(minor))


def faults(document: Document, *, minor: int) -> list[str]:
    """What a Kubernetes of this version has against an object, unknown fields included."""
    validator = _validator(minor, document["kind"], document["apiVersion"])
    name = f"{document['kind']} {document['metadata']['name']}"
    return [
        f"{name} at {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in validator.iter_errors(document)
    ]
