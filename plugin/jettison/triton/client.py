"""The door to tritonclient: a model on a live Triton as a `Runner`, over HTTP or gRPC.

The HTTP client is no thread's but its maker's: make one runner for each thread.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from types import ModuleType, TracebackType
from typing import Any, Literal

import numpy as np
from typing_extensions import Self

from jettison.core.errors import ExternalError, InputError, MissingError
from jettison.core.extras import install_command
from jettison.core.tensors import Arrays, TensorSpec
from jettison.triton.config import ModelConfig
from jettison.triton.health import is_server_ready
from jettison.triton.region import Place, Region
from jettison.triton.wire import (
    Array,
    Tensor,
    check_array,
    is_worth_sharing,
    received,
    sent,
    signature_of,
    tensor_of,
)

Protocol = Literal["http", "grpc"]


class TritonRunner:
    """A model on a live Triton; runs longer batches than the server takes in pieces.

    Args:
        url: Host and port, without a scheme.
        model: The model's name.
        version: Its version; the server's choice if None.
        protocol: `http` or `grpc`.
        timeout_s: The longest that one request may take.
        shared_memory: Whether large inputs go through shared memory; if None, where the server is on this
            machine. A server that cannot map it gets them in the request.

    Raises:
        MissingError: tritonclient is not installed.
        ExternalError: The server does not answer, or does not serve that model, or a type is unknown here.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        protocol: Protocol = "http",
        timeout_s: float = 30.0,
        shared_memory: bool | None = None,
    ) -> None:
        self._module = _door(protocol)
        self._url, self._model, self._protocol = url, model, protocol
        self._version = "" if version is None else str(version)
        self._timeout_s = timeout_s
        self._client = _connect(self._module, url, protocol, timeout_s)
        is_shared = _is_here(url) if shared_memory is None else shared_memory
        region_timeout_s = timeout_s if protocol == "grpc" else None
        self._region = Region(self._client, client_timeout_s=region_timeout_s) if is_shared else None
        self._is_guest = False
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._read()
            undo.pop_all()

    def beside(self, model: str) -> TritonRunner:
        """Another model over this connection: of two on one connection, neither has the better one.

        Close it before this one; not both at once from two threads.

        Raises:
            ExternalError: The server does not serve that model, or a type is unknown here.
        """
        other = copy.copy(self)
        other._model, other._version, other._is_guest = model, "", True
        other._read()
        return other

    def _read(self) -> None:
        with self._explained("connecting to"):
            config = self._config()
        self._max_batch_size = config.max_batch_size
        self._inputs = tuple(tensor_of(item, config) for item in config.input)
        self._outputs = tuple(tensor_of(item, config) for item in config.output)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Specifications of the inputs, as the model sees them."""
        return tuple(tensor.spec for tensor in self._inputs)

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Specifications of the outputs, as the model gives them."""
        return tuple(tensor.spec for tensor in self._outputs)

    @property
    def max_batch_size(self) -> int:
        """The most rows in one request; 0 where the model is not batched."""
        return self._max_batch_size

    def run(self, arrays: Arrays) -> Arrays:
        """All outputs for these inputs, by name.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            ExternalError: The server does not answer, is too slow, or refuses the request.
        """
        self._check(arrays)
        if not self._max_batch_size:
            return self._infer(arrays)
        rows = len(next(iter(arrays.values())))
        if rows <= self._max_batch_size:
            return self._infer(arrays)
        starts = range(0, rows, self._max_batch_size)
        pieces = [
            self._infer({name: array[start : start + self._max_batch_size] for name, array in arrays.items()})
            for start in starts
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def close(self) -> None:
        """Close the connection, unless it is another runner's."""
        if self._is_guest:
            return
        try:
            self._leave_region()
        finally:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _config(self) -> ModelConfig:
        if self._protocol == "http":
            return signature_of(self._client.get_model_config(self._model, self._version))
        answer = self._client.get_model_config(
            self._model, self._version, as_json=True, client_timeout=self._timeout_s
        )
        return signature_of(answer["config"])

    def _infer(self, arrays: Arrays) -> Arrays:
        tensors = [tensor for tensor in self._inputs if tensor.spec.name in arrays]
        wires = [sent(arrays[tensor.spec.name], tensor) for tensor in tensors]
        with self._explained("calling"):
            result = self._call(tensors, wires)
        return {
            tensor.spec.name: received(result.as_numpy(tensor.spec.name), tensor) for tensor in self._outputs
        }

    def _call(self, tensors: Sequence[Tensor], wires: Sequence[Array]) -> Any:
        """The server's answer; large inputs go through shared memory for as long as the server takes it."""
        from tritonclient.utils import InferenceServerException

        places = self._places(tensors, wires)
        try:
            return self._send(tensors, wires, places)
        except InferenceServerException as error:
            if places is None or "shared memory" not in error.message():
                raise
            self._leave_region()
        return self._send(tensors, wires, None)

    def _places(self, tensors: Sequence[Tensor], wires: Sequence[Array]) -> Sequence[Place] | None:
        """Where the inputs stand in shared memory, or None where they go in the request."""
        from tritonclient.utils import InferenceServerException

        if self._region is None or not is_worth_sharing(tensors, wires):
            return None
        try:
            return self._region.place(wires)
        except (InferenceServerException, OSError) as error:
            if isinstance(error, TimeoutError) or _is_slow(str(error)):
                raise  # it would be as slow to take the inputs in the request
            self._leave_region()
            return None

    def _leave_region(self) -> None:
        region, self._region = self._region, None
        if region is not None:
            region.close()

    def _send(self, tensors: Sequence[Tensor], wires: Sequence[Array], places: Sequence[Place] | None) -> Any:
        requests = [
            self._module.InferInput(tensor.spec.name, wire.shape, tensor.datatype)
            for tensor, wire in zip(tensors, wires, strict=True)
        ]
        for index, request in enumerate(requests):
            if places is None:
                request.set_data_from_numpy(wires[index])
            else:
                request.set_shared_memory(places[index].name, places[index].size, places[index].offset)
        if self._protocol == "http":
            return self._client.infer(self._model, requests, model_version=self._version)
        return self._client.infer(
            self._model, requests, model_version=self._version, client_timeout=self._timeout_s
        )

    def _check(self, arrays: Arrays) -> None:
        needed = {tensor.spec.name for tensor in self._inputs if not tensor.is_optional}
        known = {tensor.spec.name for tensor in self._inputs}
        if not needed <= set(arrays) <= known:
            raise InputError(
                f"model {self._model!r}",
                detail=f"expected inputs {sorted(known)}, found {sorted(arrays)}",
                fix="Name the arrays after the model's inputs",
            )
        for tensor in self._inputs:
            if tensor.spec.name in arrays:
                check_array(tensor.spec, arrays[tensor.spec.name])

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        what = f"{doing} model {self._model!r} at {self._url} over {self._protocol}"
        try:
            yield
        except (TimeoutError, OSError) as error:
            raise _unreachable(what, str(error) or type(error).__name__, self._timeout_s) from error
        except HTTPException as error:
            if "closed" in str(error):
                raise _unreachable(what, str(error), self._timeout_s) from error
            raise _foreign(what, self._url, other="grpc") from error
        except InferenceServerException as error:
            status = error.status() or ""
            if self._protocol == "grpc" and _speaks_http(self._url, error.message()):
                raise _foreign(what, self._url, other="http") from error
            if "UNAVAILABLE" in status or "DEADLINE" in status or "Deadline" in error.message():
                raise _unreachable(what, f"{status} {error.message()}", self._timeout_s) from error
            raise ExternalError(
                what, detail=f"the server says: {error.message()}", fix="Look at the server's log"
            ) from error


def _unreachable(what: str, words: str, timeout_s: float) -> ExternalError:
    is_slow = _is_slow(words)
    detail = (
        f"no answer within {timeout_s:g} s ({words})" if is_slow else f"the server does not answer ({words})"
    )
    fix = "Give a longer timeout" if is_slow else "Start it: jettison serve REPOSITORY"
    return ExternalError(what, detail=detail, fix=fix)


def _foreign(what: str, url: str, *, other: Protocol) -> ExternalError:
    return ExternalError(
        what,
        detail=f"{url} answers in another protocol",
        fix=f"Give protocol={other!r}, or the other port: jettison serve names both",
    )


def _speaks_http(url: str, words: str) -> bool:
    """Whether a gRPC call failed since that is an HTTP port; Triton's own just hangs up on gRPC."""
    return "Failed parsing HTTP/2" in words or ("Socket closed" in words and is_server_ready(url))


def _is_slow(words: str) -> bool:
    return "timed out" in words or "imeout" in words or "eadline" in words


def _door(protocol: Protocol) -> ModuleType:
    try:
        if protocol == "http":
            import tritonclient.http as module
        else:
            import tritonclient.grpc as module
    except ImportError as error:
        raise MissingError(
            "talking to Triton", detail=str(error), fix=f"Run: {install_command('triton')}"
        ) from error
    found: ModuleType = module
    return found


def _connect(module: ModuleType, url: str, protocol: Protocol, timeout_s: float) -> Any:
    if protocol == "http":
        return module.InferenceServerClient(url, connection_timeout=timeout_s, network_timeout=timeout_s)
    return module.InferenceServerClient(url)


def _is_here(url: str) -> bool:
    """Whether the address is this machine's own by its looks."""
    host = url.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
