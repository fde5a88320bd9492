"""The stub's module as the router backend sees it, two models that tests script, and one instance."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jettison.triton.runtime import OUR_BACKENDS

FOLDER = OUR_BACKENDS / "jettison_router"
MODULES = [path.stem for path in sorted(FOLDER.glob("*.py"))]
TYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64, "TYPE_STRING": np.object_}


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def shape(self) -> Sequence[int]:
        return list(self._array.shape)

    def as_numpy(self) -> np.ndarray:
        return self._array

    def is_cpu(self) -> bool:
        return True

    def __dlpack__(self, **_: object) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Error(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def message(self) -> str:
        return self._text


class Response:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: Error | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Error | None:
        return self._error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    @property
    def y(self) -> list[float]:
        return [float(value) for value in self._tensors[0].as_numpy().reshape(-1)]


@dataclass
class Request:
    """What a client sent."""

    x: float = 1.0
    id: str = ""
    correlation: int | str = 0
    flag: int = 0
    parameter: dict[str, object] = field(default_factory=dict)
    tensor: Tensor | None = None

    def inputs(self) -> list[Tensor]:
        return [self.tensor or Tensor("x", np.float32([[self.x]]))]

    def requested_output_names(self) -> set[str]:
        return {"y"}

    def request_id(self) -> str:
        return self.id

    def correlation_id(self) -> int | str:
        return self.correlation

    def flags(self) -> int:
        return self.flag

    def timeout(self) -> int:
        return 7000

    def parameters(self) -> str:
        return json.dumps(self.parameter) if self.parameter else ""

    def trace(self) -> str:
        return "the trace"


Model = Callable[[dict[str, Any]], Response]


def times(factor: float) -> Model:
    """y = factor x."""

    def run(call: dict[str, Any]) -> Response:
        return Response([Tensor("y", call["inputs"][0].as_numpy() * np.float32(factor))])

    return run


def failing(text: str = "out of memory") -> Model:
    return lambda _: Response(error=Error(text))


def slow(seconds: float, model: Model) -> Model:
    def run(call: dict[str, Any]) -> Response:
        time.sleep(seconds)
        return model(call)

    return run


def held(free: threading.Event) -> Model:
    """y = 2 x, once it is let go."""

    def run(call: dict[str, Any]) -> Response:
        free.wait(20)
        return times(2.0)(call)

    return run


class World:
    """The server around the backend: its models, what they were asked, its log and its metrics."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {"old": times(2.0), "new": times(2.0)}
        self.calls: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.metrics: Counter[str] = Counter()
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def asked(self, model: str) -> int:
        return sum(call["model_name"] == model for call in self.calls)

    def stub(self) -> ModuleType:
        world = self

        class InferenceRequest:
            def __init__(self, **arguments: Any) -> None:
                self.arguments = arguments

            def exec(self) -> Response:
                world.calls.append(self.arguments)
                return world.models[self.arguments["model_name"]](self.arguments)

        class MetricFamily:
            COUNTER, GAUGE = "counter", "gauge"

            def __init__(self, *, name: str, **_: str) -> None:
                self.name = name

            def Metric(self, *, labels: dict[str, str]) -> SimpleNamespace:
                key = self.name, tuple(labels.items())
                return SimpleNamespace(
                    increment=lambda n: world.metrics.update({self.name: n}),
                    set=lambda n: world.gauges.update({key: n}),
                )

        stub = ModuleType("triton_python_backend_utils")
        stub.__dict__.update(
            InferenceRequest=InferenceRequest, InferenceResponse=Response, MetricFamily=MetricFamily,
            TritonError=Error, TritonModelException=Error, Logger=SimpleNamespace(log_warn=self.log.append),
            triton_string_to_numpy=TYPES.__getitem__,
        )  # fmt: skip
        return stub

    def metric(self, name: str) -> int:
        return self.metrics[f"jettison_router_{name}_total"]


def load(monkeypatch: pytest.MonkeyPatch, world: World) -> Callable[[str], ModuleType]:
    """Imports the backend's modules as the stub does: from its folder on sys.path, nothing of Jettison."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", world.stub())
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


class Router:
    """A backend's instance under a loop that lives as long as the stub's does."""

    def __init__(self, model: Any, world: World) -> None:
        self.model, self.world = model, world
        self.loop = asyncio.new_event_loop()

    def ask(self, *requests: Request) -> list[Response]:
        found: list[Response] = self.loop.run_until_complete(self.model.execute(requests))
        return found

    def settle(self, seconds: float = 5.0) -> None:
        """Lets shadows end, and the ledger count."""

        async def wait() -> None:
            end = time.monotonic() + seconds
            while len(self.model._road._shadows) and time.monotonic() < end:
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())


def config(folder: Path, *, instances: int = 1, batch: int = 8, **settings: object) -> str:
    given = {
        "baseline": "old", "candidate": "new", "node": "edge-1",
        "state_path": folder / "state.json", "counter_folder": folder / "counters", **settings,
    }  # fmt: skip
    return json.dumps(
        {
            "max_batch_size": batch,
            "input": [{"name": "x", "data_type": "TYPE_FP32"}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
            "instance_group": [{"count": instances}],
            "parameters": {key: {"string_value": str(value)} for key, value in given.items()},
        }
    )


@contextmanager
def router(module: ModuleType, world: World, folder: Path, **settings: Any) -> Iterator[Router]:
    """One instance, initialized; finalized at the end, so that all is counted and written."""
    model = module.TritonPythonModel()
    model.initialize(
        {"model_config": config(folder, **settings), "model_name": "r", "model_instance_name": "r_0_0"}
    )
    found = Router(model, world)
    try:
        yield found
    finally:
        found.settle()
        model._tell()
        model.finalize()
        found.loop.close()


def write_state(folder: Path, **state: object) -> None:
    document = {"format": "jettison-router/1", "weight": 0, "experiment": "e1", "salt": "s", **state}
    stage = folder / "state.new"
    stage.write_text(json.dumps(document))
    stage.replace(folder / "state.json")


def counted(folder: Path, experiment: str = "e1", node: str = "edge-1") -> dict[str, Any]:
    """The slices in the node's file; empty where there is none."""
    path = folder / "counters" / f"{experiment}.{node}.json"
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())["nodes"][0]["slices"]
    return found


def units(count: int, **parameter: object) -> list[Request]:
    """So many requests, each a unit of its own."""
    return [Request(id=f"q{i}", parameter={"unit": f"u{i}", **parameter}) for i in range(count)]
