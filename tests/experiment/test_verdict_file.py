"""A verdict can be made again from its own file, and what was changed in it is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ab_cases import KEY, counted, rules, settings, tallies, totals
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from jettison.core.errors import InputError
from jettison.experiment.counter_file import sign
from jettison.experiment.counters import CounterSet
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import Verdict, decide
from jettison.experiment.verdict_file import audit, read_verdict, write_verdict

FULL = settings(
    latency={"limit_ms": 50, "quantile": 0.99, "proven_quantile": 0.9},
    slices=[{"name": "night", "margin": 0.05, "proof": True}],
)


def full_verdict():
    tally = Tally(better=60, same=2900, worse=55, within_limit=500, scores=((-667, 2),))
    counters = counted(tally, experiment=FULL.id, night=Tally(same=200))
    signed = tuple(sign(state, KEY) for state in counters.states)
    return decide(FULL, CounterSet(FULL.id, signed))


def changed(verdict, change):
    document = json.loads(verdict.model_dump_json())
    change(document)
    return Verdict.model_validate_json(json.dumps(document))


def test_a_verdict_is_read_as_it_was_written_and_agrees(tmp_path):
    verdict = full_verdict()
    write_verdict(tmp_path / "v.json", verdict)
    assert read_verdict(tmp_path / "v.json") == verdict
    found = audit(read_verdict(tmp_path / "v.json"), key=KEY)
    assert (found.agrees, found.differences, found.signed) == (True, (), 1)
    assert (found.decision, found.experiment) == ("promote", FULL.id)


@hypothesis_settings(max_examples=40)
@given(tallies)
def test_every_verdict_agrees_with_itself(tally):
    asked = rules(latency={"limit_ms": 50, "quantile": 0.99}, guard_errors=True)
    verdict = decide(asked, counted(tally))
    assert audit(Verdict.model_validate_json(verdict.model_dump_json())).agrees


def set_at(*path, value):
    def change(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            set_at("decision", value="rollback"),
            "decision: the file has 'rollback', its counters give 'promote'",
        ),
        (set_at("units", value=9), "units: the file has 9, its counters give 3017"),
        (set_at("e_values", 0, "log_e", value=3.0), "quality.log_e: the file has 3.0"),
        (set_at("e_values", 0, "e", value=21.0), "quality.e: the file has 21.0"),
        (set_at("e_values", 0, "threshold", value=2.0), "quality.threshold: the file has 2.0"),
        (set_at("e_values", 0, "reached", value=False), "quality.reached: the file has False"),
        (set_at("e_values", 0, "claim", value="all is well"), "quality.claim: the file has 'all is well'"),
        (set_at("e_values", value=[]), "e_values: the file has []"),
        (
            set_at("estimates", "difference", "low", value=-0.008),
            "estimates.difference.low: the file has -0.008",
        ),
        (set_at("estimates", "mcnemar", value=None), "estimates.mcnemar: the file has None"),
        (set_at("counters", "nodes", 0, "slices", "all", "worse", value=54), "units: the file has 3017"),
        (set_at("settings", "margin", value=0.02), "experiment of the settings: the file has"),
        (set_at("experiment", value="f" * 32), "experiment: the file has 'ffff"),
    ],
)
def test_a_changed_verdict_differs(change, words):
    found = audit(changed(full_verdict(), change))
    assert not found.agrees
    assert any(words in difference for difference in found.differences), found.differences


def test_counters_of_other_settings_give_no_decision():
    found = audit(changed(full_verdict(), set_at("settings", "alpha", value=0.2)))
    assert (found.decision, found.reasons) == (None, ())


def test_changed_counts_are_no_longer_signed():
    verdict = changed(full_verdict(), set_at("counters", "nodes", 0, "slices", "all", "worse", value=54))
    assert "counters of node 'node': not signed with the given key" in audit(verdict, key=KEY).differences


def test_without_a_signature_a_key_finds_a_difference():
    bare = decide(rules(), totals(60, 2900, 55))
    assert audit(bare).agrees
    assert audit(bare, key=KEY).differences == ("counters of node 'node': not signed with the given key",)


def test_an_audit_allows_for_the_last_digits_of_another_machine():
    verdict = full_verdict()
    first = verdict.e_values[0]
    near = first.model_copy(update={"log_e": first.log_e + 1e-7, "e": first.e * (1 + 1e-7)})
    assert audit(verdict.model_copy(update={"e_values": (near, *verdict.e_values[1:])})).agrees


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Give a file that `ab decide -o` wrote"),
        ("{}", "the key 'decision' is missing"),
    ],
)
def test_a_file_that_holds_no_verdict(tmp_path, content, words):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_verdict(tmp_path / "v.json")
    assert words in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file[.] Give the path of a verdict file"):
        read_verdict(tmp_path / "v.json")


def test_impossible_counters_in_a_verdict_are_told(tmp_path):
    document = json.loads(full_verdict().model_dump_json())
    document["counters"]["nodes"][0]["slices"]["all"]["worse"] = -1
    (tmp_path / "v.json").write_text(json.dumps(document))
    with pytest.raises(
        InputError, match="counters of the verdict, node 'node', slice 'all', worse: expected"
    ):
        read_verdict(tmp_path / "v.json")


def test_formulas_of_another_version_are_not_judged(tmp_path):
    write_verdict(tmp_path / "v.json", full_verdict().model_copy(update={"formulas": 99}))
    with pytest.raises(InputError, match=r"expected formulas 1, found 99[.] Audit it with the version"):
        read_verdict(tmp_path / "v.json")


def test_every_node_is_in_the_file():
    one, other = (replace(counted(Tally(same=5)).states[0], node=name) for name in ("a", "b"))
    verdict = decide(rules(), CounterSet("", (one, other)))
    assert [node["node"] for node in json.loads(verdict.model_dump_json())["counters"]["nodes"]] == ["a", "b"]
