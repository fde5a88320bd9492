"""Inputs in system shared memory: a request to a server on the same machine then carries only their place.

A request of 600 KB costs the client and the server's front end 1.4 ms over HTTP and 2.5 ms over gRPC, most
of it in copies through sockets; through shared memory it costs as much as a small one (benchmarks/serve.py).

Source: triton-inference-server/server, docs/protocol/extension_shared_memory.md, system shared memory.
"""

from __future__ import annotations

import errno
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np

from jettison.core.errors import ExternalError
from jettison.triton.server_guard import SHARED_MEMORY

Array = np.ndarray[Any, Any]

LEAST_BYTES = 64 << 10
"""Smaller requests gain nothing: chosen by benchmarks/serve.py."""
_ALIGNMENT = 64
"""A cache line: vector instructions read aligned inputs fastest."""
_UNREGISTER_DEADLINE_S = 1.0
"""The server lets a region go a moment after it has answered the last request that used it."""
_PAUSE_S = 0.005
_MARGIN_BYTES = 16 << 20
"""Left to others: a container has 64 MiB by default."""


class Client(Protocol):
    """What a region needs of tritonclient's clients."""

    def register_system_shared_memory(self, name: str, key: str, byte_size: int) -> object:
        """Let the server map the region."""
        ...

    def unregister_system_shared_memory(self, name: str) -> object:
        """Let the server unmap it."""
        ...


@dataclass(frozen=True)
class Place:
    """Where one array stands in a region, in bytes."""

    name: str
    offset: int
    size: int


class Region:
    """One shared memory region that grows with the inputs; for one thread, like the client that it serves.

    The memory is named at random, readable by its owner alone, and removed at `close`, or by Python's
    resource tracker where the process dies.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._memory: SharedMemory | None = None
        self._name = ""

    def place(self, arrays: Sequence[Array]) -> list[Place]:
        """Copy the arrays into the region, and say where each stands.

        Raises:
            InferenceServerException: The server cannot map the region: it runs elsewhere, as another user,
                or was told not to.
            OSError: This machine has too little shared memory.
        """
        starts = list(accumulate((_aligned(array.nbytes) for array in arrays), initial=0))
        memory = self._sized(max(1, starts[-1]))
        places = []
        for start, array in zip(starts, arrays, strict=False):
            view: Array = np.ndarray(array.shape, array.dtype, buffer=memory.buf, offset=start)
            np.copyto(view, array)
            places.append(Place(self._name, start, array.nbytes))
        return places

    def close(self) -> None:
        """Let the server and this process forget the region.

        Raises:
            ExternalError: The server does not let it go.
        """
        memory, self._memory = self._memory, None
        if memory is None:
            return
        try:
            self._unregister()
        finally:
            memory.close()
            memory.unlink()

    def _sized(self, size: int) -> SharedMemory:
        """The region with at least that many bytes: a new one, twice as large, where it is too small."""
        if self._memory is not None and self._memory.size >= size:
            return self._memory
        grown = size if self._memory is None else 2 * size
        self.close()
        _check_room(grown)
        self._name = f"jettison-{secrets.token_hex(8)}"
        memory = SharedMemory(self._name, create=True, size=grown)
        try:
            self._client.register_system_shared_memory(self._name, f"/{self._name}", grown)
        except BaseException:
            memory.close()
            memory.unlink()
            raise
        self._memory = memory
        return memory

    def _unregister(self) -> None:
        from tritonclient.utils import InferenceServerException

        deadline = time.monotonic() + _UNREGISTER_DEADLINE_S
        while True:
            try:
                self._client.unregister_system_shared_memory(self._name)
                return
            except OSError:
                return  # the server is gone, and the mapping with it
            except InferenceServerException as error:
                if "in use" not in error.message():
                    return
                if time.monotonic() > deadline:
                    raise ExternalError(
                        f"shared memory region {self._name!r}",
                        detail=f"the server does not let it go: {error.message()}",
                        fix="Restart the server",
                    ) from error
            time.sleep(_PAUSE_S)


def _check_room(size: int) -> None:
    """Refuse what does not fit: memory that cannot be backed kills the process that writes to it."""
    if shutil.disk_usage(SHARED_MEMORY).free < size + _MARGIN_BYTES:
        raise OSError(errno.ENOSPC, "too little shared memory", str(SHARED_MEMORY))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
