"""Inputs in system shared memory: a request to a server on the same machine then carries only their place.

Beside the model a request of 600 KB costs 1.3 ms over HTTP or gRPC with its bytes inside. Through shared
memory, which spares copies through sockets, it costs 0.75 ms over HTTP and 0.90 ms over gRPC
(benchmarks/RESULTS.md, "Serving").

Source: triton-inference-server/server, docs/protocol/extension_shared_memory.md, system shared memory.
"""

from __future__ import annotations

import errno
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np

from jettison.core.errors import ExternalError
from jettison.triton.shared_memory import SHARED_MEMORY, free_bytes

Array = np.ndarray[Any, Any]

LEAST_BYTES = 64 << 10
"""Chosen between the two sizes of benchmarks/serve.py: 602 KB gain by shared memory; 8 KB in the request cost
no more than 602 KB there. Where between the two the gain begins was not measured."""
_ALIGNMENT = 64
"""A cache line of x86-64 and most arm64 processors. Chosen: no array shares a line with its neighbour."""
_UNREGISTER_DEADLINE_S = 1.0
"""Chosen: the server lets a region go a moment after it has answered the last request that used it, so a
second is plenty, and short enough to wait for at `close`."""
_PAUSE_S = 0.005
"""Chosen: 200 questions at most before the deadline."""
_MARGIN_BYTES = 16 << 20
"""Left to others. Chosen: a quarter of the 64 MiB that a container has by default (docker run --shm-size)."""


class Client(Protocol):
    """What a region needs of tritonclient's clients."""

    def register_system_shared_memory(self, name: str, key: str, byte_size: int, **deadline: float) -> object:
        """Let the server map the region."""
        ...

    def unregister_system_shared_memory(self, name: str, **deadline: float) -> object:
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

    The memory is named at random, readable by its owner alone, and removed at `close`. Where the process
    dies, Python's resource tracker removes the name; the server holds the memory mapped until it ends.

    Args:
        client: Either of tritonclient's clients.
        client_timeout_s: The longest that one call may take, for the gRPC client, which else waits for ever;
            None for the HTTP client, which was given its timeout when it was made.
    """

    def __init__(self, client: Client, *, client_timeout_s: float | None = None) -> None:
        self._client = client
        self._timeout_s = client_timeout_s
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
            self._client.register_system_shared_memory(
                self._name, f"/{self._name}", grown, **self._deadline(math.inf)
            )
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
                self._client.unregister_system_shared_memory(
                    self._name, **self._deadline(_UNREGISTER_DEADLINE_S)
                )
                return
            except OSError:
                return  # gone, and the mapping with it; or it does not answer, and holds that until it ends
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

    def _deadline(self, most_s: float) -> dict[str, float]:
        """What the gRPC client is told of time: HTTP's methods do not know the word."""
        return {} if self._timeout_s is None else {"client_timeout": min(self._timeout_s, most_s)}


def _check_room(size: int) -> None:
    """Refuse what does not fit: memory that cannot be backed kills the process that writes to it."""
    if free_bytes() < size + _MARGIN_BYTES:
        raise OSError(errno.ENOSPC, "too little shared memory", str(SHARED_MEMORY))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
