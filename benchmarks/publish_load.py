"""Clients that ask one model over gRPC without a pause, and which of their answers were wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from jettison.core.errors import ExternalError
from jettison.triton.client import TritonRunner

CLIENTS = 16
_ROW = np.float32([[1, 1, 1]])


@dataclass(frozen=True)
class Answer:
    """When a request was sent and answered, and by which factor; None where it failed, with the words."""

    sent: float
    received: float
    factor: float | None
    words: str = ""


@dataclass
class Span:
    """A factor that may be served from when its publish began until the next one is proven."""

    factor: float
    begun: float
    ended: float = float("inf")


@dataclass
class History:
    """Which factor may have been served when, and what the clients got."""

    spans: list[Span] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def begin(self, factor: float) -> None:
        """From now on this factor may be served, beside the one before."""
        self.spans.append(Span(factor, time.perf_counter()))

    def prove(self) -> None:
        """From now on the last factor only."""
        if len(self.spans) > 1:
            self.spans[-2].ended = time.perf_counter()

    def failed(self) -> list[Answer]:
        """Requests without an answer."""
        return [answer for answer in self.answers if answer.factor is None]

    def wrong(self) -> list[Answer]:
        """Answers of a version that could not be served at any time while the request was under way."""
        return [a for a in self.answers if a.factor is not None and not self._is_allowed(a)]

    def _is_allowed(self, answer: Answer) -> bool:
        return any(
            span.factor == answer.factor and span.begun <= answer.received and answer.sent <= span.ended
            for span in self.spans
        )


def ask_once(url: str, model: str) -> float:
    """The factor by which the model answers over gRPC."""
    with TritonRunner(url, model, protocol="grpc", shared_memory=False) as runner:
        return float(runner.run({"x": _ROW})["y"][0, 0])


@contextmanager
def load(url: str, model: str, history: History) -> Iterator[None]:
    """Sixteen clients at work while the block runs; their answers are in the history."""
    stop = threading.Event()
    clients = [
        threading.Thread(target=_ask, args=(url, model, stop, history.answers)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        stop.set()
        for client in clients:
            client.join()


def _ask(url: str, model: str, stop: threading.Event, answers: list[Answer]) -> None:
    with TritonRunner(url, model, protocol="grpc", shared_memory=False) as runner:
        while not stop.is_set():
            sent = time.perf_counter()
            try:
                factor, words = float(runner.run({"x": _ROW})["y"][0, 0]), ""
            except ExternalError as error:
                factor, words = None, str(error)
            answers.append(Answer(sent, time.perf_counter(), factor, words))
