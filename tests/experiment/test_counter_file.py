"""Counters as a file: equal when read again, whole or not there, signed, and refused where they cannot be."""

from __future__ import annotations

import json

import pytest
from ab_cases import KEY, counted, tallies
from hypothesis import given

from jettison.core import files
from jettison.core.errors import InputError
from jettison.experiment.counter_file import (
    counters_of,
    document_of,
    read_counters,
    read_key,
    sign,
    verify,
    verify_all,
    write_counters,
)
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.tally import Arms, Tally


@given(tallies)
def test_what_is_written_and_read_again_is_equal(tally):
    counters = counted(tally, experiment="x", night=tally)
    document = json.loads(json.dumps(document_of(counters)))
    assert counters_of(document, what="it") == counters


def test_a_file_is_read_as_it_was_written(tmp_path):
    counters = counted(Tally(same=5), experiment="x")
    write_counters(tmp_path / "c.json", counters)
    assert read_counters(tmp_path / "c.json") == counters


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    write_counters(path, counted(Tally(same=5)))

    def dies(_):
        raise OSError("power is gone")

    monkeypatch.setattr(files.os, "fsync", dies)
    with pytest.raises(OSError, match="power is gone"):
        write_counters(path, counted(Tally(same=6)))
    assert read_counters(path).tally().same == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.json"]


def signed_state():
    return sign(Counters("x", "a").counting({WHOLE: Tally(same=5)}), KEY)


def test_a_signature_survives_the_file_and_the_merge(tmp_path):
    write_counters(tmp_path / "c.json", CounterSet("x", (signed_state(),)))
    verify_all(read_counters(tmp_path / "c.json"), KEY)


@pytest.mark.parametrize(
    "other", [{"node": "b"}, {"epoch": 1}, {"sequence": 2}, {"slices": {"all": {"same": 6}}}]
)
def test_a_changed_state_does_not_verify(other):
    document = document_of(CounterSet("x", (signed_state(),)))
    document["nodes"][0].update(other)
    with pytest.raises(InputError, match="found a signature by another key, or of other counts"):
        verify_all(counters_of(document, what="it"), KEY)


def test_a_state_of_another_experiment_does_not_verify():
    document = document_of(CounterSet("x", (signed_state(),))) | {"experiment": "y"}
    with pytest.raises(InputError, match="expected a signature by the given key"):
        verify_all(counters_of(document, what="it"), KEY)


def test_another_key_and_no_signature_are_told_apart():
    with pytest.raises(InputError, match="found a signature by another key"):
        verify(signed_state(), b"another key, also long enough")
    with pytest.raises(InputError, match="found no signature"):
        verify(Counters("x", "a"), KEY)


def test_a_key_file(tmp_path):
    path = tmp_path / "key"
    with pytest.raises(InputError, match=r"there is no such file[.] Make one: openssl rand"):
        read_key(path)
    path.write_bytes(b"short\n")
    with pytest.raises(InputError, match="expected at least 16 bytes, found 5"):
        read_key(path)
    path.write_bytes(KEY + b"\n")
    assert read_key(path) == KEY


def node(**changed):
    return {"node": "a", "epoch": 0, "sequence": 1, "slices": {"all": {"same": 1}}} | changed


def tally(**counts):
    return node(slices={"all": counts})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([], "it: expected an object, found list"),
        (node(node="../a"), "it: expected a node's name, found '../a'"),
        (node(node=5), "it: expected a node's name, found 5"),
        (node(epoch=-1), "it, node 'a', epoch: expected a whole number from 0 to 9007199254740992, found -1"),
        (node(sequence=True), "sequence: expected a whole number from 0 to 9007199254740992, found True"),
        (node(sequence=2**53 + 1), "sequence: expected a whole number from 0 to 9007199254740992"),
        (node(signature=7), "expected a signature, found 7"),
        (node(more=7), "unknown key 'more'"),
        (node(slices={"night": {}}), "expected the slice 'all', found ['night']"),
        (node(slices={"all": {}, "a/b": {}}), "expected a slice's name, found 'a/b'"),
        (node(slices=None), "expected an object, found NoneType"),
        (tally(beter=1), "it, node 'a', slice 'all': unknown key 'beter'"),
        (tally(better=1.5), "better: expected a whole number from 0 to 9007199254740992, found 1.5"),
        (tally(offered=1, candidate_lost=2), "expected at most as many lost answers as units offered"),
        (tally(scores={"0": 1}), "scores: expected a bin from -1999 to 1999 other than 0, found '0'"),
        (tally(scores={"2000": 1}), "scores: expected a bin from -1999 to 1999 other than 0, found '2000'"),
        (tally(scores={"+5": 1}), "scores: expected a whole number, found '+5'"),
        (tally(scores={"5": -1}), "scores 5: expected a whole number from 0"),
        (tally(arms={"0": {}}), "arms: expected a weight from 1 to 9999, found '0'"),
        (tally(arms={"10000": {}}), "arms: expected a weight from 1 to 9999, found '10000'"),
        (tally(arms={"5": {"units": 3}}), "arms 5: unknown key 'units'"),
        (tally(arms={"5": {"candidate_units": None}}), "arms 5, candidate_units: expected a whole number"),
    ],
)
def test_impossible_counters_are_told(entry, words):
    document = {"format": "jettison-counters/1", "experiment": "x", "nodes": [entry]}
    with pytest.raises(InputError) as caught:
        counters_of(document, what="it")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected an object, found list"),
        (b"{}", "expected the format 'jettison-counters/1', found None"),
        (b'{"format": "jettison-counters/1"}', "expected an experiment and a list of nodes"),
        (
            b'{"format": "jettison-counters/1", "experiment": "x", "nodes": {}}',
            "expected an experiment and a list",
        ),
    ],
)
def test_a_file_that_holds_no_counters(tmp_path, content, words):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_counters(tmp_path / "c.json")
    assert words in str(caught.value)
    assert caught.value.what == f"counters {tmp_path / 'c.json'}"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file[.] Give the path of a counter file"):
        read_counters(tmp_path / "none.json")


def test_what_a_router_writes_is_what_an_auditor_reads():
    arms = ((2500, Arms(30, 10, 2, 1)),)
    counters = CounterSet(
        "x", (Counters("x", "a", 0, 1, ((WHOLE, Tally(same=9, scores=((-667, 1),), arms=arms)),)),)
    )
    assert document_of(counters)["nodes"] == [
        {
            "node": "a",
            "epoch": 0,
            "sequence": 1,
            "slices": {
                "all": {
                    "same": 9,
                    "scores": {"-667": 1},
                    "arms": {
                        "2500": {
                            "baseline_units": 30,
                            "candidate_units": 10,
                            "baseline_errors": 2,
                            "candidate_errors": 1,
                        }
                    },
                }
            },
        }
    ]
