"""The router in a real tritonserver: the answers are right whatever becomes of candidate and state."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import served_models as zoo
import tritonclient.grpc
import tritonclient.http
from router_live import Live, serving
from served_models import CREATED

from jettison.experiment.counter_file import read_counters
from jettison.triton.router import RouterOptions, publish_router, router_config
from jettison.triton.runtime import Installation
from jettison.triton.server import TritonServer
from jettison.verdict_service.sources import MetricsEndpoint

pytestmark = pytest.mark.server


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
    with serving(installation, tmp_path_factory.mktemp("whims"), latency_limit_ms=250) as live:
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


def test_two_versions_of_one_model_are_asked_by_their_numbers(
    installation: Installation, tmp_path: Path
) -> None:
    """Version 3, the newest, is asked by nobody."""
    root = tmp_path / "repository"
    for factor in (2.0, 3.0):
        config = zoo.published(root, tmp_path, "m", zoo.affine(factor))
    options = RouterOptions(
        state_path=tmp_path / "state.json", counter_folder=tmp_path / "counters", node="$HOME_OF_TESTS",
        baseline_version=1, candidate_version=2, unit_max_requests=1,
    )  # fmt: skip
    publish_router(router_config("r", config, config, options=options), root, created=CREATED)
    zoo.published(root, tmp_path, "m", zoo.affine(5.0))
    environment = {**os.environ, "HOME_OF_TESTS": "gate-7"}
    with TritonServer(root, installation, environment=environment, log=tmp_path / "log") as server:
        live = Live(server, tmp_path, tritonclient.grpc)
        live.set(mode="split", weight=10_000, experiment="e1")
        assert live.ask("u") == 3.0
        live.set(mode="shadow", experiment="e1")
        assert [live.ask(f"u{i}") for i in range(5)] == [2.0] * 5
        counts = live.wait("e1", "disagree", 5, node="gate-7")  # a shadow under way dies with the server
    assert counts["disagree"] == counts["offered"] > 0


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
        live.set(mode="shadow", experiment="e2")
        live.client.unload_model("new")
        time.sleep(1)
        assert [live.ask() for _ in range(20)] == [2.0] * 20
        found = live.wait("e2", "offered", 20)
        assert found["candidate_lost"] == found["offered"] == 20 - live.metric("dropped_shadows")


def test_a_killed_router_loses_only_what_was_not_written(
    python_models: None, installation: Installation, tmp_path: Path
) -> None:
    """The server is killed between two writes; after the restart the counts go on in the same epoch.

    No shadow is dropped, however busy the machine is: there is room for all.
    """
    for run in (1, 2):
        with serving(installation, tmp_path, candidate_in_flight=64) as live:
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
