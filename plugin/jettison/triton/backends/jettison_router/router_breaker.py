"""A circuit breaker: a candidate that fails again and again is left alone for a while.

Standard library only. For one event loop: no locks.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed, open, or half-open with one request on probe.

    Args:
        failures: So many in a row open it.
        pause_s: After so long, one request may try.
        clock: Seconds that only grow.
    """

    def __init__(self, failures: int, pause_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures, self._pause_s, self._clock = failures, pause_s, clock
        self._in_row = 0
        self._opened: float | None = None
        self._is_probing = False
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Whether it lets nothing through but a probe."""
        return self._opened is not None

    def may_ask(self) -> bool:
        """Whether the candidate may be asked; after the pause, once, until that one is told about."""
        if self._opened is None:
            return True
        if self._is_probing or self._clock() - self._opened < self._pause_s:
            return False
        self._is_probing = True
        return True

    def tell(self, *, is_good: bool) -> None:
        """What became of a request that was let through."""
        self._is_probing = False
        if is_good:
            self._in_row, self._opened = 0, None
            return
        self._in_row += 1
        if self._opened is not None or self._in_row >= self._failures:
            self.openings += self._opened is None
            self._opened = self._clock()

    def withdraw(self) -> None:
        """A request that was let through and says nothing: the baseline failed it as well."""
        self._is_probing = False
