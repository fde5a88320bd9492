"""The address and the ports of a server on this machine: which are free, and who listens on one."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jettison.core.errors import InputError
from jettison.triton.server_guard import marked

LOOPBACK = "127.0.0.1"
_LISTENS = "0A"
"""TCP_LISTEN in the fourth column of /proc/net/tcp. Source: Linux, include/net/tcp_states.h; proc_net(5)."""


@dataclass(frozen=True)
class Ports:
    """The three ports of one server."""

    http: int
    grpc: int
    metrics: int


def free_ports(http: int | None, grpc: int | None, metrics: int | None) -> Ports:
    """The given ports, and for each that is None one that was free just now; those differ.

    Raises:
        InputError: Something listens on a given port already, or this user may not.
    """
    wanted = {"http": http, "grpc": grpc, "metrics": metrics}
    with contextlib.ExitStack() as held:
        chosen = {name: _given(port, name, held) for name, port in wanted.items() if port is not None}
        chosen |= {name: _free_port(held) for name, port in wanted.items() if port is None}
    return Ports(**chosen)


def _given(port: int, service: str, held: contextlib.ExitStack) -> int:
    """That port, held until all are chosen; connections that a server left behind do not count."""
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        other = f"Give another --{service}-port (0 for any free one)"
        raise InputError(
            f"port {port} for {service}",
            detail="something listens there already" if is_taken else f"it cannot be had: {error.strerror}",
            fix=f"{other}, or stop what listens there" if is_taken else other,
        ) from error
    return port


def _free_port(held: contextlib.ExitStack) -> int:
    """A port that is held until all are chosen, so that they differ."""
    listener = held.enter_context(socket.socket())
    listener.bind((LOOPBACK, 0))
    port: int = listener.getsockname()[1]
    return port


def is_anothers(port: int, mark: str) -> bool:
    """Whether somebody listens on the port, and no process with that mark does.

    Args:
        port: The port, on any address of this machine.
        mark: `NAME=value` in the environment of the process itself, or of the one that started it.
    """
    sockets = set(_listening(port))
    return bool(sockets) and not any(sockets & set(_sockets(process)) for process in marked(mark))


def _listening(port: int) -> Iterator[str]:
    """The sockets that listen there, as links in a process's `fd` folder name them."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTENS and int(columns[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{columns[9]}]"


def _sockets(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # gone meanwhile
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield str(link.readlink())
