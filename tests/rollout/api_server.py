"""A small API server over HTTP: discovery, server-side apply with field managers, dry runs, strict fields.

What it knows of the protocol: a manager owns the leaves that it applied (lists count as one leaf, as those of
custom resources do), and another manager who applies another value gets a conflict with the leaf's path.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Document = dict[str, Any]
KINDS = {
    "argoproj.io/v1alpha1": {"AnalysisTemplate": "analysistemplates", "Rollout": "rollouts"},
    "flagger.app/v1beta1": {"Canary": "canaries"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
}
"""No GRPCRoute: a kind that the cluster does not know."""


class ApiServer(ThreadingHTTPServer):
    """What it holds: objects and the owners of their leaves, by path; and all that it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Document] = {}
        self.owners: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.refused: dict[str, tuple[int, str]] = {}
        """By the last part of a path: the answer to whoever patches it."""

    def kubeconfig(self, folder: Path) -> Path:
        """The file by which clients find it."""
        path = folder / "kubeconfig"
        address = f"http://127.0.0.1:{self.server_address[1]}"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
        }))  # fmt: skip
        return path

    def apply(self, path: str, wanted: Document, *, manager: str, dry_run: bool) -> tuple[int, Document]:
        """Status and answer of one server-side apply."""
        held, owners = self.objects.get(path, {}), self.owners.get(path, {})
        before, after = dict(leaves(held)), dict(leaves(wanted))
        for leaf, value in after.items():
            owner = owners.get(leaf, manager)
            if owner != manager and before.get(leaf) != value:
                message = f'Apply failed with 1 conflict: conflict with "{owner}": {leaf}'
                return 409, status(409, message)
        merged = laid_over(held, wanted)
        merged["metadata"]["resourceVersion"] = str(len(self.asked))
        if not dry_run:
            self.objects[path] = merged
            self.owners[path] = {**dict.fromkeys(after, manager), **owners}
        return 200 if held else 201, merged


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif path not in (".apiVersion", ".kind", ".metadata.name", ".metadata.namespace"):
        yield path, value


def laid_over(held: Document, wanted: Document) -> Document:
    result = json.loads(json.dumps(held))
    for key, value in wanted.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = laid_over(result[key], value) if both else json.loads(json.dumps(value))
    return result


def status(code: int, message: str) -> Document:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self._answer(*_discovered(urlsplit(self.path).path))

    def do_PATCH(self) -> None:
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((split.path, self.headers["Content-Type"], query))
        name = split.path.rpartition("/")[2]
        if name in self.server.refused:
            code, message = self.server.refused[name]
            self._answer(code, status(code, message))
        elif self.headers["Content-Type"] != "application/apply-patch+yaml" or "fieldManager" not in query:
            self._answer(415, status(415, "only server-side apply is known here"))
        else:
            manager, dry_run = query["fieldManager"], query.get("dryRun") == "All"
            self._answer(*self.server.apply(split.path, body, manager=manager, dry_run=dry_run))

    def _answer(self, code: int, document: Document) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


def _discovered(path: str) -> tuple[int, Document]:
    if path == "/version":
        return 200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return 200, {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return 200, {"kind": "APIGroupList", "groups": [_group(version) for version in KINDS]}
    kinds = {} if path == "/api/v1" else KINDS.get(path.removeprefix("/apis/"))
    if kinds is None:
        return 404, status(404, "the server could not find the requested resource")
    rest = {"namespaced": True, "verbs": ["get", "patch"]}
    resources = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, **rest} for kind, plural in kinds.items()
    ]
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _group(version: str) -> Document:
    name, _, number = version.partition("/")
    one = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [one], "preferredVersion": one}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A running one."""
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
