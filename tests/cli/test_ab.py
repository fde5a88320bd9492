"""`jettison ab`: what it prints, how it ends, and the road from nodes' files to an audited verdict."""

from __future__ import annotations

import json

import pytest

from jettison.cli.ab import AB_VERBS
from jettison.cli.ab_merge import MergedDocument
from jettison.experiment.counter_file import sign, write_counters
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.planning import Plan
from jettison.experiment.settings_file import load_settings
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import Verdict
from jettison.experiment.verdict_file import Audit

KEY = b"0123456789abcdef0123456789abcdef"
PLANNED = ("--planned-disagreement", 0.04)
PROVEN = ("--better", 60, "--same", 2900, "--worse", 55, "--margin", 0.01, "--alpha", 0.05, *PLANNED)

SETTINGS = f"""
name: gate
baseline: {"a" * 64}
candidate: {"b" * 64}
data_source: shadow:gate-cameras
unit: clip
margin: 0.01
planned_disagreement: 0.04
max_units: 20000
"""


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """Three nodes' signed counters, the key and the settings, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ab.yaml").write_text(SETTINGS)
    (tmp_path / "fleet.key").write_bytes(KEY)
    experiment = load_settings(tmp_path / "ab.yaml").id
    for node in ("n1", "n2", "n3"):
        state = Counters(experiment, node).counting({WHOLE: Tally(better=20, same=1000, worse=18)})
        write_counters(tmp_path / f"{node}.json", CounterSet(experiment, (sign(state, KEY),)))
    return tmp_path


@pytest.mark.parametrize(
    ("counts", "decision", "code"),
    [
        ((60, 2900, 55), "promote", 0),
        ((48, 3000, 52), "continue", 0),
        ((5, 500, 35), "rollback", 1),
        ((0, 0, 0), "continue", 0),
    ],
)
def test_decide_from_three_counters(jettison, counts, decision, code):
    better, same, worse = counts
    given = ("--better", better, "--same", same, "--worse", worse)
    answer = jettison("ab", "decide", *given, "--margin", 0.01, "--alpha", 0.05, *PLANNED, "--json")
    assert (answer.code, answer.document["decision"]) == (code, decision)
    assert {entry["name"] for entry in answer.document["e_values"]} >= {"quality", "quality-against"}
    assert set(answer.document) == set(Verdict.model_fields)


def test_decide_in_words(jettison):
    answer = jettison("ab", "decide", *PROVEN)
    assert answer.out.startswith("promote, after 3015 units\n")
    assert "the candidate is worse by less than 0.01 on average: e = 50.65, where 20 is asked" in answer.out
    assert "difference +0.001658, at least -0.008647, at most +0.01202" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "missing --better, --same, --worse, --margin, --planned-disagreement"),
        (("--better", 5, "--same", 5), "missing --worse, --margin, --planned-disagreement"),
        ((*PROVEN, "--counters", "c.json"), "--counters would have no effect"),
        ((*PROVEN, "--key", "k"), "--key would have no effect"),
        ((*PROVEN, "--margin", 1), "margin: expected a number below 1, found 1.0"),
        ((*PROVEN, "--margin", "nan"), "margin: expected"),
        ((*PROVEN, "--alpha", 0), "alpha: expected a number above 0, found 0.0"),
        ((*PROVEN, "--better", -1), "'--better'"),
        ((*PROVEN, "--better", 2**53 + 1), "'--better'"),
        ((*PROVEN, "--better", 1.5), "'--better'"),
        (("--settings", "ab.yaml"), "expected counters beside --settings, found none"),
        (
            ("--settings", "ab.yaml", "--counters", "n1.json", "--margin", 0.1),
            "--margin would have no effect",
        ),
        (("--settings", "none.yaml", "--counters", "n1.json"), "there is no such file"),
        (("--settings", "ab.yaml", "--counters", "n9.json"), "there is no such file"),
    ],
)
def test_wrong_input_of_decide(jettison, fleet, arguments, words):
    answer = jettison("ab", "decide", *arguments, "--json")
    assert answer.code == 2
    assert words in answer.document["error"]["detail"]
    assert not (fleet / "v.json").exists()


def test_from_nodes_to_an_audited_verdict(jettison, fleet):
    merged = jettison(
        "ab", "merge", "n1.json", "n2.json", "n3.json", "-o", "all.json", "--key", "fleet.key", "--json"
    )
    assert merged.code == 0
    assert merged.document["path"] == str(fleet / "all.json")
    assert (merged.document["nodes"], merged.document["judged"]) == (3, 3114)
    decide = ("ab", "decide", "--settings", "ab.yaml", "--counters", "all.json")
    decided = jettison(*decide, "--key", "fleet.key", "-o", "v.json", "--json")
    assert (decided.code, decided.document["decision"]) == (0, "promote")
    audited = jettison("ab", "audit", "v.json", "--key", "fleet.key", "--json")
    assert (audited.code, audited.document["agrees"], audited.document["signed"]) == (0, True, 3)


def test_merging_again_and_in_any_order_writes_the_same_file(jettison, fleet):
    jettison("ab", "merge", "n1.json", "n2.json", "n3.json", "-o", "one.json")
    jettison("ab", "merge", "n3.json", "n1.json", "-o", "two.json")
    jettison("ab", "merge", "two.json", "n2.json", "one.json", "two.json", "-o", "two.json")
    assert (fleet / "one.json").read_bytes() == (fleet / "two.json").read_bytes()


def test_merge_says_what_it_did(jettison, fleet):
    answer = jettison("ab", "merge", "n1.json", "n2.json", "-o", "all.json")
    assert "merged 2 nodes of experiment" in answer.out
    assert "units judged: 2076" in answer.out


def test_merge_refuses_what_is_not_signed_by_the_key_and_writes_nothing(jettison, fleet):
    document = json.loads((fleet / "n2.json").read_text())
    document["nodes"][0]["slices"]["all"]["better"] = 500
    (fleet / "n2.json").write_text(json.dumps(document))
    answer = jettison("ab", "merge", "n1.json", "n2.json", "-o", "all.json", "--key", "fleet.key")
    assert answer.code == 2
    assert "counters of node 'n2': expected a signature by the given key" in answer.err
    assert not (fleet / "all.json").exists()


def test_merge_refuses_another_experiment(jettison, fleet):
    write_counters(fleet / "other.json", CounterSet("other"))
    write_counters(fleet / "other.json", CounterSet("other", (Counters("other", "x"),)))
    answer = jettison("ab", "merge", "n1.json", "other.json", "-o", "all.json")
    assert answer.code == 2
    assert "Merge and judge each experiment by itself" in answer.err


def test_settings_changed_after_the_counts_are_refused(jettison, fleet):
    (fleet / "ab.yaml").write_text(SETTINGS.replace("margin: 0.01", "margin: 0.05"))
    answer = jettison("ab", "decide", "--settings", "ab.yaml", "--counters", "n1.json")
    assert answer.code == 2
    assert (
        "Judge counters by the settings they were counted under; changed ones are a new experiment"
        in answer.err
    )


def test_an_exhausted_experiment_ends_as_no(jettison, fleet):
    (fleet / "ab.yaml").write_text(SETTINGS.replace("20000", "500"))
    experiment = load_settings(fleet / "ab.yaml").id
    state = Counters(experiment, "n").counting({WHOLE: Tally(better=20, same=470, worse=18)})
    write_counters(fleet / "n.json", CounterSet(experiment, (state,)))
    answer = jettison("ab", "decide", "--settings", "ab.yaml", "--counters", "n.json", "--json")
    assert (answer.code, answer.document["decision"]) == (1, "exhausted")


def test_an_audit_finds_what_was_changed(jettison, fleet):
    jettison("ab", "decide", *PROVEN, "-o", "v.json")
    assert jettison("ab", "audit", "v.json").out.startswith("agrees\n")
    text = (fleet / "v.json").read_text()
    (fleet / "v.json").write_text(text.replace('"worse": 55', '"worse": 75'))
    answer = jettison("ab", "audit", "v.json")
    assert answer.code == 1
    assert answer.out.startswith("differs\n")
    assert "quality.log_e: the file has 3.9" in answer.out
    assert "decision by its counters: continue" in answer.out


def test_an_audit_of_unsigned_counters_with_a_key_differs(jettison, fleet):
    jettison("ab", "decide", *PROVEN, "-o", "v.json")
    answer = jettison("ab", "audit", "v.json", "--key", "fleet.key", "--json")
    assert (answer.code, answer.document["agrees"]) == (1, False)
    assert answer.document["differences"] == [
        "counters of node 'command-line': not signed with the given key"
    ]


@pytest.mark.parametrize("name", ["none.json", "n1.json", "fleet.key"])
def test_an_audit_of_what_is_no_verdict(jettison, fleet, name):
    answer = jettison("ab", "audit", name, "--json")
    assert answer.code == 2
    assert answer.document["error"]["what"] == f"verdict {name}"


def test_plan_in_one_document(jettison):
    answer = jettison("ab", "plan", "--margin", 0.05, *PLANNED, "--rate", 100, "--json")
    assert answer.code == 0
    assert set(answer.document) == set(Plan.model_fields)
    assert answer.document["hours"] == answer.document["promoted"]["enough"] / 100


def test_plan_in_words(jettison):
    words = jettison("ab", "plan", "--margin", 0.01, *PLANNED, "--rate", 200).out
    assert "a test with one look at the end: 3,426 units" in words
    assert "where the two never differ: 462 units" in words
    assert "suggested max_units: 10,278" in words
    assert "90% are promoted within" in words


def test_plan_of_what_is_never_promoted_says_never(jettison):
    words = jettison("ab", "plan", "--margin", 0.05, *PLANNED, "--difference", -0.2).out
    assert "never" in words


@pytest.mark.parametrize("option", [("--margin", 0), ("--power", 1), ("--rate", -5), ("--harm", 2)])
def test_wrong_input_of_plan(jettison, option):
    answer = jettison("ab", "plan", "--margin", 0.05, *PLANNED, *option, "--json")
    assert answer.code == 2
    assert (
        f"{option[0][2:]}: expected a number" in answer.document["error"]["detail"] or "or less" in answer.err
    )


@pytest.mark.parametrize("verb", [verb.__name__ for verb in AB_VERBS])
def test_every_verb_of_ab_has_help_with_an_example(jettison, verb):
    answer = jettison("ab", verb, "--help")
    assert answer.code == 0
    assert f"jettison ab {verb}" in answer.out
    assert "Example" in answer.out


def test_ab_without_a_verb_is_told(jettison):
    answer = jettison("ab", "--json")
    assert (answer.code, answer.document["error"]["what"]) == (2, "jettison ab")


def test_help_names_ab(jettison):
    assert "Compare two models on live traffic, and judge them." in jettison("--help").out


def test_documents_have_the_fields_that_scripts_read():
    assert {"agrees", "differences", "decision", "reasons", "experiment", "signed"} == set(Audit.model_fields)
    assert {"experiment", "path", "nodes", "states", "judged", "signed"} == set(MergedDocument.model_fields)
