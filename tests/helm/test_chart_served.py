"""A real tritonserver with the command line that the chart gives it, asked by the script of `helm test`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from chart_cases import IMAGE
from chart_render import CHART, container, merged, render, server

from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer

pytestmark = pytest.mark.server
SAMPLE = CHART.parents[1] / "model_repository"
OURS = ("--model-repository", "--http-port", "--grpc-port", "--metrics-port", "--exit-timeout-secs")
"""What a test must choose itself; all else is taken from the chart."""


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[TritonServer]:
    arguments = container(server(render(IMAGE)), "server")["args"]
    kept = [
        text.replace("$(JETTISON_ADMIN_KEY)", "uid-of-the-pod")
        for text in arguments
        if not text.startswith(OURS)
    ]
    options = ServerOptions(arguments=tuple(kept))
    with TritonServer(SAMPLE, installation, environment=dict(os.environ), options=options) as started:
        yield started


def status(running: TritonServer, path: str, *, key: str = "") -> int:
    headers = {"admin-key": key} if key else {}
    request = urllib.request.Request(f"http://{running.http_url}{path}", b"{}", headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (our own server)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ask(running: TritonServer, names: str) -> subprocess.CompletedProcess[str]:
    script = CHART / "files" / "ask_server.py"
    environment = {"URL": f"http://{running.http_url}", "NAMES": names, "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_helm_test_s_script_asks_each_model_once(running):
    names = sorted(path.name for path in SAMPLE.iterdir())
    result = ask(running, " ".join(names))
    assert result.returncode == 0, result.stderr
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == names


def test_helm_test_s_script_fails_for_a_model_that_is_not_there(running):
    result = ask(running, "fashion-fp32 nobody")
    assert result.returncode == 1
    assert "nobody" in result.stderr


@pytest.mark.parametrize(
    "path", ["/v2/repository/index", "/v2/systemsharedmemory/region/r/unregister", "/v2/logging"]
)
def test_what_changes_the_server_needs_the_key(running, path):
    assert status(running, path) == 403
    assert status(running, path, key="guessed") == 403
    assert status(running, path, key="uid-of-the-pod") != 403


def test_rules_and_panels_ask_for_series_that_the_server_has(running):
    ask(running, "fashion-fp32")
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports.metrics}/metrics", timeout=30) as answer:
        shown = {line.partition("{")[0] for line in answer.read().decode().splitlines()}
    values = merged(IMAGE, {"monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}})
    asked = set(re.findall(r"\bnv_\w+", json.dumps(render(values))))
    assert len(asked) >= 4
    assert asked <= shown


def test_grpc_is_closed_in_the_same_way(running):
    grpc = pytest.importorskip("tritonclient.grpc", reason="the extra 'triton' is missing")
    with grpc.InferenceServerClient(running.grpc_url) as client:
        with pytest.raises(grpc.InferenceServerException, match="restricted"):
            client.get_model_repository_index()
        assert client.get_model_repository_index(
            headers={"triton-grpc-protocol-admin-key": "uid-of-the-pod"}
        ).models
        assert client.is_model_ready("fashion-fp32")


def test_the_sample_is_what_the_laptop_s_preset_names():
    import yaml

    values = yaml.safe_load((Path(CHART).parents[1] / "deploy" / "edge" / "cpu.yaml").read_text())
    assert sorted(values["model"]["names"]) == sorted(path.name for path in SAMPLE.iterdir())
