"""The client where no healthy server answers: refused, silent, broken, or without its extra."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest

from jettison.core import dtypes
from jettison.core.errors import ExternalError, MissingError
from jettison.core.tensors import TensorSpec
from jettison.triton import health, wire
from jettison.triton.client import Protocol, TritonRunner
from jettison.triton.config import ModelConfig
from jettison.triton.wire import Tensor

PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
CONFIG = {
    "name": "m",
    "max_batch_size": 0,
    "version_policy": {"latest": {"num_versions": 1}},
    "sequence_batching": {},
    "input": [
        {"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [2], "optional": False}
    ],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
}


FLOAT32 = dtypes.of_numpy(np.dtype(np.float32))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def scripted() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """A server that answers each path with what the test puts into the dictionary."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers.get(self.path, (404, b'{"error": "no such path"}'))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server_at_the_address_says_how_to_start_one(protocol: Protocol) -> None:
    with pytest.raises(ExternalError) as caught:
        TritonRunner(f"127.0.0.1:{free_port()}", "m", protocol=protocol, timeout_s=5)
    assert "the server does not answer" in caught.value.detail
    assert "jettison serve" in caught.value.fix


@pytest.fixture
def speaks_grpc() -> Iterator[str]:
    """A gRPC server without a service."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_grpc_port_asked_over_http_is_told(speaks_grpc: str) -> None:
    with pytest.raises(ExternalError) as caught:
        TritonRunner(speaks_grpc, "m")
    assert caught.value.what == f"connecting to model 'm' at {speaks_grpc} over http"
    assert caught.value.detail == f"{speaks_grpc} answers in another protocol"
    assert caught.value.fix == "Give protocol='grpc', or the other port: jettison serve names both"


def test_an_http_port_asked_over_grpc_is_told(scripted: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    url, _ = scripted
    with pytest.raises(ExternalError) as caught:
        TritonRunner(url, "m", protocol="grpc", timeout_s=5)
    assert caught.value.detail == f"{url} answers in another protocol"
    assert caught.value.fix == "Give protocol='http', or the other port: jettison serve names both"


def test_a_server_that_ends_before_it_answers_is_not_taken_for_another_protocol() -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    connection = listener.accept()[0]
                    connection.recv(4096)
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(ExternalError, match=r"the server does not answer \(connection closed"):
            TritonRunner(f"127.0.0.1:{listener.getsockname()[1]}", "m", timeout_s=5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_silent_server_is_given_up_after_the_timeout(silent: str, protocol: Protocol) -> None:
    with pytest.raises(ExternalError) as caught:
        TritonRunner(silent, "m", protocol=protocol, timeout_s=0.3)
    assert "no answer within 0.3 s" in caught.value.detail
    assert "longer timeout" in caught.value.fix


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_the_extra_its_command_is_named(monkeypatch: pytest.MonkeyPatch, protocol: Protocol) -> None:
    monkeypatch.setitem(sys.modules, f"tritonclient.{protocol}", None)
    with pytest.raises(MissingError, match=r"Run: pip install -e '\.\[triton\]' in a clone of Jettison"):
        TritonRunner("127.0.0.1:1", "m", protocol=protocol)


def test_a_server_s_own_error_is_passed_on(scripted: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    url, answers = scripted
    answers["/v2/models/m/config"] = (200, json.dumps(CONFIG).encode())
    answers["/v2/models/m/infer"] = (500, b'{"error": "Stub process is not healthy."}')
    with TritonRunner(url, "m") as runner:
        assert [str(s) for s in (*runner.inputs, *runner.outputs)] == ["x float32 2", "y float32 scalar"]
        with pytest.raises(ExternalError, match=r"the server says: .*Stub process is not healthy"):
            runner.run({"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize("broken", [{"data_type": "TYPE_FP128"}, {"dims": "two"}])
def test_a_configuration_that_cannot_be_read_leaves_no_connection_open(
    scripted: tuple[str, dict[str, tuple[int, bytes]]],
    monkeypatch: pytest.MonkeyPatch,
    broken: dict[str, object],
) -> None:
    url, answers = scripted
    config = {**CONFIG, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2], **broken}]}
    answers["/v2/models/m/config"] = (200, json.dumps(config).encode())
    closed: list[str] = []
    monkeypatch.setattr(TritonRunner, "close", lambda _: closed.append("it"))
    with pytest.raises((ExternalError, ValueError)):
        TritonRunner(url, "m")
    assert closed == ["it"]


def test_big_endian_numbers_travel_little_endian_and_text_as_it_is() -> None:
    spec = TensorSpec(name="x", dtype=FLOAT32, shape=(3,))
    tensor = Tensor(spec, (3,), (1, 3), "FP32", is_optional=False)
    found = wire.sent(np.array([1, 2, 3], ">f4"), tensor)
    assert found.dtype == np.dtype("<f4")
    assert found.tobytes() == struct.pack("<3f", 1, 2, 3)
    assert found.shape == (1, 3)
    own = np.float32([1, 2, 3])
    assert np.shares_memory(wire.sent(own, tensor), own)
    text = np.array(["a", "b", "c"], np.object_)
    assert wire.sent(text, tensor).tolist() == [["a", "b", "c"]]


def test_an_answer_that_lacks_an_output_is_told(scripted: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    url, answers = scripted
    answers["/v2/models/m/config"] = (200, json.dumps(CONFIG).encode())
    answers["/v2/models/m/infer"] = (200, b'{"model_name": "m", "model_version": "1", "outputs": []}')
    with (
        TritonRunner(url, "m") as runner,
        pytest.raises(ExternalError, match="output 'y': the server's answer lacks it"),
    ):
        runner.run({"x": np.zeros(2, np.float32)})


def test_health_over_a_dead_address_is_false_and_questions_raise() -> None:
    url = f"127.0.0.1:{free_port()}"
    assert not health.is_server_ready(url)
    assert not health.is_model_ready(url, "m", version=1)
    with pytest.raises(ExternalError, match="it does not answer"):
        health.index(url)
    with pytest.raises(ExternalError, match=r"not ready after 0\.1 s: the server does not answer"):
        health.wait_ready(url, ["m"], deadline_s=0.1)


def test_waiting_tells_the_state_of_each_model(scripted: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    url, answers = scripted
    entries = [{"name": "m", "version": "3", "state": "UNAVAILABLE", "reason": "bad dims"}, {"name": "other"}]
    answers["/v2/repository/index"] = (200, json.dumps(entries).encode())
    answers["/v2/health/ready"] = (200, b"")
    with pytest.raises(ExternalError, match=r"not ready after 0\.1 s: m 3 UNAVAILABLE bad dims\. Read"):
        health.wait_ready(url, ["m"], deadline_s=0.1)
    answers["/v2/models/m/ready"] = (200, b"")
    health.wait_ready(url, ["m"], deadline_s=5)


def test_configuration_read_back_is_compared_field_by_field(
    scripted: tuple[str, dict[str, tuple[int, bytes]]],
) -> None:
    url, answers = scripted
    answers["/v2/models/m/config"] = (200, json.dumps(CONFIG).encode())
    ours = ModelConfig.model_validate({key: CONFIG[key] for key in ("name", "output")})
    assert health.config_differences(url, ours) == []
    changed = ours.model_copy(
        update={"backend": "b", "output": (ours.output[0].model_copy(update={"dims": (3,)}),)}
    )
    assert health.config_differences(url, changed) == [
        "backend: expected 'b', found None",
        "output[0].dims[0]: expected 3, found 1",
    ]
    with pytest.raises(ExternalError, match="it answered 404 to /v2/models/absent/config"):
        health.config_differences(url, ModelConfig(name="absent"))
