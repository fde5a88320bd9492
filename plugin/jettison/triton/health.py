"""What a live Triton says of itself, over plain HTTP: readiness, index and configurations.

Standard library only, so that waiting for a server needs no extra. Believe the index, readiness and the
configuration read back, never a 200 of a load: it is given for a version that kept serving the old.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import ExternalError
from jettison.triton.address import check_address, no_http
from jettison.triton.config import ModelConfig

_TIMEOUT_S = 5.0
_POLL_S = 0.05


class IndexEntry(BaseModel):
    """One version of one model in the repository index; a model that failed early has no version."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


def is_server_ready(url: str) -> bool:
    """Whether the server answers and all its models are ready; False while it does not answer."""
    return _status(url, "/v2/health/ready") == 200


def is_model_ready(url: str, model: str, *, version: int | None = None) -> bool:
    """Whether the model, or that version of it, is ready; a server with a dead stub is ready all the same."""
    part = f"/versions/{version}" if version is not None else ""
    return _status(url, f"/v2/models/{model}{part}/ready") == 200


def wait_ready(url: str, models: Sequence[str], *, deadline_s: float) -> None:
    """Wait until the server and each of the models are ready.

    Raises:
        ExternalError: They are not by the deadline; the message has the index.
    """
    end = time.monotonic() + deadline_s
    while not (is_server_ready(url) and all(is_model_ready(url, model) for model in models)):
        if time.monotonic() > end:
            raise ExternalError(
                f"server {url}",
                detail=f"not ready after {deadline_s:g} s: {_states(url, models)}",
                fix="Read the server's log, or wait longer",
            )
        time.sleep(_POLL_S)


def check_triton(url: str) -> None:
    """See that a Triton answers there: its port of metrics answers too.

    Raises:
        InputError: The address is none.
        ExternalError: The server does not answer, or not as Triton's HTTP service does.
    """
    _told(url, "GET", "/v2")


def index(url: str) -> tuple[IndexEntry, ...]:
    """Every version in the server's repository index, with its state.

    Raises:
        ExternalError: The server does not answer.
    """
    return tuple(IndexEntry.model_validate(entry) for entry in _told(url, "POST", "/v2/repository/index"))


def config_differences(url: str, config: ModelConfig, *, version: int | None = None) -> list[str]:
    """Where the configuration that the server uses differs from ours; empty if it echoes all that we set.

    Raises:
        ExternalError: The server does not answer, or does not serve that model.
    """
    part = f"/versions/{version}" if version is not None else ""
    echoed = _told(url, "GET", f"/v2/models/{config.name}{part}/config")
    return _differences(config.model_dump(mode="json", by_alias=True, exclude_defaults=True), echoed, "")


def ask(url: str, method: str, path: str, *, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes]:
    """Status and body of any call.

    Raises:
        InputError: The address is none.
        ExternalError: The server does not answer, or not as Triton's HTTP service does.
    """
    check_address(url)
    try:
        return _request(url, method, path, timeout_s)
    except http.client.BadStatusLine as error:
        if isinstance(error, OSError):  # the connection was closed before a line came
            raise _no_answer(url, error) from error
        raise no_http(url, str(error.args[0])) from error
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(url, error) from error


def _no_answer(url: str, error: Exception) -> ExternalError:
    return ExternalError(
        f"server {url}", detail=f"it does not answer: {error}", fix="Start it: jettison serve REPOSITORY"
    )


def _differences(ours: object, theirs: object, path: str) -> list[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return [
            problem
            for key, value in ours.items()
            for problem in _differences(value, theirs.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [problem for i, (a, b) in pairs for problem in _differences(a, b, f"{path}[{i}]")]
    if str(ours) == str(theirs):
        return []
    return [f"{path}: expected {ours!r}, found {theirs!r}"]


def _states(url: str, models: Sequence[str]) -> str:
    try:
        entries = index(url)
    except ExternalError:
        return "the server does not answer"
    wanted = [entry for entry in entries if entry.name in models or not models]
    return (
        "; ".join(f"{e.name} {e.version} {e.state} {e.reason}".strip() for e in wanted)
        or "its index is empty"
    )


def _status(url: str, path: str) -> int | None:
    try:
        return _request(url, "GET", path)[0]
    except (OSError, http.client.HTTPException):
        return None


def _told(url: str, method: str, path: str) -> Any:
    try:
        return json.loads(_ask(url, method, path))
    except ValueError as error:
        raise ExternalError(
            f"server {url}",
            detail=f"expected Triton's HTTP service there, found one that answers no JSON to {path}",
            fix="Give the port of HTTP (8000 by default; 8001 is gRPC, 8002 metrics)",
        ) from error


def _ask(url: str, method: str, path: str) -> bytes:
    status, body = ask(url, method, path)
    if status != 200:
        words = body.decode(errors="replace")[:500]
        raise ExternalError(
            f"server {url}", detail=f"it answered {status} to {path}: {words}", fix="Look at the server's log"
        )
    return body


def _request(url: str, method: str, path: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url, timeout=timeout_s)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
