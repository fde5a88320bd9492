"""A verdict service that runs: everything checked and opened, then a listening uvicorn. The door to both.

Needs the extra `verdict`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from jettison.core.errors import InputError, MissingError
from jettison.verdict_service.desk import Desk
from jettison.verdict_service.kept import Shelf
from jettison.verdict_service.options import Checked, ServiceOptions, checked, load_experiments
from jettison.verdict_service.poller import Poller

if TYPE_CHECKING:
    from starlette.applications import Starlette

_BACKLOG = 128
_MOST_CONNECTIONS = 200
"""Chosen: more callers at a time are told 503; a rollout asks once a minute."""
_GRACE_S = 5
_LARGEST_HEADERS_BYTES = 16 << 10


def run(options: ServiceOptions, *, now: Callable[[], str], ready: Callable[[str], None]) -> None:
    """Serve until a signal; `ready` is told the address once it listens.

    Raises:
        InputError: A setting is wrong, another service has the state, or the port is taken.
        MissingError: The extra is not installed.
        OSError: The state's folder cannot be made or written to.
    """
    found = checked(options)
    _check_installed()
    import uvicorn

    shelf = Shelf(options.state)
    desk = Desk(shelf, now=now)
    for settings in load_experiments(options.experiments):
        desk.open(settings)
    poller = Poller(desk, found.sources, options.experiments, poll_s=options.poll_s)
    listener = _listening(options.host, options.port)
    config = uvicorn.Config(
        _door(desk, poller, found), log_config=None, access_log=False, server_header=False,
        limit_concurrency=_MOST_CONNECTIONS, timeout_keep_alive=15, timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=_LARGEST_HEADERS_BYTES, http="h11", ws="none", lifespan="off",
    )  # fmt: skip
    poller.start()
    host, port = listener.getsockname()[:2]
    ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        poller.stop()
        listener.close()
        shelf.close()


def _door(desk: Desk, poller: Poller, found: Checked) -> Starlette:
    from jettison.verdict_service.web import Door

    return Door(desk, poller, token=found.token, key=found.key).application()


def _check_installed() -> None:
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        fix = "Run: pip install 'jettison[verdict]'"
        raise MissingError("the verdict service", detail=str(error), fix=fix) from error
    del starlette, uvicorn


def _listening(host: str, port: int) -> socket.socket:
    """The socket that is served; nothing else listens there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"{host}:{port}",
            detail=f"cannot be listened on: {_words(error)}",
            fix="Give another --port, 0 for any free one, or another --host",
        ) from error


def _words(error: OSError) -> str:
    """What the system says, without what Python adds; names that are not found have numbers below 0."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)
