"""serve over a program that stands in for tritonserver: what it says of one that ends or cannot start."""

from __future__ import annotations

import os
import signal
import socket
import sys

import onnx
import pytest

from jettison.triton.server import ServerOptions, TritonServer
from zoo.builder import image_net

PROGRAM = """#!{python}
import http.server, sys
port = int(next(a for a in sys.argv if a.startswith("--http-port=")).split("=")[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
OPTIONS = """#!{python}
import sys
sys.exit("error: " + " ".join(word for word in sys.argv if "load-model" in word or "control" in word))
"""
ANY_PORTS = ("--http-port", 0, "--grpc-port", 0, "--metrics-port", 0)


@pytest.fixture(autouse=True)
def handlers():
    """The signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """The folder of temporary logs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def program(tmp_path):
    """The program, which is ready at once."""
    path = tmp_path / "tritonserver"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def hit(monkeypatch):
    """Sends a signal to the server, by the number of its process, once it is ready."""
    wait = TritonServer.wait

    def by(number):
        monkeypatch.setattr(TritonServer, "wait", lambda server: os.kill(server.pid, number) or wait(server))

    return by


def test_a_server_that_somebody_asked_to_end_is_told_without_the_log_that_went(
    jettison, workspace, program, logs, hit
):
    hit(signal.SIGTERM)
    answer = jettison("serve", workspace, "--server", program, *ANY_PORTS, "--json")
    assert "tritonserver ended with status -15" in answer.err
    assert "its log" not in answer.err
    assert not list(logs.iterdir())


def test_a_server_that_ended_badly_is_told_with_the_log_that_stays(jettison, workspace, program, logs, hit):
    hit(signal.SIGABRT)
    answer = jettison("serve", workspace, "--server", program, *ANY_PORTS, "--json")
    assert answer.code == 4
    (log,) = logs.iterdir()
    # the console breaks long lines
    assert f"tritonserverendedwithstatus-6;itslogis{log}" in "".join(answer.err.split())


def test_a_port_that_is_taken_is_told_before_anything_is_printed(jettison, workspace, program):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ports = ("--http-port", port, "--grpc-port", 0, "--metrics-port", 0)
        answer = jettison("serve", workspace, "--server", program, *ports, "--json")
    assert answer.code == 2
    assert answer.document["error"] == {
        "what": f"port {port} for http",
        "detail": "something listens there already",
        "fix": "Give another --http-port (0 for any free one), or stop what listens there",
    }


@pytest.mark.server
def test_an_explicit_server_loads_all_models_and_then_what_is_published(jettison, tmp_path, installation):
    root, path = tmp_path / "repository", tmp_path / "model.onnx"
    net, x = image_net("small", 4)
    net.head(x, 4)
    onnx.save(net.model(), path)
    assert jettison("publish", path, "--repository", root, "--name", "one").code == 0
    options = ServerOptions(control_mode="explicit", load_models=("one",))
    with TritonServer(root, installation, environment=os.environ, options=options) as server:
        done = jettison("publish", path, "--repository", root, "--name", "one", "--url", server.http_url)
    assert done.code == 0
    assert "proven at the server by its index, readiness, configuration, golden answers" in done.out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ((), "--model-control-mode=none"),
        (("--explicit",), "--model-control-mode=explicit --load-model=one --load-model=two"),
    ],
)
def test_models_are_loaded_over_the_api_only_where_that_is_said(jettison, tmp_path, program, option, words):
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.pbtxt").write_text("")
    program.write_text(OPTIONS.format(python=sys.executable))
    repository = tmp_path / "models"
    answer = jettison("serve", repository, "--server", program, *ANY_PORTS, *option, "--json")
    assert answer.code == 4
    assert words in answer.document["error"]["detail"]
