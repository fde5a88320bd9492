"""What the desk keeps and tells: no order, repetition or death changes a count or an ending."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_cases import gate, leave, state

from jettison.core import files
from jettison.core.errors import InputError
from jettison.experiment.counters import WHOLE, Counters, counter_set
from jettison.experiment.tally import Arms, Tally
from jettison.experiment.verdict import decide
from jettison.experiment.verdict_file import audit
from jettison.verdict_service.desk import Desk
from jettison.verdict_service.kept import Shelf
from jettison.verdict_service.sources import CounterFolder

NODES = tuple(f"n{i}" for i in range(8))
PROMOTED = {"better": 60, "same": 2900, "worse": 55}


class Died(BaseException):
    """A process that was killed: nothing of it is caught."""


@pytest.fixture
def desk(tmp_path):
    shelf = Shelf(tmp_path / "verdicts")
    made = Desk(shelf, now=lambda: "2026-01-01T00:00:00+00:00")
    made.open(gate())
    yield made
    shelf.close()


@contextlib.contextmanager
def reopened(folder):
    """A service that begins over what another one left."""
    shelf = Shelf(folder)
    try:
        desk = Desk(shelf, now=lambda: "2026-01-02T00:00:00+00:00")
        desk.open(gate())
        yield desk
    finally:
        with contextlib.suppress(OSError):  # one that died has closed it
            shelf.close()


def standing(desk):
    return desk.standings[gate().id]


@st.composite
def histories(draw):
    """The states that eight nodes handed on over time, some beginning anew under another epoch."""
    states = []
    for node in NODES:
        for epoch in range(draw(st.integers(1, 2))):
            one = Counters(gate().id, node, epoch)
            for _ in range(draw(st.integers(1, 3))):
                better, same, worse = (draw(st.integers(0, most)) for most in (40, 400, 40))
                one = one.counting({WHOLE: Tally(better=better, same=same, worse=worse)})
                states.append(one)
    return states


@settings(max_examples=40)
@given(histories(), st.randoms(use_true_random=False))
def test_files_of_eight_nodes_in_any_order_some_twice_give_one_verdict(states, chance):
    """Told at once, and to a service that is stopped and begun again between any two of them."""
    whole = decide(gate(), counter_set(states, experiment=gate().id))
    shuffled = [*states, *chance.choices(states, k=8)]
    chance.shuffle(shuffled)
    endings = []
    with tempfile.TemporaryDirectory() as folder:
        while shuffled:
            with reopened(Path(folder)) as desk:
                for _ in range(chance.randint(1, 4)):
                    desk.take([shuffled.pop() for _ in range(min(len(shuffled), chance.randint(1, 6)))])
                    endings += [standing(desk).verdict] if standing(desk).kept.ending else []
        with reopened(Path(folder)) as desk:
            assert standing(desk).kept.counters == whole.counters
            assert standing(desk).verdict == (endings[0] if endings else whole)
            assert endings == endings[:1] * len(endings), "an ending stands"


def test_the_verdict_that_ended_it_stands_and_can_be_audited(desk):
    desk.take([state(**PROMOTED)])
    assert standing(desk).verdict.decision == "promote"
    assert standing(desk).kept.ended == "2026-01-01T00:00:00+00:00"
    desk.take([state("n2", worse=500)])
    assert standing(desk).verdict.decision == "promote"
    assert standing(desk).kept.counters.tally().worse == 555
    assert audit(standing(desk).verdict).agrees


def test_a_service_that_comes_back_tells_the_same(desk, tmp_path):
    desk.take([state(**PROMOTED)])
    before = standing(desk)
    shutil.copytree(tmp_path / "verdicts", tmp_path / "copy")
    with reopened(tmp_path / "copy") as again:
        assert standing(again) == before


def test_counters_that_contradict_each_other_end_it_as_invalid(desk):
    desk.take([state(same=5, sequence=1)])
    desk.take([state(same=3, sequence=2), state("n2", same=7)])
    found = standing(desk)
    assert found.verdict.decision == "invalid"
    assert found.verdict.reasons[0] == (
        "counters of node 'n1': states 1 and 2 of epoch 0 contradict each other: "
        "a count fell, or differs at the same number"
    )
    assert found.kept.counters.tally().same == 12, "what fits is taken"


def test_harm_is_told_also_where_counters_contradict_each_other(desk):
    arms = ((5000, Arms(1000, 1000, 0, 60)),)
    harm = Counters(gate().id, "n2", 0, 1, ((WHOLE, Tally(same=3, arms=arms)),))
    desk.take([state(same=5, sequence=1), state(same=4, sequence=2), harm])
    found = standing(desk).verdict
    assert found.decision == "rollback"
    assert "fails more often" in " ".join(found.reasons)
    assert "contradict each other" in " ".join(standing(desk).kept.contradictions)


def test_states_of_unknown_experiments_are_dropped(desk):
    desk.take([Counters("f" * 32, "n1", 0, 1, ((WHOLE, Tally(same=5)),))])
    assert standing(desk).kept.counters.states == ()


def test_a_full_disk_changes_nothing_that_is_told(desk, monkeypatch):
    desk.take([state(same=5)])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            desk.take([state(sequence=2, same=5000)])
        assert desk.write_error == "No space left on device"
        assert standing(desk).verdict.units == 5
        assert standing(desk).kept.counters.tally().same == 5
    desk.take([state(sequence=2, same=5000)])
    assert (desk.write_error, standing(desk).kept.counters.tally().same) == ("", 5000)


DOORS = (
    (os, "fdopen"),
    (os, "fsync"),
    (files.Path, "chmod"),
    (files.Path, "replace"),
    (files, "fsync_folder"),
)


@pytest.mark.parametrize("step", range(len(DOORS)))
def test_a_death_at_any_step_of_a_write_leaves_the_state_before_or_after(tmp_path, monkeypatch, step):
    """Killed for good: nothing is cleaned up, as with SIGKILL."""

    def dies(*_args, **_options):
        raise Died

    with reopened(tmp_path) as desk, monkeypatch.context() as patch:
        desk.take([state(same=5)])
        patch.setattr(files.Path, "unlink", lambda *_args, **_options: None)
        patch.setattr(*DOORS[step], dies)
        with pytest.raises(Died):
            desk.take([state(sequence=2, **PROMOTED)])
    is_after = DOORS[step][1] == "fsync_folder"
    with reopened(tmp_path) as again:
        assert standing(again).kept.counters.tally().same == (2900 if is_after else 5)
        assert standing(again).verdict.decision == ("promote" if is_after else "continue")
        assert list(tmp_path.glob(".*.state.json.*")) == [], "what was left is swept away"
        again.take([state(sequence=2, **PROMOTED)])
        assert standing(again).verdict.decision == "promote"


def test_two_services_on_one_state_are_refused(desk, tmp_path):
    with pytest.raises(InputError, match=r"found another verdict service.*Stop that one"):
        Shelf(tmp_path / "verdicts")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "other/1"}'])
def test_a_file_that_is_no_state_is_told_before_anything_begins(tmp_path, content):
    shelf = Shelf(tmp_path)
    (tmp_path / f"{gate().id}.state.json").write_text(content)
    desk = Desk(shelf, now=str)
    with pytest.raises(InputError, match="Restore it, or move it away: nodes that can be reached"):
        desk.open(gate())
    shelf.close()


def test_a_folder_is_read_again_only_where_it_changed(tmp_path, monkeypatch):
    leave(tmp_path, state(same=5), state("n2", same=6))
    (tmp_path / "plan.json").write_text('{"units": 5}')
    (tmp_path / "torn.json").write_text('{"format"')
    folder, known = CounterFolder(tmp_path), {gate().id}
    first = folder.look(known)
    assert [one.node for one in first.states] == ["n1", "n2"]
    assert len(first.problems) == 1
    assert "torn.json: not JSON" in first.problems[0]
    reads = []
    monkeypatch.setattr("jettison.verdict_service.sources.document_of", lambda *args: reads.append(args))
    assert folder.look(known) == first
    assert reads == []


def test_an_unsigned_file_is_a_problem_where_there_is_a_key(tmp_path):
    leave(tmp_path, state(same=5))
    found = CounterFolder(tmp_path, key=b"0" * 32).look({gate().id})
    assert found.states == ()
    assert "expected a signature by the given key, found no signature" in found.problems[0]


def test_a_folder_that_is_away_is_a_problem(tmp_path):
    found = CounterFolder(tmp_path / "mount").look({gate().id})
    assert found == ((), (f"{tmp_path / 'mount'}: there is no such folder",))


def test_a_desk_finds_by_id_and_by_a_name_that_one_has(desk):
    assert desk.find("gate") is desk.find(gate().id) is standing(desk)
    desk.open(gate().model_copy(update={"margin": 0.02}))
    assert desk.find("gate") is None
