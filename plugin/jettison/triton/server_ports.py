"""The address and the ports of a server on this machine."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The three ports of one server."""

    http: int
    grpc: int
    metrics: int


def free_ports(http: int | None, grpc: int | None, metrics: int | None) -> Ports:
    """The given ports, and for each that is None one that was free just now; those differ."""
    with contextlib.ExitStack() as held:
        ports = [port if port is not None else _free_port(held) for port in (http, grpc, metrics)]
    return Ports(*ports)


def _free_port(held: contextlib.ExitStack) -> int:
    """A port that is held until all are chosen, so that they differ."""
    listener = held.enter_context(socket.socket())
    listener.bind((LOOPBACK, 0))
    port: int = listener.getsockname()[1]
    return port
