"""The door to tritonclient: a model on a live Triton as a `Runner`, over HTTP or gRPC.

The HTTP client is no thread's but its maker's: make one runner for each thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, Literal

import numpy as np
from typing_extensions import Self

from jettison.core import dtypes
from jettison.core.errors import ExternalError, InputError, MissingError
from jettison.core.tensors import Arrays, TensorSpec
from jettison.triton.config import Input, ModelConfig, Output

Protocol = Literal["http", "grpc"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Tensor:
    """An input or output: its sizes in the model (`seen`) and in requests (`wire`), -1 where open."""

    spec: TensorSpec
    seen: tuple[int, ...]
    wire: tuple[int, ...]
    datatype: str
    is_optional: bool


class TritonRunner:
    """A model on a live Triton; runs longer batches than the server takes in pieces.

    Args:
        url: Host and port, without a scheme.
        model: The model's name.
        version: Its version; the server's choice if None.
        protocol: `http` or `grpc`.
        timeout_s: The longest that one request may take.

    Raises:
        MissingError: tritonclient is not installed.
        ExternalError: The server does not answer, or does not serve that model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        protocol: Protocol = "http",
        timeout_s: float = 30.0,
    ) -> None:
        self._module = _door(protocol)
        self._url, self._model, self._protocol = url, model, protocol
        self._version = "" if version is None else str(version)
        self._timeout_s = timeout_s
        self._client = _connect(self._module, url, protocol, timeout_s)
        try:
            with self._explained("connecting to"):
                config = self._config()
        except ExternalError:
            self.close()
            raise
        self._max_batch_size = config.max_batch_size
        self._inputs = tuple(_tensor(item, config) for item in config.input)
        self._outputs = tuple(_tensor(item, config) for item in config.output)

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
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _config(self) -> ModelConfig:
        if self._protocol == "http":
            return _signature(self._client.get_model_config(self._model, self._version))
        answer = self._client.get_model_config(
            self._model, self._version, as_json=True, client_timeout=self._timeout_s
        )
        return _signature(answer["config"])

    def _infer(self, arrays: Arrays) -> Arrays:
        requests = [
            self._request(tensor, arrays[tensor.spec.name])
            for tensor in self._inputs
            if tensor.spec.name in arrays
        ]
        with self._explained("calling"):
            if self._protocol == "http":
                result = self._client.infer(self._model, requests, model_version=self._version)
            else:
                result = self._client.infer(
                    self._model, requests, model_version=self._version, client_timeout=self._timeout_s
                )
        return {
            tensor.spec.name: _received(result.as_numpy(tensor.spec.name), tensor) for tensor in self._outputs
        }

    def _request(self, tensor: _Tensor, array: Array) -> Any:
        wire = _reshaped(array, tensor.seen, tensor.wire)
        request = self._module.InferInput(tensor.spec.name, wire.shape, tensor.datatype)
        request.set_data_from_numpy(wire)
        return request

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
                _check_array(tensor.spec, arrays[tensor.spec.name])

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        what = f"{doing} model {self._model!r} at {self._url} over {self._protocol}"
        try:
            yield
        except (TimeoutError, OSError) as error:
            raise _unreachable(what, str(error) or type(error).__name__, self._timeout_s) from error
        except InferenceServerException as error:
            status = error.status() or ""
            if "UNAVAILABLE" in status or "DEADLINE" in status or "Deadline" in error.message():
                raise _unreachable(what, f"{status} {error.message()}", self._timeout_s) from error
            raise ExternalError(
                what, detail=f"the server says: {error.message()}", fix="Look at the server's log"
            ) from error


def _unreachable(what: str, words: str, timeout_s: float) -> ExternalError:
    is_slow = "timed out" in words or "imeout" in words or "eadline" in words
    detail = (
        f"no answer within {timeout_s:g} s ({words})" if is_slow else f"the server does not answer ({words})"
    )
    fix = "Give a longer timeout" if is_slow else "Start it: jettison serve REPOSITORY"
    return ExternalError(what, detail=detail, fix=fix)


def _door(protocol: Protocol) -> ModuleType:
    try:
        if protocol == "http":
            import tritonclient.http as module
        else:
            import tritonclient.grpc as module
    except ImportError as error:
        raise MissingError(
            "talking to Triton", detail=str(error), fix="Run: pip install 'jettison[triton]'"
        ) from error
    found: ModuleType = module
    return found


def _connect(module: ModuleType, url: str, protocol: Protocol, timeout_s: float) -> Any:
    if protocol == "http":
        return module.InferenceServerClient(url, connection_timeout=timeout_s, network_timeout=timeout_s)
    return module.InferenceServerClient(url)


def _tensor(item: Input | Output, config: ModelConfig) -> _Tensor:
    element = dtypes.of_triton(item.data_type)
    if element is None or element.triton is None:
        raise ExternalError(
            f"tensor {item.name!r}",
            detail=f"the type {item.data_type} is unknown here",
            fix="Upgrade Jettison",
        )
    seen = config.model_shape(item)
    spec = TensorSpec(
        name=item.name, dtype=element, shape=tuple(None if size == -1 else size for size in seen)
    )
    is_optional = isinstance(item, Input) and item.optional
    return _Tensor(spec, seen, config.wire_shape(item), element.triton, is_optional)


def _signature(config: dict[str, Any]) -> ModelConfig:
    """The part of a server's configuration that a client needs; the rest is the server's business."""
    inputs = [
        {key: item[key] for key in Input.model_fields if item.get(key) is not None}
        for item in config["input"]
    ]
    outputs = [
        {key: item[key] for key in Output.model_fields if item.get(key) is not None}
        for item in config["output"]
    ]
    fields = {"name": config["name"], "max_batch_size": config.get("max_batch_size", 0)}
    return ModelConfig.model_validate({**fields, "input": inputs, "output": outputs})


def _check_array(spec: TensorSpec, array: Array) -> None:
    problem = spec.mismatch(array.shape)
    if problem is None and dtypes.of_numpy(array.dtype) is not spec.dtype:
        problem = f"expected {spec.dtype.name}, found {array.dtype}"
    if problem is not None:
        raise InputError(f"input {spec.name!r}", detail=problem, fix="Convert the array")


def _reshaped(array: Array, source: tuple[int, ...], target: tuple[int, ...]) -> Array:
    """The array from one side of a `reshape` to the other; open sizes go over in order."""
    if source == target:
        return array
    open_sizes = iter(size for pattern, size in zip(source, array.shape, strict=True) if pattern == -1)
    return array.reshape([next(open_sizes) if size == -1 else size for size in target])


def _received(array: Array | None, tensor: _Tensor) -> Array:
    if array is None:
        raise ExternalError(
            f"output {tensor.spec.name!r}",
            detail="the server's answer lacks it",
            fix="Look at the server's log",
        )
    if tensor.datatype == "BYTES":
        text = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
        array = np.array(text, dtype=np.object_).reshape(array.shape)
    return _reshaped(array, tensor.wire, tensor.seen)
