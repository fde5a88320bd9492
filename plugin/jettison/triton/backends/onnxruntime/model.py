"""Triton's `onnxruntime` backend for CPU, written against the Python backend.

It serves the same folders with the same `config.pbtxt` as the stock C++ backend, on a tritonserver that
carries none. It runs inside the server's stub: standard library, numpy, onnxruntime and
`triton_python_backend_utils` only, and nothing of Jettison.

Threads do not spin unless `session.intra_op.allow_spinning` says so: a spinning session takes the cores
from the server that feeds it (4 ms instead of 1.8 ms above the bare run for 600 KB, on two cores).
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from onnxruntime.capi import onnxruntime_pybind11_state as state

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

_FAILURES = (
    ValueError, TypeError, KeyError, RuntimeError, UnicodeDecodeError,
    state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
    state.NotImplemented, state.RuntimeException, state.EPFail,
)  # fmt: skip
_LEVELS = {
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""`optimization.graph.level`. Source: onnxruntime_backend, README, Model Config Options."""
_ONNX_TYPES = {
    "TYPE_FP16": "tensor(float16)", "TYPE_FP32": "tensor(float)", "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)", "TYPE_BOOL": "tensor(bool)",
    **{f"TYPE_INT{bits}": f"tensor(int{bits})" for bits in (8, 16, 32, 64)},
    **{f"TYPE_UINT{bits}": f"tensor(uint{bits})" for bits in (8, 16, 32, 64)},
}  # fmt: skip
_NUMPY_1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"


_BACKGROUND = "jettison_background"
"""The parameter by which a router says of a request that nobody waits for its answer."""
_STANDING_BACK = 19
"""The lowest priority of sched(7): 15 of 1024 shares where others compute, all where nobody does."""


class Background:
    """A thread of the lowest priority.

    A thread may lower its own priority and needs rights to raise it again, so that requests which somebody
    waits for never run in this one. What a session with several threads gives to its others is not lowered.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], list[Any]]) -> list[Any]:
        """What the work gives, once there was time for it."""
        self._pool = self._pool or ThreadPoolExecutor(1, "background", initializer=_stand_back)
        return self._pool.submit(work).result()


def _stand_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _STANDING_BACK)


def _may_wait(request: Any) -> bool:
    text = request.parameters()
    return len(text) > 2 and json.loads(text).get(_BACKGROUND) is True


@dataclass(frozen=True)
class Call:
    """One request: its place among the requests, its inputs, and the outputs that it asks for."""

    position: int
    feed: Arrays
    outputs: frozenset[str]

    @property
    def key(self) -> tuple[Any, ...]:
        """Requests of one key can run as one batch: same inputs, same shapes but for the batch axis."""
        return tuple((name, array.shape[1:]) for name, array in self.feed.items())

    @property
    def rows(self) -> int:
        """Its length on the batch axis."""
        return len(next(iter(self.feed.values())))

    @property
    def size_bytes(self) -> int:
        """The size of its inputs."""
        return sum(array.nbytes for array in self.feed.values())


_TRIALS = 5
"""Groups that run each way before either is preferred, and that its median is of."""
_ASKED_AGAIN = 200
"""One group in so many runs the slower way, since a model's neighbours on the machine change: where it takes
twice as long, that is half a percent of the work."""


@dataclass
class Pace:
    """Which is faster for groups of one size: one batch, or request by request.

    One thread finds no more work in a batch, and large inputs have to be copied into one: a convolution
    over large images loses 5 %, a product with large weights gains half. So it is measured, not assumed.
    """

    costs: tuple[deque[float], deque[float]] = field(
        default_factory=lambda: (deque(maxlen=_TRIALS), deque(maxlen=_TRIALS))
    )
    count: int = 0

    def is_batch_next(self) -> bool:
        """Whether the next group shall run as one batch."""
        self.count += 1
        alone, batch = self.costs
        if min(len(alone), len(batch)) < _TRIALS:
            return len(batch) <= len(alone)
        is_faster = statistics.median(batch) <= statistics.median(alone)
        return is_faster if self.count % _ASKED_AGAIN else not is_faster

    def add(self, cost: float, *, is_batch: bool) -> None:
        """Remember what a group took that way, in seconds for each byte of its inputs."""
        self.costs[is_batch].append(cost)


class TritonPythonModel:
    """One instance of a model: a session of its own, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; an error here is the reason that the server gives for not loading the model."""
        config = json.loads(args["model_config"])
        if args["model_instance_kind"] == "GPU":
            raise _refusal("this backend runs on CPU: set instance_group { kind: KIND_CPU }")
        self._batched = config["max_batch_size"] > 0
        self._held: list[Array] = []
        self._background = Background()
        self._paces: dict[int, Pace] = {}
        path = model_path(Path(args["model_repository"], args["model_version"]), config)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(config), providers=["CPUExecutionProvider"]
            )
        except _FAILURES as error:
            raise _refusal(f"ONNX Runtime {onnxruntime.__version__} cannot open {path}: {error}") from error
        self._inputs = {tensor["name"]: _numpy_type(tensor) for tensor in config["input"]}
        self._outputs = [tensor["name"] for tensor in config["output"]]
        accepted = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        _check("input", config["input"], accepted)
        _check("output", config["output"], self._session.get_outputs())
        self._scalars = {t.name for t in (*accepted, *self._session.get_outputs()) if not t.shape}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request; in the background where nobody waits for any of them."""
        self._held.clear()
        if all(_may_wait(request) for request in requests):
            return self._background.run(lambda: self._executed(requests))
        return self._executed(requests)

    def _executed(self, requests: Sequence[Any]) -> list[Any]:
        """Those of equal shapes run together, a failed group one by one."""
        responses: list[Any] = [None] * len(requests)
        calls: dict[Any, list[Call]] = {}
        for position, request in enumerate(requests):
            call = self._call(position, request)
            if isinstance(call, Call):
                calls.setdefault(call.key if self._batched else position, []).append(call)
            else:
                responses[position] = call
        for group in calls.values():
            for call, response in zip(group, self._answers(group), strict=True):
                responses[call.position] = response
        return responses

    def _call(self, position: int, request: Any) -> Any:
        """The request as a `Call`, or the response that says why its inputs cannot be read."""
        tensors = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs)
        try:
            feed = {
                name: _array(tensor, self._inputs[name]) for name, tensor in tensors if tensor is not None
            }
        except _FAILURES as error:
            return _failed(error)
        for name in self._scalars & feed.keys():
            feed[name] = feed[name].reshape(())
        return Call(position, feed, frozenset(request.requested_output_names()))

    def _answers(self, group: list[Call]) -> list[Any]:
        try:
            return [self._response(arrays) for arrays in self._run(group)]
        except _FAILURES as error:
            if len(group) == 1:
                return [_failed(error)]
        return [self._answers([call])[0] for call in group]

    def _run(self, group: list[Call]) -> list[Arrays]:
        if len(group) == 1:
            return [self._run_alone(group[0])]
        pace = self._paces.setdefault(len(group), Pace())
        begin, is_batch = time.perf_counter(), pace.is_batch_next()
        found = self._run_batch(group) if is_batch else [self._run_alone(call) for call in group]
        pace.add(
            (time.perf_counter() - begin) / max(1, sum(call.size_bytes for call in group)), is_batch=is_batch
        )
        return found

    def _run_alone(self, call: Call) -> Arrays:
        names = [name for name in self._outputs if name in call.outputs]
        return dict(zip(names, self._session.run(names, call.feed), strict=True))

    def _run_batch(self, group: list[Call]) -> list[Arrays]:
        names = [name for name in self._outputs if any(name in call.outputs for call in group)]
        feed = {name: np.concatenate([call.feed[name] for call in group]) for name in group[0].feed}
        found = dict(zip(names, self._session.run(names, feed), strict=True))
        ends = np.cumsum([call.rows for call in group])
        _check_rows(found, int(ends[-1]))
        return [
            {name: found[name][end - call.rows : end] for name in names if name in call.outputs}
            for call, end in zip(group, ends, strict=True)
        ]

    def _response(self, arrays: Arrays) -> Any:
        return pb_utils.InferenceResponse([self._tensor(name, array) for name, array in arrays.items()])

    def _tensor(self, name: str, array: Array) -> Any:
        if name in self._scalars:
            array = np.reshape(array, (1,))  # a configuration without batches calls a scalar dims: [1]
        if _NUMPY_1 or array.dtype == np.object_ or not array.size:
            return pb_utils.Tensor(name, array)
        # The stub is built against numpy 1 and takes arrays of numpy 2 for empty; DLPack carries them whole.
        # OrtValue's capsule ends in silence where numpy's own complains of the stub's capsule name. The
        # server copies the data after execute() returns, so it is held until the next call.
        self._held.append(array)
        return pb_utils.Tensor.from_dlpack(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))


def model_path(folder: Path, config: dict[str, Any]) -> Path:
    """The model's file: `default_model_filename`, else model.onnx; for a folder, the model.onnx in it."""
    path = folder / (config.get("default_model_filename") or "model.onnx")
    return path / "model.onnx" if path.is_dir() else path


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Session options from the configuration, by the names that the stock backend reads.

    Without `intra_op_thread_count` the cores are shared among the instances. Keys of ONNX Runtime itself
    (`session.*`) are passed on.
    """
    options = onnxruntime.SessionOptions()
    given = {key: entry["string_value"] for key, entry in config.get("parameters", {}).items()}
    options.intra_op_num_threads = int(given.get("intra_op_thread_count", 0)) or _fair_threads(config)
    options.inter_op_num_threads = int(given.get("inter_op_thread_count", 0))
    if given.get("execution_mode", "0") == "1":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = _is_true(given.get("enable_mem_arena", "1"))
    options.enable_mem_pattern = _is_true(given.get("enable_mem_pattern", "1"))
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _LEVELS.get(level, _LEVELS[0])
    entries = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0", **given}
    for key, value in entries.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _fair_threads(config: dict[str, Any]) -> int:
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
    return max(1, len(os.sched_getaffinity(0)) // instances)


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true")


def _refusal(message: str) -> Exception:
    error: Exception = pb_utils.TritonModelException(message)
    return error


def _check(side: str, configured: Sequence[dict[str, Any]], found: Sequence[Any]) -> None:
    types = {tensor.name: tensor.type for tensor in found}
    for tensor in configured:
        name, data_type = tensor["name"], tensor["data_type"]
        if data_type == "TYPE_STRING" and not _NUMPY_1:
            raise _refusal(
                f"{side} {name!r} is text, which needs numpy 1: run the server with Python 3.10 to 3.12"
            )
        if name not in types:
            raise _refusal(f"the configuration has {side} {name!r}, the model has {sorted(types)}")
        if _ONNX_TYPES.get(data_type) != types[name]:
            raise _refusal(
                f"{side} {name!r} is {data_type} in the configuration and {types[name]} in the model"
            )


def _check_rows(arrays: dict[str, Array], rows: int) -> None:
    for name, array in arrays.items():
        if not array.ndim or len(array) != rows:
            raise ValueError(
                f"output {name!r} has shape {array.shape} for a batch of {rows}: set max_batch_size to 0"
            )


def _failed(error: Exception) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))


def _numpy_type(tensor: dict[str, Any]) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(pb_utils.triton_string_to_numpy(tensor["data_type"]))
    return found


def _array(tensor: Any, expected: np.dtype[Any]) -> Array:
    array: Array
    if expected == np.object_:
        array = tensor.as_numpy()
        text = np.array([item.decode() for item in array.reshape(-1)], dtype=np.object_)
        array = text.reshape(array.shape)
        return array
    # Under numpy 2 the stub's as_numpy() repeats the first number in silence; DLPack is right under both,
    # but carries truth values as bytes.
    array = tensor.as_numpy() if _NUMPY_1 else np.from_dlpack(tensor).view(expected)
    return array
