"""Loading into a live server: what it shows afterwards counts, and not its 200."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import served_models as zoo

from jettison.core.errors import ExternalError
from jettison.triton.loading import load, missing_models
from jettison.triton.serving import config_of

INPUTS, OUTPUTS = zoo.affine()[1:]
CONFIG = config_of("m", INPUTS, OUTPUTS)


class Fake:
    """A server that answers what it is told to: status and document by path."""

    def __init__(self) -> None:
        echo = CONFIG.model_dump(mode="json", by_alias=True)
        self.answers: dict[str, tuple[int, Any]] = {
            "/v2/repository/models/m/load": (200, {}),
            "/v2/repository/index": (200, [{"name": "m", "version": "2", "state": "READY"}]),
            "/v2/models/m/versions/2/ready": (200, {}),
            "/v2/models/m/versions/2/config": (200, echo),
        }
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, document = fake.answers.get(self.path, (404, {"error": "unknown"}))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_load_that_shows_is_proven(fake: Fake) -> None:
    assert load(fake.url, CONFIG, version=2, deadline_s=5.0)


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/v2/repository/index", (200, []), "version 2 is not in its index"),
        (
            "/v2/repository/index",
            (200, [{"name": "m", "version": "1", "state": "READY"}]),
            "version 2 is not in its index",
        ),
        (
            "/v2/repository/index",
            (200, [{"name": "m", "version": "2", "state": "UNAVAILABLE"}]),
            "version 2 is UNAVAILABLE",
        ),
        ("/v2/models/m/versions/2/ready", (400, {}), "version 2 is not ready"),
        ("/v2/models/m/versions/2/config", (200, {"name": "m", "backend": "other"}), "backend: expected"),
    ],
)
def test_a_200_alone_proves_nothing(fake: Fake, path: str, answer: tuple[int, Any], words: str) -> None:
    fake.answers[path] = answer
    with pytest.raises(ExternalError, match=f"not proven after 0.2 s: .*{words}"):
        load(fake.url, CONFIG, version=2, deadline_s=0.2)


def test_a_refusal_has_the_server_s_words(fake: Fake) -> None:
    fake.answers["/v2/repository/models/m/load"] = 400, {"error": "load failed for model 'm': no file"}
    with pytest.raises(ExternalError, match="the server says: load failed for model 'm': no file"):
        load(fake.url, CONFIG, version=2, deadline_s=1.0)


def test_models_that_it_does_not_serve_are_named(fake: Fake) -> None:
    fake.answers["/v2/models/m/ready"] = 200, {}
    assert missing_models(fake.url, ("m", "n")) == ("n",)
    with pytest.raises(ExternalError, match="it does not answer"):
        missing_models("127.0.0.1:9", ("m",))


@pytest.mark.server
def test_a_server_that_loads_nothing_over_its_api_says_so(served: zoo.Served) -> None:
    assert not load(served.server.http_url, served.configs["affine"], version=1, deadline_s=5.0)
    assert missing_models(served.server.http_url, ("affine", "nobody")) == ("nobody",)
