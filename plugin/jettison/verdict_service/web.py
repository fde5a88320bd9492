"""The endpoints, by Starlette; imported through `running.py` only.

Source: the shapes that Argo Rollouts' web metric and Flagger's webhooks read.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from jettison.core.errors import InputError
from jettison.experiment.counter_file import counters_of, document_of, verify_all
from jettison.verdict_service.desk import Desk, Standing
from jettison.verdict_service.flagger import YES, says_yes
from jettison.verdict_service.metrics import text_of
from jettison.verdict_service.poller import Poller
from jettison.verdict_service.sources import LARGEST_FILE_BYTES
from jettison.verdict_service.sources import document_of as json_of

LARGEST_HOOK_BYTES = 64 << 10
"""Chosen: what Flagger sends has some hundred bytes."""
BODY_TIMEOUT_S = 30.0
"""Chosen: a node that takes longer to send its counters tries again."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}

Endpoint = Callable[[Request], Awaitable[Response]]


class Door:
    """All endpoints over one desk.

    Args:
        desk: What is known.
        poller: How the sources do.
        token: What callers must have; None where nobody needs one, and nodes cannot send counters.
        key: By which sent counters must be signed.
    """

    def __init__(self, desk: Desk, poller: Poller, *, token: bytes | None, key: bytes | None) -> None:
        self._desk, self._poller, self._token, self._key = desk, poller, token, key
        self._pushes = 0

    def application(self) -> Starlette:
        """The ASGI application."""
        held = {
            "/metrics": self._metrics,
            "/v1/experiments": self._list,
            "/v1/experiments/{experiment}/verdict": self._verdict,
            "/v1/experiments/{experiment}/counters": self._counters,
        }
        routes = [
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            *(Route(path, self._guarded(endpoint)) for path, endpoint in held.items()),
            Route("/v1/counters", self._guarded(self._push), methods=["POST"]),
            *(Route(f"/flagger/{hook}", self._hook(hook), methods=["POST"]) for hook in YES),
        ]
        handlers = {InputError: _refused, HTTPException: _failed, ClientDisconnect: _gone}
        return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    async def _health(self, request: Request) -> Response:
        del request
        alive = self._poller.is_alive
        return JSONResponse({"alive": alive}, 200 if alive else 503)

    async def _ready(self, request: Request) -> Response:
        del request
        ready = self._poller.is_ready and not self._desk.write_error
        return JSONResponse(
            {"ready": ready, "state": self._desk.write_error or "good"}, 200 if ready else 503
        )

    async def _metrics(self, request: Request) -> Response:
        del request
        text = await run_in_threadpool(text_of, self._desk, self._poller, self._pushes)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _list(self, request: Request) -> Response:
        del request
        return JSONResponse({"experiments": [_summary(one) for one in self._desk.standings.values()]})

    async def _verdict(self, request: Request) -> Response:
        verdict = self._found(request.path_params["experiment"]).verdict
        return Response(verdict.model_dump_json(), media_type="application/json")

    async def _counters(self, request: Request) -> Response:
        return JSONResponse(document_of(self._found(request.path_params["experiment"]).kept.counters))

    async def _push(self, request: Request) -> Response:
        """Answers after the counters are on disk: a node that heard 200 need not send them again."""
        if self._token is None:
            raise HTTPException(403, "nodes may send counters only where callers need a token")
        content = await body_of(request, LARGEST_FILE_BYTES)
        counters = counters_of(json_of(content, "sent counters"), what="sent counters")
        if self._key is not None:
            verify_all(counters, self._key)
        standing = self._found(counters.experiment)
        try:
            await run_in_threadpool(self._desk.take, counters.states)
        except OSError as error:
            raise HTTPException(503, f"not kept: {error.strerror}; send them again") from error
        self._pushes += 1
        return JSONResponse({"experiment": standing.settings.id, "states": len(counters.states)})

    def _hook(self, hook: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            metadata = _metadata(await body_of(request, LARGEST_HOOK_BYTES))
            self._admit(request, instead=metadata.get("token", ""))
            name = request.query_params.get("experiment") or metadata.get("experiment", "")
            decision = self._found(name).verdict.decision
            yes = says_yes(hook, decision)
            return JSONResponse({"decision": decision, "yes": yes}, 200 if yes else 409)

        return answer

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            self._admit(request)
            return await endpoint(request)

        return answer

    def _admit(self, request: Request, *, instead: str = "") -> None:
        """Nothing, where the caller has the token; compared in a time that tells nothing of it."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        told = given.strip() if scheme.lower() == "bearer" else instead
        if not hmac.compare_digest(told.encode(), self._token):
            raise HTTPException(401, "expected the token as `Authorization: Bearer TOKEN`", _CHALLENGE)

    def _found(self, name: str) -> Standing:
        standing = self._desk.find(name)
        if standing is None:
            raise HTTPException(404, f"no experiment {name[:80]!r}, or several of that name: give its id")
        return standing


async def body_of(request: Request, most: int) -> bytes:
    """The body, of at most so many bytes.

    Raises:
        HTTPException: It is larger, or too slow.
    """
    try:
        return await asyncio.wait_for(_read(request, most), BODY_TIMEOUT_S)
    except asyncio.TimeoutError as error:
        raise HTTPException(408, f"expected the body within {BODY_TIMEOUT_S:g} s") from error


async def _read(request: Request, most: int) -> bytes:
    length = request.headers.get("content-length", "0")
    pieces, size = [], int(length) if length.isdigit() else 0
    if size <= most:
        size = 0
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
    if size > most:
        raise HTTPException(413, f"expected at most {most} bytes")
    return b"".join(pieces)


def _metadata(content: bytes) -> dict[str, str]:
    """What a Flagger webhook carries for us."""
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "expected a JSON object") from error
    metadata = document.get("metadata") or {} if isinstance(document, dict) else {}
    if not isinstance(metadata, dict):
        raise HTTPException(400, "expected metadata to be an object")
    return {str(key): value for key, value in metadata.items() if isinstance(value, str)}


def _summary(one: Standing) -> dict[str, object]:
    return {
        "experiment": one.settings.id, "name": one.settings.name, "decision": one.verdict.decision,
        "reasons": one.verdict.reasons, "units": one.verdict.units, "nodes": one.kept.counters.nodes,
        "ended": one.kept.ended or None,
    }  # fmt: skip


async def _refused(request: Request, error: InputError) -> Response:
    del request
    return JSONResponse({"error": {"what": error.what, "detail": error.detail, "fix": error.fix}}, 422)


async def _failed(request: Request, error: HTTPException) -> Response:
    del request
    return JSONResponse({"error": {"detail": error.detail}}, error.status_code, headers=error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    del request, error
    return Response(status_code=400)
