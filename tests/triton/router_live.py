"""A real tritonserver with a router, whose candidate does what a test tells it to."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import served_models as zoo
import tritonclient.grpc
from served_models import CREATED

from jettison.core import dtypes
from jettison.core.tensors import TensorSpec
from jettison.triton.publish import Release, publish
from jettison.triton.router import RouterOptions, RouterState, publish_router, router_config, write_state
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer
from jettison.triton.serving import Serving, config_of

WHIMS = """
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        whim = open(os.environ["WHIM"]).read() if os.path.exists(os.environ["WHIM"]) else ""
        if whim == "error":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("a whim"))
        if whim == "hang":
            time.sleep(3)
        if whim == "die":
            os.kill(os.getpid(), 9)
        y = x[:, :2] if whim == "shape" else (2 * x).astype(np.float64) if whim == "type" else 2 * x
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.ascontiguousarray(y))])
"""


class Live:
    """A server with the router `r` before `old` (2 x), `new` (2 x, but for its whims)."""

    def __init__(self, server: TritonServer, work: Path, module: ModuleType) -> None:
        self.server, self.work, self.module = server, work, module
        url = server.grpc_url if module is tritonclient.grpc else server.http_url
        self.client = module.InferenceServerClient(url)
        self.asked = 0

    def set(self, **state: Any) -> None:
        write_state(self.work / "state.json", RouterState.model_validate({"salt": "s", **state}))

    def whim(self, text: str) -> None:
        stage = self.work / "whim.new"
        stage.write_text(text)
        stage.replace(self.work / "whim")

    def ask(self, unit: str | None = None, value: float | None = None, **more: Any) -> float:
        """The factor that the answer has; the whole answer must have it."""
        self.asked += 1
        x = np.full((1, 3), self.asked if value is None else value, np.float32)
        tensor = self.module.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(x)
        parameters = {"unit": unit} if unit else None
        found = self.client.infer("r", [tensor], parameters=parameters, client_timeout=30, **more).as_numpy(
            "y"
        )
        assert found.shape == (1, 3)
        assert len(np.unique(found)) == 1
        return float(found[0, 0] / x[0, 0])

    def counted(self, experiment: str, *, folder: Path | None = None, node: str = "edge-1") -> dict[str, Any]:
        path = (folder or self.work / "counters") / f"{experiment}.{node}.json"
        if not path.is_file():
            return {}
        found: dict[str, Any] = json.loads(path.read_text())["nodes"][0]["slices"]["all"]
        return found

    def wait(self, experiment: str, name: str, least: int, **where: Any) -> dict[str, Any]:
        end = time.monotonic() + 30
        while self.counted(experiment, **where).get(name, 0) < least and time.monotonic() < end:
            time.sleep(0.1)
        return self.counted(experiment, **where)

    def metric(self, name: str) -> int:
        with urllib.request.urlopen(self.server.metrics_url) as answer:  # noqa: S310 (our own server)
            lines = answer.read().decode().splitlines()
        return sum(
            int(line.split()[-1]) for line in lines if line.startswith(f"jettison_router_{name}_total{{")
        )


@contextlib.contextmanager
def serving(
    installation: Installation,
    work: Path,
    *,
    candidate: str = "whims",
    control: str = "none",
    **given: object,
) -> Iterator[Live]:
    root = work / "repository"
    old = zoo.published(root, work, "old", zoo.affine(2.0))
    if candidate == "whims":
        element = dtypes.of_name("float32")
        assert element is not None
        specs = [TensorSpec(name=name, dtype=element, shape=("batch", 3)) for name in "xy"]
        new = config_of("new", specs[:1], specs[1:], serving=Serving(backend="python", filename="model.py"))
        (work / "model.py").write_text(WHIMS)
        publish(Release(new, {"model.py": work / "model.py"}, CREATED), root)
    else:
        new = zoo.published(root, work, "new", zoo.affine(3.0))
    options = RouterOptions.model_validate(
        {
            "state_path": work / "state.json", "counter_folder": work / "counters", "node": "edge-1",
            "breaker_pause_s": 0.5, "deadline_ms": 300, "unit_max_requests": 1, **given,
        }
    )  # fmt: skip
    publish_router(router_config("r", old, new, options=options), root, created=CREATED)
    write_state(work / "state.json", RouterState())
    environment = {**os.environ, "WHIM": str(work / "whim")}
    server_options = ServerOptions.model_validate(
        {
            "exit_timeout_s": 5,
            "control_mode": control,
            "load_models": ("old", "new", "r") if control == "explicit" else (),
        }
    )
    with TritonServer(
        root, installation, environment=environment, options=server_options, log=work / "log"
    ) as server:
        yield Live(server, work, tritonclient.grpc)
