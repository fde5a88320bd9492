"""Mode and weight of the router, out of a small file that is replaced while it runs.

A change of the configuration would reload the model, so what changes during an experiment stands outside
the model's folder. Every batch looks at the file's times: so all instances see a new weight from the same
moment, and no unit flips back because another instance was late. Standard library only.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_settings import NAME
else:
    from router_settings import NAME

FORMAT = "jettison-router/1"
MODES = ("off", "split", "shadow")
BUCKETS = 10_000
"""Units are spread over so many buckets; a weight is how many of them the candidate has."""


@dataclass(frozen=True)
class State:
    """What the router does now.

    Args:
        mode: `off`: the baseline answers. `split`: one of the two does. `shadow`: the baseline answers and
            the candidate is asked after that.
        weight: In how many of the buckets the candidate answers, in mode `split`.
        experiment: Whose counters grow.
        salt: What is hashed with a unit's key.
    """

    mode: str = "off"
    weight: int = 0
    experiment: str = ""
    salt: str = ""


def state_of(text: bytes) -> State:
    """The state in a file.

    Raises:
        ValueError: It is none; the text says why.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"expected an object of the format {FORMAT!r}")
    mode, weight = document.get("mode"), document.get("weight", 0)
    experiment, salt = document.get("experiment", ""), document.get("salt", "")
    if mode not in MODES:
        raise ValueError(f"expected a mode of {MODES}, found {mode!r}")
    if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= BUCKETS:
        raise ValueError(f"expected a weight from 0 to {BUCKETS}, found {weight!r}")
    if not isinstance(experiment, str) or not isinstance(salt, str):
        raise ValueError(f"expected texts, found experiment {experiment!r} and salt {salt!r}")
    if mode != "off" and not NAME.fullmatch(experiment):
        raise ValueError(f"mode {mode!r} counts for an experiment, found {experiment!r}")
    return State(mode, weight, experiment, salt)


class StateWatch:
    """The last good state; a torn or missing file changes nothing, and is told once.

    Args:
        path: The file.
        say: Where a sentence about a bad file goes.
    """

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = ()
        self.state = State()
        self._bad_reads = 0

    def look(self) -> State:
        """The state as the file has it now; a `stat` costs some microseconds."""
        times = self._times()
        if times == self._seen:
            return self.state
        with self._lock:
            if times != self._seen:
                self._read(times)
        return self.state

    def take_bad_reads(self) -> int:
        """How often the file was missing or torn since the last call."""
        bad_reads, self._bad_reads = self._bad_reads, 0
        return bad_reads

    def _times(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 (on the way of every batch)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self, times: tuple[int, ...] | None) -> None:
        try:
            with open(self._path, "rb") as file:  # noqa: PTH123 (on the way of every batch)
                state = state_of(file.read())
        except (OSError, ValueError, RecursionError) as error:
            self._bad_reads += 1
            self._say(f"state {self._path}: {error}; going on with {self.state}")
        else:
            self.state = state
        self._seen = times
