"""Counters in Triton's metrics: the same state as in the node's file, to whoever reads both."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from router_fakes import World, router, times, units, write_state

from jettison.experiment.counter_file import read_counters
from jettison.experiment.counters import merge
from jettison.verdict_service.exposition import Family, exposition
from jettison.verdict_service.metric_counters import Shown, counters_shown


def scraped(world: World) -> Shown:
    """What a verdict service makes of the metrics."""
    families = [
        Family(name, "gauge", "", [(dict(labels), value)]) for (name, labels), value in world.gauges.items()
    ]
    return counters_shown(exposition(families), {"e1"}, what="it")


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_metrics_and_file_are_one_state(module: ModuleType, world: World, tmp_path: Path, mode: str) -> None:
    world.models["new"] = lambda call: times(9.0 if call["request_id"] == "q3" else 2.0)(call)
    write_state(tmp_path, mode=mode, weight=4000)
    with router(module, world, tmp_path, latency_limit_ms=60_000) as live:
        for request in units(20, slice="night"):
            live.ask(request)
            live.settle()
    live.model._tell()  # after the last write
    file = read_counters(tmp_path / "counters" / "e1.edge-1.json")
    found = scraped(world)
    assert found.states == file.states
    assert found.torn == ()
    assert len(merge(file, file).states) == 1


def test_counts_go_on_after_a_restart_and_an_update_under_way_is_seen(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    write_state(tmp_path, mode="shadow")
    for count in (5, 9):
        world.gauges.clear()  # the server begins with none
        with router(module, world, tmp_path, unit_max_requests=1) as live:
            for request in units(count):
                live.ask(request)
                live.settle()
        live.model._tell()
    (found,) = scraped(world).states
    assert dict(found.slices)["all"].agree == 14
    name = next(key for key in world.gauges if ("count", "agree") in key[1])
    world.gauges[name] += 1
    assert scraped(world) == ((), ("e1 of node 'edge-1'",))


def test_what_was_counted_before_is_shown_before_anything_is_counted(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    write_state(tmp_path, mode="shadow")
    with router(module, world, tmp_path, unit_max_requests=1) as live:
        live.ask(*units(5))
    world.gauges.clear()
    with router(module, world, tmp_path) as live:
        live.model._ledger.tick("e1")
        live.model._ledger._write("e1")
        live.model._tell()
        (found,) = scraped(world).states
    assert found == read_counters(tmp_path / "counters" / "e1.edge-1.json").states[0]
