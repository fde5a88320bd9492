"""The router backend without a server: a fake of the stub's module and of both models stands in."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
import router_fakes as fakes
from router_fakes import (
    Request,
    Response,
    World,
    counted,
    failing,
    held,
    router,
    times,
    units,
    write_state,
)


def test_off_answers_with_the_baseline_and_counts_nothing(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="off", experiment="")
    with router(module, world, tmp_path) as live:
        assert [answer.y for answer in live.ask(Request(1.0), Request(2.0))] == [[2.0], [4.0]]
    assert world.asked("new") == 0
    assert list((tmp_path / "counters").glob("*.json")) == []


def test_without_a_state_file_the_baseline_answers_and_the_log_says_so_once(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    with router(module, world, tmp_path) as live:
        assert live.ask(Request())[0].y == [2.0]
        live.ask(Request())
    assert len(world.log) == 1
    assert "No such file or directory" in world.log[0]
    assert world.metric("state_errors") == 1


def test_a_torn_state_changes_nothing_and_is_told_once(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="split", weight=10_000)
    with router(module, world, tmp_path) as live:
        assert live.ask(Request())[0].y == [9.0]
        (tmp_path / "state.json").write_text('{"format": "jettison-router/1", "mode": "spl')
        assert [live.ask(Request())[0].y for _ in range(3)] == [[9.0]] * 3
        (tmp_path / "state.json").unlink()
        assert live.ask(Request())[0].y == [9.0]
        write_state(tmp_path, mode="off", weight=0)
        assert live.ask(Request())[0].y == [2.0]
    assert len(world.log) == 2
    assert "Unterminated string" in world.log[0]
    assert "No such file" in world.log[1]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"mode": "mirror"}, "expected a mode of"),
        ({"mode": "split", "weight": 10_001}, "expected a weight from 0 to 10000, found 10001"),
        ({"mode": "split", "weight": True}, "expected a weight from 0 to 10000, found True"),
        ({"mode": "split", "experiment": "../x"}, "counts for an experiment, found '../x'"),
        ({"mode": "split", "salt": 3}, "expected texts"),
        ({"format": "jettison-router/2"}, "expected an object of the format 'jettison-router/1'"),
    ],
)
def test_an_impossible_state_is_told_with_its_reason(
    module: ModuleType, world: World, tmp_path: Path, state: dict[str, object], words: str
) -> None:
    write_state(tmp_path, **{"mode": "off", **state})
    with router(module, world, tmp_path) as live:
        assert live.ask(Request())[0].y == [2.0]
    assert words in world.log[0]


def test_what_a_client_sent_reaches_the_model(module: ModuleType, world: World, tmp_path: Path) -> None:
    request = Request(3.0, id="q", correlation=7, flag=1, parameter={"unit": "u", "n": 3, "f": True})
    with router(module, world, tmp_path) as live:
        live.ask(request)
    (call,) = world.calls
    assert call.pop("inputs")[0].as_numpy() == 3.0
    assert call == {
        "model_name": "old", "model_version": -1, "requested_output_names": ["y"], "request_id": "q",
        "correlation_id": 7, "flags": 1, "timeout": 7000, "trace": "the trace",
        "parameters": {"unit": "u", "n": 3, "f": True},
    }  # fmt: skip


def test_an_error_of_one_request_leaves_the_others_alone(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    def picky(call: dict[str, object]) -> Response:
        if call["request_id"] == "bad":
            raise ValueError("no such id")
        return times(2.0)(call)

    world.models["old"] = picky
    with router(module, world, tmp_path) as live:
        good, bad, last = live.ask(Request(id="a"), Request(id="bad"), Request(id="b"))
    assert (good.y, last.y) == ([2.0], [2.0])
    assert bad.error().message() == "ValueError: no such id"


def test_split_gives_each_unit_to_one_model_and_counts_both_arms(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="split", weight=3000)
    with router(module, world, tmp_path, latency_limit_ms=60_000) as live:
        first = [live.ask(request)[0].y[0] for request in units(300)]
        assert [live.ask(request)[0].y[0] for request in units(300)] == first
    candidates = first.count(9.0)
    # 300 units at 0.3: five standard deviations of 7.9 around 90.
    assert 50 < candidates < 130
    assert counted(tmp_path)["all"] == {
        "arms": {
            "3000": {
                "baseline_errors": 0, "baseline_units": 300 - candidates,
                "candidate_errors": 0, "candidate_units": candidates,
            }
        },
        "within_limit": 2 * candidates,
    }  # fmt: skip
    assert world.metric("requests_candidate") == 2 * candidates
    assert world.metric("unit_parameter") == 600


def test_a_failing_candidate_is_answered_by_the_baseline_and_counted(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = failing()
    write_state(tmp_path, mode="split", weight=9999)
    with router(module, world, tmp_path, breaker_failures=3, breaker_pause_s=60) as live:
        assert all(live.ask(request)[0].y == [2.0] for request in units(10))
    assert world.asked("new") == 3
    assert counted(tmp_path)["all"]["arms"]["9999"]["candidate_errors"] == 10
    assert world.metric("fallbacks") == 10
    assert world.metric("breaker_openings") == 1


def test_a_request_that_both_fail_does_not_open_the_breaker(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models.update(new=failing("bad shape"), old=failing("bad shape"))
    write_state(tmp_path, mode="split", weight=9999)
    with router(module, world, tmp_path, breaker_failures=2, breaker_pause_s=60) as live:
        answers = [live.ask(request)[0] for request in units(6)]
    assert {answer.error().message() for answer in answers} == {"bad shape"}
    assert world.asked("new") == 6


def test_a_hanging_candidate_costs_its_deadline_and_then_nothing(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    free = threading.Event()
    world.models["new"] = held(free)
    write_state(tmp_path, mode="split", weight=9999)
    with router(module, world, tmp_path, deadline_ms=30, breaker_failures=2, breaker_pause_s=60) as live:
        assert all(live.ask(request)[0].y == [2.0] for request in units(20))
        assert world.asked("new") == 2
        free.set()
    assert counted(tmp_path)["all"]["arms"]["9999"]["candidate_errors"] == 20


def test_candidates_that_hang_hold_no_more_threads_than_allowed(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    free = threading.Event()
    world.models["new"] = held(free)
    write_state(tmp_path, mode="split", weight=9999)
    settings = {"deadline_ms": 5, "breaker_failures": 1000, "candidate_in_flight": 2, "batch": 2}
    with router(module, world, tmp_path, **settings) as live:
        assert all(live.ask(request)[0].y == [2.0] for request in units(20))
        assert world.asked("new") == 4
        free.set()


def test_a_sequence_stays_where_its_first_request_went(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="split", weight=1)
    with router(module, world, tmp_path) as live:
        assert live.ask(Request(correlation=5, flag=1))[0].y == [2.0]
        write_state(tmp_path, mode="split", weight=10_000)
        assert live.ask(Request(correlation=5))[0].y == [2.0]
        assert live.ask(Request(correlation=6, flag=1))[0].y == [9.0]
        write_state(tmp_path, mode="split", weight=0)
        assert live.ask(Request(correlation=6))[0].y == [9.0]
        assert live.ask(Request(correlation=6, flag=2))[0].y == [9.0]
        assert live.ask(Request(correlation=7))[0].y == [2.0], "its first request was not seen here"


def test_with_several_instances_sequences_stay_with_the_baseline(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="split", weight=9999)
    with router(module, world, tmp_path, instances=2) as live:
        assert live.ask(Request(correlation=5, flag=1))[0].y == [2.0]
    assert counted(tmp_path) == {}, "what could not go to either is no split traffic"


def test_correlation_ids_that_are_only_names_are_split_like_others(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="split", weight=10_000)
    with router(module, world, tmp_path, instances=2, correlation_ids="key") as live:
        assert live.ask(Request(correlation=5))[0].y == [9.0]


def test_a_new_experiment_has_counters_of_its_own(module: ModuleType, world: World, tmp_path: Path) -> None:
    with router(module, world, tmp_path) as live:
        for name in ("e1", "e2"):
            write_state(tmp_path, mode="shadow", experiment=name)
            live.ask(*units(3))
            live.settle()
    assert counted(tmp_path, "e1")["all"]["offered"] == counted(tmp_path, "e2")["all"]["offered"] == 3


def test_kept_disagreements_stop_at_the_cap_and_the_counting_goes_on(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, disagreement_bytes=400) as live:
        for request in units(6):
            live.ask(request)
            live.settle()
    path = tmp_path / "counters" / "e1.edge-1.disagreements.jsonl"
    assert 0 < path.stat().st_size <= 400
    assert counted(tmp_path)["all"]["disagree"] == 6
    assert [line for line in world.log if "it has its 400 bytes" in line] == world.log[-1:]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "guess"}, "expected a task of"),
        ({"unknown": 1}, r"unknown parameters \['unknown'\]"),
        ({"candidate": "old"}, "baseline and candidate are both 'old'"),
        ({"node": "a/b"}, "node 'a/b': expected letters"),
        (
            {"node": "$NO_SUCH_VARIABLE"},
            "the server's environment has no variable 'NO_SUCH_VARIABLE': set it",
        ),
        ({"key_path": "/nowhere/fleet.key"}, "No such file or directory: '/nowhere/fleet.key'"),
        ({"deadline_ms": 0}, r"expected \['deadline_ms'\] above 0"),
        ({"task": "detection"}, "name output and score_output"),
        ({"output": "z"}, r"outputs \['z'\] are to be compared, the configuration has \['y'\]"),
    ],
)
def test_wrong_settings_are_refused_at_the_load(
    module: ModuleType, world: World, tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(fakes.Error, match=words), router(module, world, tmp_path, **settings):
        pass


def test_a_key_that_is_too_short_is_refused_at_the_load(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("short\n")
    words = "expected at least 16 bytes, found 5"
    with (
        pytest.raises(fakes.Error, match=words),
        router(module, world, tmp_path, key_path=tmp_path / "key"),
    ):
        pass


def test_the_node_s_name_comes_from_the_environment(
    module: ModuleType, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_NAME", "gate-7")
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, node="$NODE_NAME", unit_max_requests=1) as live:
        live.ask(*units(2))
    assert counted(tmp_path, node="gate-7")["all"]["offered"] == 2


def test_the_counter_file_is_written_each_second_while_requests_come(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, unit_max_requests=1) as live:
        live.ask(*units(3))
        live.settle()
        end = time.monotonic() + 20
        while not counted(tmp_path) and time.monotonic() < end:
            time.sleep(0.05)
        assert counted(tmp_path)["all"]["offered"] == 3
