"""Triton's `jettison_router` backend: one model in front of a baseline and a candidate.

It answers with the baseline, or with the one of the two that a request's unit was given to, or with the
baseline while the candidate is asked afterwards and compared. It runs inside the server's stub: standard
library, numpy and `triton_python_backend_utils` only, and nothing of Jettison.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_heap import TRIM_S, bound_heaps, trim_heaps
    from jettison.triton.backends.jettison_router.router_ledger import Ledger
    from jettison.triton.backends.jettison_router.router_metrics import Metrics
    from jettison.triton.backends.jettison_router.router_roads import Road
    from jettison.triton.backends.jettison_router.router_settings import Settings, settings_of
    from jettison.triton.backends.jettison_router.router_shown import Shown
    from jettison.triton.backends.jettison_router.router_state import StateWatch
else:
    from router_heap import TRIM_S, bound_heaps, trim_heaps
    from router_ledger import Ledger
    from router_metrics import Metrics
    from router_roads import Road
    from router_settings import Settings, settings_of
    from router_shown import Shown
    from router_state import StateWatch

_TICK_S = 0.1
"""Chosen: how long an event waits for the node's ledger at most; five a second cost nothing that is seen."""
_GRACE_S = 3.0
"""Chosen: how long the end of the instance waits for the last tick, which may write to a slow disk."""


class TritonPythonModel:
    """One instance of a router, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the settings; an error here is the reason that the server gives for not loading the model."""
        config = json.loads(args["model_config"])
        bound_heaps()
        try:
            settings = settings_of(config.get("parameters", {}))
            self._ledger = Ledger(settings, _warn)
        except (ValueError, KeyError, OSError) as error:
            raise pb_utils.TritonModelException(f"router {args['model_name']!r}: {error}") from error
        _check(config, settings)
        self._watch = StateWatch(settings.state_path, _warn)
        self._metrics = Metrics(args["model_name"], args["model_instance_name"])
        self._shown = Shown(args["model_name"])
        self._road = Road(settings, self._ledger, self._metrics, _warn, config=config)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tick_on, name="router ledger", daemon=True)
        self._thread.start()

    async def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request; one that fails is an error of its own."""
        state = self._watch.look()
        if len(requests) == 1:
            return [await self._road.answer(requests[0], state, is_alone=True)]
        answers = (self._road.answer(request, state, is_alone=False) for request in requests)
        return list(await asyncio.gather(*answers))

    def finalize(self) -> None:
        """Complete and write what was counted."""
        self._stopping.set()
        self._thread.join(_GRACE_S)
        self._road.close()
        try:
            self._ledger.close()
        except OSError as error:
            _warn(f"counters: {error}; what was counted since the last write is lost")

    def _tick_on(self) -> None:
        told, next_metrics_s, next_trim_s = "", 0.0, 0.0
        while not self._stopping.wait(_TICK_S):
            try:
                self._ledger.tick(self._watch.look().experiment)
            except (OSError, ValueError) as error:
                if str(error) != told:
                    told = str(error)
                    _warn(f"counters: {told}; counting on, and trying again")
            if time.monotonic() >= next_metrics_s:
                next_metrics_s = time.monotonic() + 1.0
                self._tell()
            if time.monotonic() >= next_trim_s:
                next_trim_s = time.monotonic() + TRIM_S
                trim_heaps()

    def _tell(self) -> None:
        for name, count in (
            ("late_requests", self._ledger.take_late()),
            ("lost_events", self._ledger.take_dropped()),
            ("state_errors", self._watch.take_bad_reads()),
            ("breaker_openings", self._road.take_openings()),
        ):
            if count:
                self._metrics.add(name, count)
        self._metrics.flush()
        for document in self._ledger.take_news():
            self._shown.tell(document)


def _check(config: dict[str, Any], settings: Settings) -> None:
    known = {tensor["name"] for tensor in config.get("output", [])}
    named = {settings.output, settings.score_output, settings.class_output} - {""}
    if named - known:
        raise pb_utils.TritonModelException(
            f"outputs {sorted(named - known)} are to be compared, the configuration has {sorted(known)}"
        )


def _warn(text: str) -> None:
    pb_utils.Logger.log_warn(f"jettison_router: {text}")
