"""The router's counters in Triton's own metrics, brought up to date once in a while.

An update is a message to the server, so that none is made on the way of a request: what happened is added up
here and told as one increment.
"""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

PREFIX = "jettison_router_"
FAMILIES = {
    "requests_baseline": "Requests answered by the baseline that were given to it",
    "requests_candidate": "Requests answered by the candidate",
    "fallbacks": "Requests given to the candidate and answered by the baseline",
    "errors_baseline": "Requests that the baseline failed",
    "errors_candidate": "Requests that the candidate failed, wrong forms of answers included",
    "shadows": "Requests that the candidate was asked after the answer",
    "dropped_shadows": "Requests that it was not asked, since too many or too large ones were with it",
    "agreements": "Requests on which both answered alike",
    "disagreements": "Requests on which they did not",
    "over_limit": "Answers of the candidate that took longer than the limit",
    "breaker_openings": "How often the candidate was left alone for a while",
    "late_requests": "Requests of units that were counted already",
    "lost_events": "Requests that could not be counted, since too many waited for the ledger",
    "state_errors": "How often the state file was missing or torn",
    "unit_parameter": "Requests whose unit was named by the parameter",
    "unit_header": "Requests whose unit was named by a forwarded header",
    "unit_correlation_id": "Requests whose unit is their correlation id",
    "unit_request_id": "Requests whose unit is their own id",
    "unit_random": "Requests of no known unit",
}


class Metrics:
    """Counters by name; `add` from any thread, `flush` from one."""

    def __init__(self, model: str, instance: str) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        # A family must live as long as its metrics.
        self._families: dict[str, Any] = {
            name: pb_utils.MetricFamily(
                name=f"{PREFIX}{name}_total", description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, text in FAMILIES.items()
        }
        labels = {"model": model, "instance": instance}
        self._metrics = {name: family.Metric(labels=labels) for name, family in self._families.items()}

    def add(self, name: str, count: int = 1) -> None:
        """That many more, told with the next flush."""
        with self._lock:
            self._waiting[name] = self._waiting.get(name, 0) + count

    def flush(self) -> None:
        """Tell the server."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, count in waiting.items():
            if count:
                self._metrics[name].increment(count)
