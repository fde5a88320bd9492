"""Keys, units, the node's file and its ledger: nothing is counted twice, whatever the order or the deaths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import router_fakes as fakes
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.errors import InputError
from jettison.experiment.counter_file import is_signed, read_counters, verify
from jettison.experiment.counters import merge
from jettison.experiment.tally import BUCKETS, Arms, Tally

WEIGHTS = st.integers(0, BUCKETS)
KEY = b"0123456789abcdef"


@pytest.fixture(scope="module")
def load() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield fakes.load(patch, fakes.World())


@pytest.fixture(scope="module")
def keys(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("router_keys")


@pytest.fixture(scope="module")
def lines(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("router_units")


@pytest.fixture(scope="module")
def files(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("router_files")


@pytest.fixture(scope="module")
def ledgers(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("router_ledger")


def settings(load: Callable[[str], ModuleType], folder: Path, **given: object) -> Any:
    made = load("router_settings").Settings("old", "new", "", str(folder), "edge-1")
    return load("dataclasses").replace(made, **given)


@given(key=st.text(), salt=st.text(), weights=st.lists(WEIGHTS, min_size=2))
def test_a_growing_weight_never_gives_a_unit_back(
    keys: ModuleType, key: str, salt: str, weights: list[int]
) -> None:
    bucket = keys.bucket_of(key, salt)
    has_candidate = [bucket < weight for weight in sorted(weights)]
    assert has_candidate == sorted(has_candidate)


@pytest.mark.parametrize("weight", [1, 500, 5000, 9999])
def test_the_split_keeps_its_share(keys: ModuleType, weight: int) -> None:
    found = sum(keys.bucket_of(f"clip-{i}", "salt") < weight for i in range(100_000))
    share = weight / BUCKETS
    assert abs(found - 100_000 * share) <= 5 * (100_000 * share * (1 - share)) ** 0.5 + 1


def test_another_salt_deals_the_units_anew(keys: ModuleType) -> None:
    both = sum(
        keys.bucket_of(str(i), "a") < 5000 and keys.bucket_of(str(i), "b") < 5000 for i in range(10_000)
    )
    assert abs(both - 2500) < 5 * 43.3  # five standard deviations of independent halves


def test_the_sample_does_not_depend_on_the_split(keys: ModuleType) -> None:
    units = [str(i) for i in range(10_000)]
    found = sum(keys.is_sampled(u, "s", 0.5) and keys.bucket_of(u, "s") < 5000 for u in units)
    assert abs(found - 2500) < 5 * 43.3


def test_the_key_is_the_first_that_there_is(keys: ModuleType) -> None:
    def found(
        parameters: dict[str, object], correlation: int | str = 0, request: str = ""
    ) -> tuple[str, str]:
        key = keys.key_of(parameters, header="x-clip", correlation_id=correlation, request_id=request)
        return key.text, key.source

    assert found({"unit": "u", "x-clip": "h"}, 7, "q") == ("u", "parameter")
    assert found({"x-clip": "h"}, 7, "q") == ("h", "header")
    assert found({}, 7, "q") == ("7", "correlation_id")
    assert found({}, "cam", "q") == ("cam", "correlation_id")
    assert found({"unit": ""}, 0, "q") == ("q", "request_id")
    assert found({})[1] == "random"
    assert found({})[0] != found({})[0]


def test_an_idle_sequence_is_forgotten_and_then_stays_with_the_baseline(keys: ModuleType) -> None:
    now = [0.0]
    sequences = keys.Sequences(clock=lambda: now[0])
    assert sequences.is_candidates(1, keys.START, hashed=True)
    now[0] = keys.SEQUENCE_IDLE_S + 1
    sequences.is_candidates(2, keys.START, hashed=True)
    assert not sequences.is_candidates(1, 0, hashed=True)


Given = tuple[str, int, str]
EVENTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 4), st.sampled_from(["", "night", "rain"])), max_size=30
)


def counted(lines: ModuleType, events: list[Given], *, closes: Callable[[], bool]) -> dict[str, Any]:
    units = lines.Units(idle_s=10.0, max_requests=1000, most_open=100)
    for i, (unit, outcome, part) in enumerate(events):
        units.add(lines.Event(unit, outcome, slice=part, candidate_errors=int(outcome == 3)), float(i))
        if closes():
            units.close_idle(float(i))
    units.close_all()
    return {name: (counts.plain, counts.arms) for name, counts in units.counts.items()}


@given(events=EVENTS, seed=st.integers(0, 1000))
def test_the_order_of_requests_does_not_change_the_counts(
    lines: ModuleType, events: list[Given], seed: int
) -> None:
    """As long as units are not closed between: at one event a second, and idle after ten."""
    shuffled = random.Random(seed).sample(events, len(events))
    expected = counted(lines, events, closes=lambda: False)
    assert counted(lines, shuffled, closes=lambda: False) == expected


@given(events=EVENTS, seed=st.integers(0, 1000))
def test_when_units_are_closed_does_not_change_the_counts(
    lines: ModuleType, events: list[Given], seed: int
) -> None:
    """Each unit's requests come in a row, so none is idle before its end; others interleave by closing."""
    ordered, chance = sorted(events), random.Random(seed)
    expected = counted(lines, ordered, closes=lambda: False)
    assert counted(lines, ordered, closes=lambda: chance.random() < 0.5) == expected


@given(events=EVENTS)
def test_every_unit_is_counted_once(lines: ModuleType, events: list[Given]) -> None:
    whole = counted(lines, events, closes=lambda: False).get("all", ({}, {}))[0]
    compared = {unit for unit, outcome, _ in events if outcome != lines.ANSWERED}
    assert whole.get("offered", 0) == len(compared)
    known = ("agree", "disagree", "baseline_lost", "candidate_lost")
    assert sum(whole.get(name, 0) for name in known) == len(compared)
    assert whole.get("same", 0) == whole.get("agree", 0)


def test_a_late_request_of_a_complete_unit_is_late_and_not_counted_again(lines: ModuleType) -> None:
    units = lines.Units(idle_s=10.0, max_requests=2, most_open=100)
    for _ in range(3):
        units.add(lines.Event("a", lines.AGREE, within_limit=1), 0.0)
    assert units.counts["all"].plain == {"within_limit": 3, "offered": 1, "agree": 1, "same": 1}
    assert units.late == 1


def test_a_unit_closes_when_it_is_idle_and_the_oldest_when_there_are_too_many(lines: ModuleType) -> None:
    units = lines.Units(idle_s=10.0, max_requests=100, most_open=2)
    for i, name in enumerate("abc"):
        units.add(lines.Event(name, lines.AGREE), float(i))
    assert len(units) == 2
    assert units.counts["all"].plain["offered"] == 1
    units.close_idle(11.5)
    assert len(units) == 1
    units.close_idle(12.0)
    assert len(units) == 0


def test_where_every_request_is_a_unit_nothing_stays_open_or_remembered(lines: ModuleType) -> None:
    units = lines.Units(idle_s=10.0, max_requests=1, most_open=2)
    for _ in range(3):
        units.add(lines.Event("a", lines.DISAGREE), 0.0)
    assert (len(units), units.remembered(), units.late) == (0, [], 0)
    assert units.counts["all"].plain == {"offered": 3, "disagree": 3}


def test_names_of_slices_are_bounded(lines: ModuleType) -> None:
    units = lines.Units(idle_s=10.0, max_requests=1, most_open=2)
    for i in range(500):
        units.add(lines.Event("a", lines.AGREE, slice=f"s{i}"), 0.0)
    assert len(units.counts) == lines.MOST_SLICES + 1
    assert units.counts["all"].plain["agree"] == 500


def test_the_file_is_what_the_experiment_reads(lines: ModuleType, files: ModuleType, tmp_path: Path) -> None:
    units = lines.Units(idle_s=10.0, max_requests=1, most_open=2)
    units.add(lines.Event("a", lines.AGREE, slice="night", within_limit=1), 0.0)
    units.add(lines.Event("b", lines.CANDIDATE_LOST, candidate_errors=1), 0.0)
    units.add(lines.Event("c", lines.BASELINE_LOST, baseline_errors=1), 0.0)
    units.add(lines.Event("d", lines.ANSWERED, weight=300, is_candidates=True, over_limit=1), 0.0)
    units.add(lines.Event("e", lines.ANSWERED, weight=300), 0.0)
    file = files.CounterFile(str(tmp_path), "e1", "edge-1", clock=lambda: 1000.0)
    state = files.NodeState(1000, 0, units.counts)
    file.write(state, [], list)
    found = read_counters(file.path)
    assert (found.experiment, found.states[0].node, found.states[0].epoch) == ("e1", "edge-1", 1000)
    assert found.states[0].sequence == 1
    assert found.tally() == Tally(
        offered=3, agree=1, same=1, candidate_lost=1, baseline_lost=1, within_limit=1, over_limit=1,
        arms=((300, Arms(1, 1, 0, 0)), (5000, Arms(0, 0, 1, 1))),
    )  # fmt: skip
    assert found.tally("night") == Tally(offered=1, agree=1, same=1, within_limit=1)
    assert file.document(file.load(), 1) == json.loads(file.path.read_text())


@given(seen=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "night", "rain"]), WEIGHTS)))
def test_what_the_router_signs_is_what_an_auditor_verifies(
    lines: ModuleType, files: ModuleType, tmp_path_factory: pytest.TempPathFactory, seen: list[Any]
) -> None:
    units = lines.Units(idle_s=10.0, max_requests=1, most_open=2)
    for i, (outcome, part, weight) in enumerate(seen):
        units.add(
            lines.Event(f"u{i}", outcome, weight, slice=part, candidate_errors=i % 2, over_limit=1), 0.0
        )
    folder = tmp_path_factory.mktemp("signed")
    file = files.CounterFile(str(folder), "e1", "edge-1", key=KEY)
    file.write(files.NodeState(1000, 0, units.counts), [], list)
    (state,) = read_counters(file.path).states
    verify(state, KEY)
    assert not is_signed(state, b"another key of 16")


@pytest.mark.parametrize("change", ["count", "signature", "unsigned"])
def test_a_file_that_the_key_did_not_sign_is_not_gone_on_with(
    lines: ModuleType, files: ModuleType, tmp_path: Path, change: str
) -> None:
    """Who may write the file must not get our signature under counts of theirs."""
    units = lines.Units(idle_s=10.0, max_requests=1, most_open=2)
    units.add(lines.Event("a", lines.AGREE), 0.0)
    file = files.CounterFile(str(tmp_path), "e1", "edge-1", key=KEY, clock=lambda: 2000.0)
    file.write(files.NodeState(1000, 0, units.counts), [], list)
    assert file.load().epoch == 1000, "its own it goes on with"
    document = json.loads(file.path.read_text())
    (node,) = document["nodes"]
    if change == "count":
        node["slices"]["all"]["agree"] = 900
    elif change == "signature":
        node["signature"] = "é" + node["signature"][1:]
    else:
        del node["signature"]
    file.path.write_text(json.dumps(document))
    state = file.load()
    assert (state.epoch, state.counts) == (2000, {})
    assert [path.name for path in tmp_path.iterdir()] == ["e1.edge-1.torn-2000"]


def test_a_ledger_signs_every_state_that_it_writes(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.key"
    path.write_bytes(KEY + b"\n")
    ledger = ledgers.Ledger(settings(load, tmp_path, key_path=str(path)), pytest.fail)
    ledger.add("e1", lines.Event("a", lines.AGREE))
    ledger.close()
    (state,) = read_counters(tmp_path / "e1.edge-1.json").states
    verify(state, KEY)
    with pytest.raises(InputError, match="found a signature by another key"):
        verify(state, b"another key of 16")


def test_states_of_one_node_grow_and_merge(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    now, states = [0.0], []
    ledger = ledgers.Ledger(settings(load, tmp_path, unit_max_requests=1), pytest.fail, clock=lambda: now[0])
    for i in range(4):
        ledger.add("e1", lines.Event(f"u{i}", lines.AGREE))
        now[0] += 1.0
        ledger.tick("e1")
        states.append(read_counters(tmp_path / "e1.edge-1.json"))
    ledger.close()
    assert [state.tally().offered for state in states] == [1, 2, 3, 4]
    assert merge(*reversed(states)).tally().offered == 4


def test_a_restart_goes_on_with_what_was_written(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    for i in range(3):
        ledger = ledgers.Ledger(settings(load, tmp_path), pytest.fail)
        ledger.add("e1", lines.Event(f"u{i}", lines.AGREE))
        ledger.add("e1", lines.Event("the same clip", lines.DISAGREE))
        ledger.close()
    found = read_counters(tmp_path / "e1.edge-1.json")
    assert found.tally() == Tally(offered=4, agree=3, same=3, disagree=1)
    assert len(found.states) == 1


def test_a_death_between_the_two_files_loses_units_and_doubles_none(
    load: Any,
    lines: ModuleType,
    ledgers: ModuleType,
    files: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def die(*_: object) -> None:
        raise OSError("no space left on device")

    ledger = ledgers.Ledger(settings(load, tmp_path, unit_max_requests=2), told.append)
    ledger.add("e1", lines.Event("a", lines.AGREE))
    ledger.add("e1", lines.Event("a", lines.AGREE))
    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", die)
        ledger.close()
    assert told == ["counters of e1: no space left on device; counting on, and trying again"]
    ledger = ledgers.Ledger(settings(load, tmp_path, unit_max_requests=2), pytest.fail)
    ledger.add("e1", lines.Event("a", lines.AGREE))
    ledger.add("e1", lines.Event("b", lines.AGREE))
    ledger.close()
    assert read_counters(tmp_path / "e1.edge-1.json").tally().offered == 1


@pytest.mark.parametrize(
    "torn", [b"", b'{"experiment": "e1", "nodes": [{"epoch": 99999999999, "no', b"[]", b"\xff"]
)
def test_a_torn_file_begins_a_later_epoch(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "e1.edge-1.json"
    path.write_bytes(torn)
    ledger = ledgers.Ledger(settings(load, tmp_path), pytest.fail)
    ledger.add("e1", lines.Event("a", lines.AGREE))
    ledger.close()
    (state,) = read_counters(path).states
    assert state.epoch >= (100_000_000_000 if b"epoch" in torn else 1)
    assert state.sequence == 1
    assert [left.read_bytes() for left in tmp_path.glob("*.torn-*")] == [torn]


def test_a_deleted_file_begins_another_epoch_so_that_merged_counts_stay(
    load: Any, lines: ModuleType, files: ModuleType, tmp_path: Path
) -> None:
    sets = []
    for second in (1000.0, 2000.0):
        file = files.CounterFile(str(tmp_path), "e1", "edge-1", clock=lambda now=second: now)
        state = file.load()
        state.counts["all"] = lines.Counts({"offered": 5, "agree": 5})
        file.write(state, [], list)
        sets.append(read_counters(file.path))
        file.path.unlink()
    assert merge(*sets).tally().agree == 10


def test_instances_share_one_ledger_and_another_takes_over(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    """Both see requests of one clip: it is one unit. A folder with a long path has room for the socket."""
    folder = tmp_path / ("long" * 30)
    both = [ledgers.Ledger(settings(load, folder), pytest.fail) for _ in range(2)]
    for ledger in both:
        ledger.tick("e1")
    assert [ledger.is_writer for ledger in both] == [True, False]
    for ledger, outcome in zip(both, (lines.AGREE, lines.DISAGREE), strict=True):
        ledger.add("e1", lines.Event("clip", outcome))
    both[1].tick("e1")
    both[0].close()
    assert read_counters(folder / "e1.edge-1.json").tally() == Tally(offered=1, disagree=1)
    both[1].add("e1", lines.Event("clip", lines.AGREE))
    both[1].add("e1", lines.Event("other", lines.AGREE))
    both[1].tick("e1")
    assert both[1].is_writer
    both[1].close()
    assert read_counters(folder / "e1.edge-1.json").tally() == Tally(offered=2, agree=1, same=1, disagree=1)


def test_what_cannot_be_handed_on_waits(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    writer, other = (ledgers.Ledger(settings(load, tmp_path), pytest.fail) for _ in range(2))
    writer.tick("e1")
    (tmp_path / "edge-1.socket").unlink()
    for i in range(500):
        other.add("e1", lines.Event(f"u{i}", lines.AGREE))
    other.tick("e1")
    writer.close()
    other.tick("e1")
    other.close()
    assert read_counters(tmp_path / "e1.edge-1.json").tally().agree == 500


def test_a_datagram_that_is_none_is_told_and_passed_over(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    import socket

    told: list[str] = []
    ledger = ledgers.Ledger(settings(load, tmp_path), told.append)
    ledger.tick("e1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door, ledgers._short(tmp_path) as short:
        door.sendto(json.dumps([["e1", [1]]]).encode(), f"{short}/edge-1.socket")
    ledger.tick("e1")
    ledger.close()
    assert told[0].startswith("a datagram that is no event: ")


def test_the_note_of_complete_units_stays_small(files: ModuleType, tmp_path: Path) -> None:
    file = files.CounterFile(str(tmp_path), "e1", "edge-1")
    state, kept = files.NodeState(1), [f"k{i}" for i in range(10)]
    for _ in range(30):
        file.write(state, [f"u{i}" for i in range(100)], lambda: kept)
    assert len(file.closed_path.read_text().splitlines()) < 2100
    assert file.closed(3)[-1].startswith(("u", "k"))
    with file.closed_path.open("a") as torn:
        torn.write("ha")
    assert "ha" not in file.closed(10_000)


def test_units_that_differ_are_noted_after_the_counts_with_their_slices(
    load: Any, lines: ModuleType, ledgers: ModuleType, tmp_path: Path
) -> None:
    """A unit that agrees, and one whose answer is lost, need no label."""
    ledger = ledgers.Ledger(settings(load, tmp_path), pytest.fail)
    for event in (
        lines.Event("a", lines.DISAGREE, slice="night"),
        lines.Event("a", lines.AGREE, slice="rain"),
        lines.Event("b", lines.AGREE),
        lines.Event("c", lines.DISAGREE),
        lines.Event("c", lines.CANDIDATE_LOST),
    ):
        ledger.add("e1", event)
    ledger.tick("e1")
    path = tmp_path / "e1.edge-1.differing.jsonl"
    assert not path.exists(), "open units are not counted yet"
    ledger.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [["a", ["night", "rain"]]]
    assert read_counters(tmp_path / "e1.edge-1.json").tally().disagree == 1


def test_the_note_of_differing_units_is_bounded(files: ModuleType, tmp_path: Path) -> None:
    file = files.CounterFile(str(tmp_path), "e1", "edge-1")
    for i in range(20):
        file.note_differing([(f"u{i:02}", [])], most_bytes=55)
    assert file.differing_path.read_text() == "".join(f'["u{i:02}",[]]\n' for i in range(5))
