"""The router in a real tritonserver: the answers are right whatever becomes of candidate and state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import served_models as zoo
import tritonclient.grpc
import tritonclient.http
from served_models import CREATED

from jettison.core import dtypes
from jettison.core.tensors import TensorSpec
from jettison.experiment.counter_file import read_counters
from jettison.triton.interpreters import Interpreter
from jettison.triton.publish import Release, publish
from jettison.triton.router import RouterOptions, RouterState, publish_router, router_config, write_state
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer
from jettison.triton.serving import Serving, config_of
from jettison.verdict_service.sources import MetricsEndpoint

pytestmark = pytest.mark.server

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

    def counted(self, experiment: str) -> dict[str, Any]:
        path = self.work / "counters" / f"{experiment}.edge-1.json"
        if not path.is_file():
            return {}
        found: dict[str, Any] = json.loads(path.read_text())["nodes"][0]["slices"]["all"]
        return found

    def wait(self, experiment: str, name: str, least: int) -> dict[str, Any]:
        end = time.monotonic() + 30
        while self.counted(experiment).get(name, 0) < least and time.monotonic() < end:
            time.sleep(0.1)
        return self.counted(experiment)

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


@pytest.fixture(scope="session")
def python_models(interpreter: Interpreter) -> None:
    """Skips where a plain Python model, as `WHIMS` is, cannot read its tensors (docs/serving.md)."""
    if not interpreter.requirements[0].startswith("numpy==1."):
        pytest.skip("the server's Python has no numpy 1")


@pytest.fixture(scope="module")
def split(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(
        installation, tmp_path_factory.mktemp("split"), candidate="three", unit_max_requests=1000
    ) as live:
        yield live


@pytest.fixture(scope="module")
def whims(
    python_models: None, installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    with serving(installation, tmp_path_factory.mktemp("whims")) as live:
        yield live


def test_the_split_keeps_its_share_and_a_ramp_never_gives_a_unit_back(split: Live) -> None:
    """The share of 1,000 units is within four standard deviations; benchmarks/router.py takes 20,000."""
    had: set[str] = set()
    for weight in (0, 500, 2000, 2000, 6000, 10_000):
        split.set(mode="split", weight=weight, experiment=f"ramp-{weight}")
        found = {unit for unit in (f"u{i}" for i in range(1000)) if split.ask(unit) == 3.0}
        share = weight / 10_000
        assert abs(len(found) - 1000 * share) <= 4 * (1000 * share * (1 - share)) ** 0.5
        assert had <= found
        had = found


def test_forwarded_ids_and_parameters_are_taken_over_both_protocols(split: Live) -> None:
    split.set(mode="split", weight=5000, experiment="ids")
    http = Live(split.server, split.work, tritonclient.http)
    for unit in ("a", "b", "c", "d", "e", "f"):
        assert split.ask(unit) == split.ask(unit) == split.ask(request_id=unit)
        assert split.ask(request_id=unit) == split.ask(request_id=unit)
    x = tritonclient.http.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.ones((1, 3), np.float32))
    for unit in ("a", "b", "c"):
        found = http.client.infer("r", [x], parameters={"unit": unit}).as_numpy("y")[0, 0]
        assert found == split.ask(unit)


def test_a_sequence_stays_with_the_baseline_where_two_instances_share_it(split: Live) -> None:
    split.set(mode="split", weight=10_000, experiment="sequences")
    starts = [split.ask(sequence_id=9, sequence_start=True), split.ask(sequence_id=9)]
    assert [*starts, split.ask(sequence_id=9, sequence_end=True)] == [2.0, 2.0, 2.0]


def test_a_torn_or_missing_state_changes_nothing(split: Live) -> None:
    split.set(mode="split", weight=10_000, experiment="torn")
    assert split.ask("u") == 3.0
    path = split.work / "state.json"
    path.write_text('{"format": ')
    assert [split.ask("u") for _ in range(4)] == [3.0] * 4
    path.unlink()
    assert [split.ask("u") for _ in range(4)] == [3.0] * 4
    split.set(mode="off")
    assert [split.ask("u") for _ in range(4)] == [2.0] * 4


def test_shadows_are_compared_and_counted(whims: Live) -> None:
    """Each request has another number, so that a tensor that had been freed too early would differ."""
    whims.whim("")
    whims.set(mode="shadow", experiment="shadow")
    for _ in range(300):
        assert whims.ask() == 2.0
        time.sleep(0.002)
    dropped = whims.metric("dropped_shadows")
    found = whims.wait("shadow", "offered", 300 - dropped)
    assert found["offered"] == 300 - dropped
    assert found["agree"] == found["same"] == found["offered"]
    assert "disagree" not in found
    assert dropped < 250, "a busy machine drops shadows, though not all of them"


@pytest.mark.parametrize(
    ("whim", "mode"),
    [
        ("error", "split"),
        ("hang", "split"),
        ("shape", "split"),
        ("type", "split"),
        ("shape", "shadow"),
        ("error", "shadow"),
        ("hang", "shadow"),
    ],
)
def test_whatever_the_candidate_does_the_answers_are_right(whims: Live, whim: str, mode: str) -> None:
    whims.whim(whim)
    experiment = f"{mode}-{whim}"
    whims.set(mode=mode, weight=9999, experiment=experiment)
    begin = time.monotonic()
    assert [whims.ask() for _ in range(40)] == [2.0] * 40
    whims.whim("")
    assert time.monotonic() - begin < 20, "40 answers of a candidate that hangs would take 120 s"
    end = time.monotonic() + 30
    errors = 0
    while time.monotonic() < end and errors < (30 if mode == "split" else 1):
        time.sleep(0.2)
        errors = sum(arm["candidate_errors"] for arm in whims.counted(experiment).get("arms", {}).values())
    assert errors >= (30 if mode == "split" else 1)
    whims.set(mode="split", weight=9999, experiment="after")
    time.sleep(4)  # the calls that hang end, and so does the breaker's pause
    before = whims.metric("requests_candidate")
    assert [whims.ask() for _ in range(20)] == [2.0] * 20
    time.sleep(1.5)  # metrics are told each second
    assert whims.metric("requests_candidate") > before, "the candidate has traffic again"


def test_a_candidate_whose_stub_died_is_answered_for(
    python_models: None, installation: Installation, tmp_path: Path
) -> None:
    with serving(installation, tmp_path) as live:
        for mode in ("split", "shadow"):
            live.set(mode=mode, weight=9999, experiment=mode)
            live.whim("die")
            assert [live.ask() for _ in range(30)] == [2.0] * 30
        live.set(mode="off")
        assert live.ask() == 2.0


def test_an_unloaded_candidate_is_answered_for(
    python_models: None, installation: Installation, tmp_path: Path
) -> None:
    with serving(installation, tmp_path, control="explicit") as live:
        live.set(mode="split", weight=9999, experiment="e1")
        assert live.ask() == 2.0
        live.client.unload_model("new")
        time.sleep(1)
        assert [live.ask() for _ in range(20)] == [2.0] * 20
        live.client.load_model("new")
        time.sleep(1)
        assert [live.ask() for _ in range(20)] == [2.0] * 20
        time.sleep(1.5)
        assert live.metric("requests_candidate") >= 2


def test_a_killed_router_loses_only_what_was_not_written(
    python_models: None, installation: Installation, tmp_path: Path
) -> None:
    """The server is killed between two writes; after the restart the counts go on in the same epoch."""
    for run in (1, 2):
        with serving(installation, tmp_path) as live:
            live.set(mode="shadow", experiment="e1")
            for _ in range(50):
                live.ask()
                time.sleep(0.002)
            before = live.wait("e1", "offered", 50 * run)["offered"]
            assert before == 50 * run
            pid = live.server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)
        document = json.loads((tmp_path / "counters" / "e1.edge-1.json").read_text())
        assert len(document["nodes"]) == 1
        assert document["nodes"][0]["slices"]["all"]["offered"] == before


def test_metrics_show_the_counters_of_the_file_also_after_the_server_was_killed(
    installation: Installation, tmp_path: Path
) -> None:
    path, known = tmp_path / "counters" / "e1.edge-1.json", {"e1"}
    for run in (1, 2):
        with serving(installation, tmp_path, candidate="three") as live:
            endpoint = MetricsEndpoint(live.server.metrics_url, timeout_s=10)
            live.set(mode="split", weight=5000, experiment="e1")
            if run == 2:
                end = time.monotonic() + 20
                while not endpoint.look(known).states and time.monotonic() < end:
                    time.sleep(0.1)
                assert endpoint.look(known).states == read_counters(path).states, "before any request"
            looks = []
            for _ in range(60):
                live.ask()
                looks.append(endpoint.look(known))
            time.sleep(2.5)  # written and shown each second
            assert endpoint.look(known) == (read_counters(path).states, ())
            (arm,) = live.counted("e1")["arms"].values()
            assert arm["baseline_units"] + arm["candidate_units"] == 60 * run
            assert not [problem for found in looks for problem in found.problems]
            assert live.server.pid is not None
            os.kill(live.server.pid, signal.SIGKILL)
            time.sleep(0.5)


def test_a_server_that_stops_writes_its_last_counts(
    python_models: None, installation: Installation, tmp_path: Path
) -> None:
    with serving(installation, tmp_path, unit_max_requests=1000) as live:
        live.set(mode="shadow", experiment="e1")
        for i in range(40):
            live.ask(f"clip-{i % 10}")
            time.sleep(0.005)
    assert live.counted("e1") == {"offered": 10, "agree": 10, "same": 10}
