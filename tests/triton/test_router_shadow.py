"""Shadows of the router backend, without a server: what is asked afterwards, compared, dropped and lost."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import router_fakes as fakes
from router_fakes import (
    Request,
    Response,
    Tensor,
    World,
    counted,
    failing,
    held,
    router,
    slow,
    times,
    units,
    write_state,
)


def test_shadow_answers_from_the_baseline_and_compares_afterwards(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    def differs_at_three(call: dict[str, object]) -> Response:
        return times(9.0 if call["request_id"] == "q3" else 2.0)(call)

    world.models["new"] = differs_at_three
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, latency_limit_ms=60_000) as live:
        for request in units(5):
            assert live.ask(request)[0].y == [2.0]
            live.settle()
    found = counted(tmp_path)["all"]
    assert found == {"offered": 5, "agree": 4, "same": 4, "disagree": 1, "within_limit": 5}
    (line,) = (tmp_path / "counters" / "e1.edge-1.disagreements.jsonl").read_text().splitlines()
    assert '"request":"q3","unit":"u3","unit_from":"parameter"' in line
    assert '"baseline":{"y":[2.0]},"candidate":{"y":[9.0]}' in line
    shadow_calls = [call for call in world.calls if call["model_name"] == "new"]
    assert all("trace" not in call for call in shadow_calls), "a trace ends with the answer"


def test_a_slow_shadow_does_not_delay_the_answer(module: ModuleType, world: World, tmp_path: Path) -> None:
    free = threading.Event()
    world.models["new"] = held(free)
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, deadline_ms=60_000) as live:
        assert live.ask(units(1)[0])[0].y == [2.0]
        assert not free.is_set(), "the answer came while the candidate was still at work"
        free.set()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (failing(), "candidate_lost"),
        (lambda _: Response([Tensor("y", np.float32([[2.0, 2.0]]))]), "candidate_lost"),
        (lambda _: Response([Tensor("y", np.float64([[2.0]]))]), "candidate_lost"),
        (slow(0.2, times(2.0)), "candidate_lost"),
    ],
    ids=["an error", "another shape", "another type", "too late"],
)
def test_a_shadow_without_a_comparable_answer_is_an_error_of_the_candidate(
    module: ModuleType, world: World, tmp_path: Path, model: fakes.Model, words: str
) -> None:
    world.models["new"] = model
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, deadline_ms=50, latency_limit_ms=40) as live:
        assert live.ask(units(1)[0])[0].y == [2.0]
    found = counted(tmp_path)["all"]
    assert (found["offered"], found[words]) == (1, 1)
    assert found["arms"]["5000"] == {
        "baseline_errors": 0, "baseline_units": 0, "candidate_errors": 1, "candidate_units": 0
    }  # fmt: skip


def test_a_lost_answer_of_the_baseline_is_counted_as_its(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["old"] = failing("no memory")
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path) as live:
        assert live.ask(units(1)[0])[0].error().message() == "no memory"
    found = counted(tmp_path)["all"]
    assert (found["offered"], found["baseline_lost"], found["arms"]["5000"]["baseline_errors"]) == (1, 1, 1)


def test_shadows_beyond_the_bounds_are_dropped_and_counted(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    free = threading.Event()
    world.models["new"] = held(free)
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, candidate_in_flight=2, deadline_ms=60_000) as live:
        assert [answer.y for answer in live.ask(*units(5))] == [[2.0]] * 5
        free.set()
    assert counted(tmp_path)["all"]["offered"] == 2
    assert world.metric("dropped_shadows") == 3


def test_a_shadow_with_too_many_bytes_is_dropped(module: ModuleType, world: World, tmp_path: Path) -> None:
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, shadow_bytes=7) as live:  # 4 bytes in and 4 bytes out
        live.ask(units(1)[0])
    assert world.asked("new") == 0
    assert world.metric("dropped_shadows") == 1


def test_a_unit_agrees_only_if_all_its_requests_do(module: ModuleType, world: World, tmp_path: Path) -> None:
    world.models["new"] = lambda call: times(9.0 if call["request_id"] == "odd" else 2.0)(call)
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path) as live:
        for unit, ids in (("a", ["q", "odd", "q"]), ("b", ["q", "q"])):
            for name in ids:
                live.ask(Request(id=name, parameter={"unit": unit, "slice": f"s-{unit}"}))
                live.settle()
    found = counted(tmp_path)
    assert found["all"] == {"offered": 2, "disagree": 1, "agree": 1, "same": 1}
    assert found["s-a"] == {"offered": 1, "disagree": 1}
    assert found["s-b"] == {"offered": 1, "agree": 1, "same": 1}


def test_only_the_sampled_units_are_compared(module: ModuleType, world: World, tmp_path: Path) -> None:
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, sample_share=0.25, latency_limit_ms=60_000) as live:
        for request in units(200):
            live.ask(request)
            live.settle()
    found = counted(tmp_path)["all"]
    # 200 units at 0.25: five standard deviations of 6.1 around 50.
    assert 19 < found["offered"] < 81
    assert found["agree"] == found["offered"]
    assert found["within_limit"] == 200


@pytest.mark.parametrize(("limit_ms", "is_background"), [(0, True), (50, False)])
def test_the_candidate_stands_back_where_its_speed_is_not_asked_for(
    module: ModuleType, world: World, tmp_path: Path, limit_ms: float, is_background: bool
) -> None:
    """It may take ten times as long then: here 100 ms of 30 allowed ones."""
    world.models["new"] = slow(0.1, times(2.0))
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, latency_limit_ms=limit_ms, deadline_ms=30) as live:
        live.ask(units(1)[0])
        live.settle()
    calls = {call["model_name"]: call["parameters"] for call in world.calls}
    assert calls["old"] == {"unit": "u0"}
    assert calls["new"].get("jettison_background", False) is is_background
    found = counted(tmp_path)["all"]
    assert found.get("agree", 0) == int(is_background)
    assert found.get("candidate_lost", 0) == int(not is_background)
