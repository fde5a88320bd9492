"""Clients that load a server, and how much it answers: the throughput half of benchmarks/serve.py."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

import numpy as np
import tritonclient.http

from jettison.core.tensors import Arrays
from jettison.triton.client import Protocol, TritonRunner
from jettison.triton.region import Region

CLIENTS = 8


@dataclass(frozen=True)
class Asker:
    """One client: `ask` asks the server once, `read` finds the output in what it answered.

    They are apart because reading is no part of what is timed: a load generator drops the answer.
    """

    ask: Callable[[], Any]
    read: Callable[[Any], np.ndarray]


Client: TypeAlias = Callable[[], AbstractContextManager[Asker]]


@contextlib.contextmanager
def shipped_client(url: str, model: str, protocol: Protocol, inputs: Arrays) -> Iterator[Asker]:
    """One call after the other by the client that ships."""
    with TritonRunner(url, model, protocol=protocol) as runner:
        yield Asker(lambda: runner.run(inputs), lambda answer: answer["y"])


@contextlib.contextmanager
def prepared_client(url: str, model: str, inputs: Arrays) -> Iterator[Asker]:
    """One and the same request over and over, made beforehand, its inputs in shared memory.

    What a load generator does, so that the cores are left to the server: the shipped client's 0.5 ms of
    processor time a call (checks, copies, tritonclient's headers and JSON) runs elsewhere in production.
    """
    with (
        contextlib.closing(tritonclient.http.InferenceServerClient(url)) as registrar,
        contextlib.closing(Region(registrar)) as region,
        contextlib.closing(http.client.HTTPConnection(url)) as connection,
    ):
        array = inputs["x"]
        request = tritonclient.http.InferInput("x", array.shape, "FP32")
        place = region.place([array])[0]
        request.set_shared_memory(place.name, place.size, place.offset)
        body, header_size = registrar.generate_request_body([request])
        headers = {"Inference-Header-Content-Length": str(header_size)} if header_size else {}

        def ask() -> tuple[bytes, str | None]:
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            answer = connection.getresponse()
            found = answer.read()
            if answer.status != HTTPStatus.OK:
                raise RuntimeError(f"the server answers {answer.status}: {found[:200]!r}")
            return found, answer.getheader("Inference-Header-Content-Length")

        yield Asker(ask, _output)


def _output(answer: tuple[bytes, str | None]) -> np.ndarray:
    body, size = answer
    parse = tritonclient.http.InferenceServerClient.parse_response_body
    found: np.ndarray = parse(body, header_length=int(size) if size else None).as_numpy("y")
    return found


def answer_of(client: Client) -> np.ndarray:
    """The output that one client gets."""
    with client() as asker:
        return asker.read(asker.ask())


def served_rate(client: Client, seconds: float = 2.0) -> float:
    """Answers in a second to eight clients, each a thread with a connection of its own.

    Raises:
        Exception: What the first client met that could not start or died on the way; there is no figure then.
    """
    counts = [0] * CLIENTS
    started, stop, failed = threading.Barrier(CLIENTS + 1), threading.Event(), threading.Event()

    def load(i: int) -> None:
        try:
            with client() as asker:
                asker.ask()
                started.wait()
                while not stop.is_set():
                    asker.ask()
                    counts[i] += 1
        except BaseException:
            failed.set()
            started.abort()  # else the others would wait for this one for ever
            raise

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(load, i) for i in range(CLIENTS)]
        begin = time.perf_counter()
        with contextlib.suppress(threading.BrokenBarrierError):
            started.wait()
            begin = time.perf_counter()
            failed.wait(seconds)
        total, elapsed = sum(counts), time.perf_counter() - begin
        stop.set()
    _raise_first(clients)
    return total / elapsed


def _raise_first(clients: list[Future[None]]) -> None:
    """The error of a client itself, rather than of one that waited for it in vain."""
    errors = [error for client in clients if (error := client.exception()) is not None]
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    for error in own or errors:
        raise error


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls in a second."""
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - begin)
