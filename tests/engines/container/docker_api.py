"""A Docker API over HTTP that speaks the real protocol, frames and hijacked streams included.

What the "container" does is a function of the test: it sees what was asked for, and gives frames and an exit
code. Source: Docker Engine API 1.43, "Attach to a container", "Stream format".
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

STDOUT, STDERR = 1, 2
Frames = list[tuple[int, bytes]]
Program = Callable[[dict[str, Any]], tuple[Frames, int]]
TAG = "triton-builder:26.07"
IMAGE = {
    "Id": "sha256:" + "1" * 64,
    "RepoTags": [TAG],
    "RepoDigests": ["registry/triton-builder@sha256:" + "2" * 64],
    "Config": {
        "Env": [
            "PATH=/bin",
            "TENSORRT_VERSION=10.13.3.9",
            "NVIDIA_REQUIRE_CUDA=cuda>=12.9",
        ],
        "Labels": None,
    },
}


@dataclass
class DockerApi:
    """What the service holds and what was asked of it."""

    program: Program
    image: dict[str, Any] = field(default_factory=lambda: dict(IMAGE))
    refuses_start: bool = False
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    code: int = 0
    url: str = ""


@contextlib.contextmanager
def docker_api(program: Program, **fields: Any) -> Iterator[DockerApi]:
    state = DockerApi(program, **fields)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.url = f"tcp://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.started.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: DockerApi) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"state": state})


Answer = tuple[int, Any]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: DockerApi

    def log_message(self, *arguments: object) -> None:
        pass

    def _route(self) -> None:
        url = urlparse(self.path)
        place = re.sub(r"^/v1\.\d+", "", url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.body: dict[str, Any] = json.loads(body) if body else {}
        plain = re.sub("/jettison-[0-9a-f]+|/id-[0-9a-f]+", "/ID", place)
        self.state.asked.append(f"{self.command} {plain}")
        for pattern, answer in ROUTES.items():
            found = re.fullmatch(pattern, f"{self.command} {place}")
            if found is not None:
                self.name = "".join(found.groups())
                told = answer(self)
                break
        else:
            told = (404, {"message": f"page not found: {self.command} {place}"})
        if told is not None:
            self._send(*told)

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_DELETE(self) -> None:
        self._route()

    def _send(self, code: int, answer: Any) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def version(self) -> Answer:
        return 200, {"ApiVersion": "1.43", "MinAPIVersion": "1.24"}

    def ping(self) -> Answer:
        return 200, "OK"

    def image(self) -> Answer:
        if self.name in self.state.image["RepoTags"]:
            return 200, self.state.image
        return 404, {"message": f"No such image: {self.name}"}

    def create(self) -> Answer:
        identity = "id-" + self.query["name"].removeprefix("jettison-")
        self.state.containers[self.query["name"]] = {"Id": identity, "Config": {"Tty": False, **self.body}}
        self.state.created.append(self.body)
        return 201, {"Id": identity, "Warnings": []}

    def inspect(self) -> Answer:
        return 200, self._find(self.name)

    def start(self) -> Answer:
        self.state.started.set()
        if self.state.refuses_start:
            return 500, {"message": 'could not select device driver "" with capabilities: [[gpu]]'}
        return 204, None

    def wait(self) -> Answer:
        return 200, {"StatusCode": self.state.code}

    def delete(self) -> Answer:
        assert self.query["force"] == "True"
        gone = self.state.containers.pop(self.name, None)
        return (204, None) if gone else (404, {"message": f"No such container: {self.name}"})

    def attach(self) -> None:
        """Hijacks the connection: frames of stdout and stderr from the start to the end of the program."""
        self.send_response(101, "UPGRADED")
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        self.state.started.wait(20)
        if self.state.refuses_start:
            return
        frames, self.state.code = self.state.program(self._find(self.name)["Config"])
        for stream, content in frames:
            self.wfile.write(struct.pack(">BxxxL", stream, len(content)) + content)
            self.wfile.flush()

    def _find(self, name: str) -> dict[str, Any]:
        return next(found for key, found in self.state.containers.items() if name in (key, found["Id"]))


ROUTES: dict[str, Callable[[_Handler], Answer | None]] = {
    "GET /version": _Handler.version,
    "GET /_ping": _Handler.ping,
    "GET /images/(.+)/json": _Handler.image,
    "POST /containers/create": _Handler.create,
    "GET /containers/([^/]+)/json": _Handler.inspect,
    "POST /containers/([^/]+)/attach": _Handler.attach,
    "POST /containers/([^/]+)/start": _Handler.start,
    "POST /containers/([^/]+)/wait": _Handler.wait,
    "DELETE /containers/([^/]+)": _Handler.delete,
}
