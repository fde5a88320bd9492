"""Which unit a request belongs to, and which of the two models answers that unit.

Standard library only.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_state import BUCKETS
else:
    from router_state import BUCKETS

UNIT = "unit"
"""The request parameter that names the unit."""

SOURCES = ("parameter", "header", "correlation_id", "request_id", "random")
MOST_SEQUENCES = 16_384
"""Chosen: some megabytes. The oldest sequence is forgotten first."""
SEQUENCE_IDLE_S = 3600.0
"""Chosen: Triton's own sequence batcher lets go of one after a second without a request."""
START, END = 1, 2
"""Flags of a request. Source: TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and _END, tritonserver.h."""


class Key(NamedTuple):
    """A unit's key, and where it was found: one of `SOURCES`."""

    text: str
    source: str


def key_of(
    parameters: Mapping[str, object], *, header: str, correlation_id: int | str, request_id: str
) -> Key:
    """The key of a request's unit: named, else of its header, sequence or request; else a random one."""
    if (named := parameters.get(UNIT)) not in (None, ""):
        return Key(str(named), "parameter")
    if header and (sent := parameters.get(header)) not in (None, ""):
        return Key(str(sent), "header")
    if correlation_id:
        return Key(str(correlation_id), "correlation_id")
    if request_id:
        return Key(request_id, "request_id")
    return Key(secrets.token_hex(8), "random")


def bucket_of(key: str, salt: str) -> int:
    """The unit's bucket, from 0 to 9999: the same everywhere and for ever.

    A candidate with weight w has the buckets below w. So a growing weight only adds units to it.
    """
    return int.from_bytes(_hash(f"split\0{salt}\0{key}"), "big") % BUCKETS


def is_sampled(key: str, salt: str, share: float) -> bool:
    """Whether the unit's answers are compared; independent of its bucket."""
    return share >= 1 or int.from_bytes(_hash(f"sample\0{salt}\0{key}"), "big") < share * 2**64


def unit_id(key: Key) -> str:
    """A short name of the unit for the ledger, which need not know what clients call it."""
    return hashlib.blake2b(f"{key.source}\0{key.text}".encode(), digest_size=12).hexdigest()


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


class Sequences:
    """Where each sequence goes: decided at its first request, whatever the weight does later.

    One process must see all requests of a sequence. A request of an unknown one that is not its first goes to
    the baseline, and so does the rest of it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pinned: OrderedDict[int | str, tuple[bool, float]] = OrderedDict()

    def is_candidates(self, correlation_id: int | str, flags: int, *, hashed: bool) -> bool:
        """Whether the candidate has the sequence; `hashed` is what its bucket says now."""
        now, known = self._clock(), self._pinned.pop(correlation_id, None)
        decided = hashed if flags & START else known is not None and known[0]
        if not flags & END:
            self._pinned[correlation_id] = decided, now
        self._forget(now)
        return decided

    def _forget(self, now: float) -> None:
        while self._pinned:
            oldest = next(iter(self._pinned))
            if len(self._pinned) <= MOST_SEQUENCES and now - self._pinned[oldest][1] < SEQUENCE_IDLE_S:
                return
            del self._pinned[oldest]
