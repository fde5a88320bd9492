"""`ab status`, `label`, `wait`, `promote`, `rollback`: from the first look to the last, without a server."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from ab_world import KEY, SHADOW, SPLIT, count, differ, folder_of, repository

from jettison.cli.ab_promote import EndedDocument
from jettison.cli.ab_status import StatusDocument
from jettison.cli.ab_wait import CODES, WaitDocument
from jettison.experiment.labels import LabelReport
from jettison.experiment.registry import read_registry
from jettison.experiment.tally import Arms, Tally
from jettison.triton.router import BUCKETS, RouterState, read_state

GOOD = Tally(offered=3015, agree=2900, same=2900, disagree=115, better=60, worse=55)
BAD = Tally(offered=460, agree=400, same=400, disagree=60, better=2, worse=58)
SOME = Tally(offered=50, agree=50, same=50)
LOST = Tally(offered=500, agree=400, same=400, candidate_lost=100)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return repository(tmp_path)


@pytest.fixture
def night(jettison, place):
    assert jettison(*SHADOW).code == 0
    return folder_of()


def test_status_shows_verdict_counts_tests_and_the_next_command(jettison, night):
    count(night, whole=GOOD)
    answer = jettison("ab", "status", "night")
    assert answer.code == 0
    assert answer.out.startswith("night: promote, after 3,015 units\n")
    assert "fashion-fp32:1 against fashion-int8:1, mode shadow, since " in answer.out
    for words in ("2,900", "quality", "difference +0.00165", "\nnext: jettison ab promote night"):
        assert words in answer.out


def test_status_as_a_document(jettison, night):
    document = jettison("ab", "status", "night", "--json").document
    assert set(document) == set(StatusDocument.model_fields)
    assert (document["decision"], document["mode"], document["weight"]) == ("continue", "shadow", 0)
    assert "nothing is counted yet" in document["notes"][0]


def test_a_plot_holds_all_looks(jettison, night, tmp_path):
    for sequence, same in enumerate((100, 900, 2900), 1):
        count(night, sequence, whole=Tally(offered=same, agree=same, same=same))
        jettison("ab", "status", "night")
    answer = jettison("ab", "status", "night", "--plot", "night.svg")
    assert "e of quality over 3 looks: " in answer.out
    assert answer.out.endswith("plot: night.svg\n")
    root = ElementTree.parse(tmp_path / "night.svg").getroot()  # noqa: S314 (we wrote it)
    line = next(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(line.get("points").split()) == 3


def test_watch_goes_on_until_there_is_a_verdict(jettison, night):
    count(night, whole=BAD)
    answer = jettison("ab", "status", "night", "--watch")
    assert answer.code == 0
    assert "night: rollback, after 460 units" in answer.out


def test_status_refuses_to_watch_as_a_document(jettison, night):
    answer = jettison("ab", "status", "night", "--watch", "--json")
    assert (answer.code, answer.document["error"]["detail"]) == (
        2,
        "--watch goes on, and --json is one document",
    )


def test_status_survives_a_torn_state(jettison, night):
    night.state_path.write_text("{")
    document = jettison("ab", "status", "night", "--json").document
    assert (document["mode"], document["weight"]) == (None, None)
    assert document["notes"][0] == "the router's state cannot be read: it goes on as it was"


def test_labels_judge_the_disagreements(jettison, night, tmp_path):
    count(night, whole=Tally(offered=10, agree=8, same=8, disagree=2))
    differ(night, "r1", 3, 5)
    differ(night, "r2", 3, 5)
    (tmp_path / "labels.csv").write_text("request,label\nr1,5\nr9,1\n")
    answer = jettison("ab", "label", "labels.csv")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "2 labels: 1 taken, 0 known already",
        "1 of no kept disagreement (both answered alike, or not seen): r9",
        "judged by labels: 1 units (1 new): better 1, same 0, worse 0, between 0",
        "1 units on which they differ still wait for labels",
    ]
    document = jettison("ab", "status", "night", "--json").document["verdict"]
    assert (document["units"], document["pending"]) == (9, 1)


def test_where_there_is_a_key_unsigned_counters_are_no_evidence(jettison, place, tmp_path):
    (tmp_path / "fleet.key").write_bytes(KEY)
    assert jettison(*SHADOW, "--key", "fleet.key", "--node", "$NODE_NAME").code == 0
    night = folder_of()
    count(night, whole=Tally(offered=10, agree=9, same=9, disagree=1), key=KEY)
    differ(night, "r1", 3, 5)
    (tmp_path / "labels.csv").write_text("request,label\nr1,5\n")
    assert jettison("ab", "label", "labels.csv").code == 0
    status = jettison("ab", "status", "night", "--json")
    assert status.document["verdict"]["units"] == 10, "what labels judged is signed as well"
    files = sorted(night.counter_folder.glob("*.json"))
    assert [path.name.partition(".")[2] for path in files] == ["NODE_NAME.labels.json", "edge-1.json"]
    merged = jettison("ab", "merge", *files, "-o", "all.json", "--key", "fleet.key", "--json")
    assert merged.document["signed"] is True
    count(night, 2, whole=GOOD)
    answer = jettison("ab", "wait", "night", "--every", 0.1, "--exit-code", "--json")
    assert answer.code == 5
    assert answer.document["error"]["detail"] == ("expected a signature by the given key, found no signature")


def test_a_changed_label_ends_with_1_and_stands(jettison, night, tmp_path):
    differ(night, "r1", 3, 5)
    (tmp_path / "labels.csv").write_text("request,label\nr1,5\n")
    jettison("ab", "label", "labels.csv", "--name", "night")
    (tmp_path / "labels.csv").write_text("request,label\nr1,3\n")
    answer = jettison("ab", "label", "labels.csv", "--name", "night", "--json")
    assert answer.code == 1
    assert set(answer.document) == set(LabelReport.model_fields)
    assert (answer.document["changed"], answer.document["better"]) == (["r1"], 1)
    assert (
        "not taken: r1 has another label already, which stands" in jettison("ab", "label", "labels.csv").out
    )


def test_label_wants_a_name_where_none_runs(jettison, place, tmp_path):
    (tmp_path / "labels.csv").write_text("request,label\nr1,5\n")
    answer = jettison("ab", "label", "labels.csv", "--json")
    assert answer.code == 2
    assert answer.document["error"]["detail"] == "expected one that runs in experiments, found none"


@pytest.mark.parametrize(
    ("tally", "decision", "code"),
    [(GOOD, "promote", 0), (BAD, "rollback", 1), (LOST, "invalid", 3), (SOME, "continue", 4)],
)
def test_wait_ends_by_the_verdict(jettison, night, tally, decision, code):
    count(night, whole=tally)
    answer = jettison("ab", "wait", "night", "--timeout", 0, "--exit-code", "--json")
    assert set(answer.document) == set(WaitDocument.model_fields)
    assert (answer.code, answer.document["decision"]) == (code, decision)
    assert answer.document["timed_out"] == (decision == "continue")
    assert night.verdict_path.exists() == (decision != "continue")
    plain = jettison("ab", "wait", "night", "--timeout", 0)
    assert plain.code == (0 if decision == "promote" else 1)


def test_exhausted_has_a_code_of_its_own(jettison, place):
    assert jettison(*SHADOW, "--max-units", 40).code == 0
    count(folder_of(), whole=SOME)
    answer = jettison("ab", "wait", "night", "--exit-code")
    assert answer.code == CODES["exhausted"] == 2
    assert answer.out.startswith("exhausted, after 50 units")


def test_a_failure_of_wait_is_no_verdict(jettison, place):
    assert jettison("ab", "wait", "nobody", "--exit-code", "--json").code == 5
    assert jettison("ab", "wait", "nobody", "--json").code == 2


def test_wait_looks_again_while_a_file_of_another_node_arrives(jettison, night, monkeypatch):
    count(night, whole=GOOD)
    arriving = night.counter_folder / f"{night.settings().id}.edge-2.json"
    arriving.write_text('{"format": ')
    monkeypatch.setattr("time.sleep", lambda _: arriving.unlink(missing_ok=True))
    answer = jettison("ab", "wait", "night", "--exit-code")
    assert answer.code == 0
    assert "looking again: counters" in answer.err


def test_wait_gives_up_on_counters_that_stay_broken(jettison, night):
    (night.counter_folder / f"{night.settings().id}.edge-2.json").write_text('{"format": ')
    answer = jettison("ab", "wait", "night", "--every", 0.1, "--exit-code", "--json")
    assert answer.code == 5
    assert "not JSON" in answer.document["error"]["detail"]


def test_the_files_of_the_folder_are_what_decide_takes(jettison, night, tmp_path):
    count(night, whole=GOOD)
    differ(night, "r1", 3, 5)
    (tmp_path / "labels.csv").write_text("request,label\nr1,5\n")
    jettison("ab", "label", "labels.csv")
    files = sorted(night.counter_folder.glob(f"{night.settings().id}.*.json"))
    assert len(files) == 2
    counters = [word for path in files for word in ("--counters", path)]
    decided = jettison(
        "ab", "decide", "--settings", night.path / "settings.yaml", *counters, "--json"
    ).document
    assert decided == jettison("ab", "status", "night", "--json").document["verdict"]


def test_a_verdict_that_was_reached_stands(jettison, night):
    count(night, whole=GOOD)
    jettison("ab", "wait", "night")
    worse = Tally(offered=3215, agree=2900, same=2900, disagree=315, better=60, worse=255)
    count(night, 2, whole=worse)
    assert jettison("ab", "wait", "night", "--json").document["units"] == 3015
    assert jettison("ab", "audit", str(night.verdict_path)).code == 0


def test_promote_gives_all_requests_to_the_candidate(jettison, night):
    count(night, whole=GOOD)
    answer = jettison("ab", "promote", "night")
    assert answer.code == 0
    assert answer.out.startswith(
        "fashion-int8:1 answers all requests to night\nverdict: promote, after 3,015"
    )
    state = read_state(night.state_path)
    assert (state.mode, state.weight) == ("split", BUCKETS)
    assert state.experiment == f"promoted-{night.settings().id}", "what comes now is not the experiment's"
    (entry,) = read_registry(night.registry_path)
    assert (entry.ending, entry.ended) == ("promote", night.act().at)
    assert jettison("ab", "audit", str(night.verdict_path), "--json").document["decision"] == "promote"
    assert jettison("ab", "promote", "night").code == 0, "again in the same words is no error"


def test_promote_without_the_verdict_wants_a_reason_and_keeps_it(jettison, night):
    count(night, whole=SOME)
    refused = jettison("ab", "promote", "night", "--json")
    assert refused.code == 1
    assert set(refused.document) == set(EndedDocument.model_fields)
    assert (refused.document["act"], refused.document["decision"]) == (None, "continue")
    assert read_state(night.state_path).mode == "shadow"
    assert read_registry(night.registry_path)[0].ending is None
    assert jettison("ab", "promote", "night", "--because", "replay proved it").code == 0
    assert (night.act().because, night.act().decision) == ("replay proved it", "continue")
    assert jettison("ab", "wait", "night", "--json").document["decision"] == "promote"


@pytest.mark.parametrize(
    ("tally", "ending"), [(BAD, "rollback"), (LOST, "invalid"), (SOME, "withdrawn"), (GOOD, "withdrawn")]
)
def test_rollback_is_possible_at_any_time_and_the_registry_has_why(jettison, night, tally, ending):
    count(night, whole=tally)
    assert jettison("ab", "rollback", "night", "--because", "calls at night", "--json").code == 0
    assert read_state(night.state_path) == RouterState()
    assert read_registry(night.registry_path)[0].ending == ending
    refused = jettison("ab", "promote", "night", "--because", "after all", "--json")
    assert refused.code == 2
    assert "its candidate was taken out on" in refused.document["error"]["detail"]


def test_a_promotion_can_be_rolled_back_and_the_verdict_stays(jettison, night):
    count(night, whole=GOOD)
    jettison("ab", "promote", "night")
    assert jettison("ab", "rollback", "night", "--because", "smoke").code == 0
    assert read_state(night.state_path) == RouterState()
    assert (night.act().act, night.act().because, night.act().ending) == ("rollback", "smoke", "promote")
    assert read_registry(night.registry_path)[0].ending == "promote"


def test_rollback_turns_traffic_first_where_counters_are_broken(jettison, night):
    (night.counter_folder / f"{night.settings().id}.edge-1.json").write_text("{")
    answer = jettison("ab", "rollback", "night", "--json")
    assert answer.code == 2
    assert (
        "the baseline answers all again, and the experiment is not closed"
        in answer.document["error"]["detail"]
    )
    assert read_state(night.state_path) == RouterState()


def test_a_newer_version_is_not_what_was_judged(jettison, night, place):
    """A publish during the experiment: from then on the router asks another model."""
    count(night, whole=GOOD)
    source = place / "fashion-fp32" / "1" / "model.onnx"
    assert jettison("publish", source, "--repository", "models", "--name", "fashion-int8").code == 0
    waited = jettison("ab", "wait", "night", "--json")
    assert waited.code == 2
    assert "a newer version of fashion-int8 is served" in waited.document["error"]["detail"]
    promoted = jettison("ab", "promote", "night", "--json")
    assert promoted.code == 2
    assert "what would be promoted is not what was judged" in promoted.document["error"]["detail"]
    assert "at version 2, and began at 1" in promoted.document["error"]["detail"]
    assert jettison("ab", "rollback", "night").code == 0


def test_wait_walks_up_the_ramp_and_ends_where_it_is_done(jettison, place):
    assert jettison(*SPLIT, "--ramp-units", 100).code == 0
    folder, arms = folder_of(), {}
    for sequence, (weight, follows) in enumerate(((100, 1000), (1000, 5000), (5000, 5000)), 1):
        arms[weight] = Arms(baseline_units=99 - weight // 100, candidate_units=weight // 100)
        count(folder, 2 * sequence, whole=Tally(arms=tuple(arms.items())))
        assert jettison("ab", "wait", "night", "--timeout", 0, "--exit-code").code == 4
        assert read_state(folder.state_path).weight == weight, "99 units are not 100"
        arms[weight] = Arms(baseline_units=100 - weight // 100, candidate_units=weight // 100)
        count(folder, 2 * sequence + 1, whole=Tally(arms=tuple(arms.items())))
        answer = jettison("ab", "wait", "night", "--timeout", 0, "--exit-code", "--json")
        assert read_state(folder.state_path).weight == follows
    assert (answer.code, answer.document["timed_out"]) == (4, False)
    assert answer.document["notes"] == [
        "the ramp is done and nothing objects; split traffic alone proves no quality"
    ]


def test_status_of_a_split_shows_its_arms_and_what_it_cannot_decide(jettison, place):
    assert jettison(*SPLIT, "--ramp-units", 100).code == 0
    count(folder_of(), whole=Tally(arms=((100, Arms(60, 3, 1, 2)), (1000, Arms(900, 107, 0, 0)))))
    out = jettison("ab", "status", "night").out
    assert out.startswith("night: continue, after 1,070 units given out\n")
    for words in ("1.00%", "10.00%", "107", "candidate failed", "no verdict promotes it"):
        assert words in out
    assert "better" not in out.partition("candidate failed")[0]


def test_watching_a_split_ends_with_its_ramp(jettison, place):
    assert jettison(*SPLIT, "--ramp", "0.5", "--ramp-units", 100).code == 0
    count(folder_of(), whole=Tally(arms=((5000, Arms(50, 50)),)))
    assert "the ramp is done" in jettison("ab", "status", "night", "--watch").out


def test_a_ramp_stops_where_a_guard_objects(jettison, place):
    assert jettison(*SPLIT, "--ramp-units", 100).code == 0
    folder = folder_of()
    count(folder, whole=Tally(arms=((100, Arms(99, 1, 0, 50)),)))
    assert jettison("ab", "wait", "night", "--exit-code").code == 1
    assert read_state(folder.state_path).weight == 100


def test_unknown_experiments_name_the_near_ones(jettison, night):
    answer = jettison("ab", "status", "nigth", "--json")
    assert answer.code == 2
    assert answer.document["error"]["fix"] == "Known are night; --home names another place"
