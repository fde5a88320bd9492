"""Requests to the two models, by Triton's business logic scripting.

Each model has threads of its own: the stub's `async_exec` takes the loop's default ones for all, where a
candidate that hangs would soon hold every thread and the baseline would wait. The tensors are handed on in
shared memory as they came.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, Any]

_TEXT_BYTES = 64
"""Chosen: what one text is taken for where its length is not known without reading it."""
NUMPY_1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"
"""Whether the stub, which is built against numpy 1, can make arrays by itself."""


def failures() -> tuple[type[Exception], ...]:
    """What the stub raises, and what wrong values make of it.

    Asked for where it is caught: the stub fills its module after ours are imported.
    """
    return (pb_utils.TritonModelException, RuntimeError, ValueError, TypeError, KeyError, OSError)


class Asked(NamedTuple):
    """A request as the router needs it, read once.

    The request itself is not kept: it belongs to the server again once it is answered.
    """

    inputs: Sequence[Any]
    outputs: list[str]
    request_id: str
    correlation_id: int | str
    flags: int
    timeout_us: int
    parameters: dict[str, Any]
    trace: Any


def asked_of(request: Any) -> Asked:
    """What a request holds; its priority is not told to Python models (24.10)."""
    text = request.parameters()
    return Asked(
        inputs=request.inputs(),
        outputs=list(request.requested_output_names()),
        request_id=request.request_id(),
        correlation_id=request.correlation_id(),
        flags=request.flags(),
        timeout_us=request.timeout(),
        parameters=json.loads(text) if len(text) > 2 else {},
        trace=request.trace(),
    )


class Answer(NamedTuple):
    """What a model gave: a response or a sentence that says why not, and how long it took."""

    response: Any
    error: str
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether it is an answer."""
        return not self.error


class Target:
    """One of the two models.

    Args:
        model: Its name.
        threads: The most requests that are with it at a time.
        version: Its version; -1 for the newest that is served.
    """

    def __init__(self, model: str, threads: int, *, version: int = -1) -> None:
        self.model, self.threads, self._version = model, threads, version
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=model)
        self._lock = threading.Lock()
        self.in_flight = 0

    @property
    def is_full(self) -> bool:
        """Whether another request would have to wait for a thread."""
        return self.in_flight >= self.threads

    async def ask(self, asked: Asked, *, traced: bool = True, deadline_s: float | None = None) -> Answer:
        """Its answer; after the deadline an error, while the request goes on and keeps its thread.

        A trace belongs to the request that brought it, and ends with its answer.
        """
        begin = time.perf_counter()
        try:
            request = self._request(asked, traced=traced)
        except failures() as error:
            return _failed(error, 0.0)
        future = asyncio.get_running_loop().run_in_executor(self._pool, request.exec)
        self._enter(future)
        done, _ = await asyncio.wait((future,), timeout=deadline_s)
        seconds = time.perf_counter() - begin
        if not done:
            return self._late(deadline_s, seconds)
        return _answer(future, seconds)

    def ask_here(self, asked: Asked) -> Answer:
        """Its answer, waited for in this thread: a request alone saves two changes of threads."""
        begin = time.perf_counter()
        try:
            response = self._request(asked, traced=True).exec()
        except failures() as error:
            return _failed(error, time.perf_counter() - begin)
        return _answer_of(response, time.perf_counter() - begin)

    def ask_within(self, asked: Asked, deadline_s: float) -> Answer:
        """The same, but after the deadline an error, while the request goes on in a thread of its own."""
        begin = time.perf_counter()
        try:
            future = self._pool.submit(self._request(asked, traced=True).exec)
            self._enter(future)
            response = future.result(deadline_s)
        except concurrent.futures.TimeoutError:
            return self._late(deadline_s, time.perf_counter() - begin)
        except failures() as error:
            return _failed(error, time.perf_counter() - begin)
        return _answer_of(response, time.perf_counter() - begin)

    def close(self) -> None:
        """Let its threads end; does not wait for those that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enter(self, future: concurrent.futures.Future[Any] | asyncio.Future[Any]) -> None:
        with self._lock:
            self.in_flight += 1
        future.add_done_callback(self._leave)

    def _leave(self, _: object) -> None:
        with self._lock:
            self.in_flight -= 1

    def _late(self, deadline_s: float | None, seconds: float) -> Answer:
        return Answer(None, f"{self.model}: no answer within {deadline_s:g} s", seconds)

    def _request(self, asked: Asked, *, traced: bool) -> Any:
        extra = {"trace": asked.trace} if traced and asked.trace is not None else {}
        return pb_utils.InferenceRequest(
            model_name=self.model,
            model_version=self._version,
            requested_output_names=asked.outputs,
            inputs=asked.inputs,
            request_id=asked.request_id,
            correlation_id=asked.correlation_id,
            flags=asked.flags,
            timeout=asked.timeout_us,
            parameters=asked.parameters or None,
            **extra,
        )


def _failed(error: BaseException, seconds: float) -> Answer:
    return Answer(None, f"{type(error).__name__}: {error}", seconds)


def _answer(future: asyncio.Future[Any], seconds: float) -> Answer:
    if (error := future.exception()) is not None:
        return _failed(error, seconds)
    return _answer_of(future.result(), seconds)


def _answer_of(response: Any, seconds: float) -> Answer:
    if response.has_error():
        return Answer(response, str(response.error().message()), seconds)
    return Answer(response, "", seconds)


Types = dict[str, np.dtype[Any]]
"""The element types of inputs and outputs by name; that of text is `object`."""


def types_of(config: dict[str, Any]) -> Types:
    """The types in a configuration; the stub's own `triton_dtype` cannot be called from Python (24.10)."""
    tensors = [*config.get("input", []), *config.get("output", [])]
    return {t["name"]: np.dtype(pb_utils.triton_string_to_numpy(t["data_type"])) for t in tensors}


def size_bytes(tensors: Sequence[Any], types: Types) -> int:
    """How much shared memory the tensors hold, about: texts are taken for 64 bytes each."""
    return sum(math.prod(tensor.shape()) * _item_bytes(types[tensor.name()]) for tensor in tensors)


def _item_bytes(kind: np.dtype[Any]) -> int:
    return _TEXT_BYTES if kind == np.object_ else kind.itemsize


def arrays_of(response: Any, types: Types) -> dict[str, Array]:
    """A response's outputs; under numpy 2 by DLPack, since the stub is built against numpy 1."""
    return {tensor.name(): _array(tensor, types[tensor.name()]) for tensor in response.output_tensors()}


def _array(tensor: Any, kind: np.dtype[Any]) -> Array:
    found: Array
    if NUMPY_1:
        found = tensor.as_numpy()
        return found
    if kind == np.object_:
        raise ValueError(f"output {tensor.name()!r} is text, which needs numpy 1 to be compared")
    found = np.from_dlpack(tensor)
    return found.view(np.bool_) if kind == np.bool_ else found  # DLPack carries truth values as bytes
