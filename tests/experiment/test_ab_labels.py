"""Labels: each unit counts once, whatever is given twice, late, changed or torn."""

from __future__ import annotations

import json

import pytest
from ab_cases import settings
from hypothesis import given
from hypothesis import strategies as st
from test_folder import SETUP

from jettison.core.errors import InputError
from jettison.experiment.folder import make_folder
from jettison.experiment.label_file import Label, read_labels
from jettison.experiment.labels import read_book, take_labels
from jettison.experiment.tally import Tally

REQUESTS = settings(unit="request", requests_are_independent=True)


class Kept:
    """An experiment with what a router keeps, written as the router writes it."""

    def __init__(self, home, asked):
        self.folder = make_folder(home, asked, SETUP)
        self.id = asked.id

    def path(self, kind):
        return self.folder.counter_folder / f"{self.id}.edge-1.{kind}.jsonl"

    def differ(self, request, baseline, candidate, *, unit=None, part="", rows=1):
        unit = unit or request
        record = {
            "request": request, "unit": unit, "unit_from": "parameter", "unit_id": f"id-{unit}",
            "slice": part, "baseline": [[baseline, 9.1]] * rows, "candidate": [[candidate, 7.2]] * rows,
        }  # fmt: skip
        self._append("disagreements", record)

    def close(self, unit, *parts):
        self._append("differing", [f"id-{unit}", list(parts)])

    def request(self, name, baseline, candidate):
        self.differ(name, baseline, candidate)
        self.close(name)

    def take(self, **labels):
        return take_labels(self.folder, {name: Label("label", str(text)) for name, text in labels.items()})

    def _append(self, kind, entry):
        with self.path(kind).open("a") as file:
            file.write(json.dumps(entry) + "\n")


@pytest.fixture
def requests(tmp_path):
    return Kept(tmp_path, REQUESTS)


@pytest.fixture
def clips(tmp_path):
    return Kept(tmp_path, settings())


def test_each_disagreement_counts_by_who_was_right(requests):
    for name, baseline, candidate in (("a", 3, 5), ("b", 3, 5), ("c", 3, 5), ("d", 1, 2)):
        requests.request(name, baseline, candidate)
    report = requests.take(a=5, b=3, c=9, agreed=4)
    assert (report.better, report.same, report.worse) == (1, 1, 1)
    assert (report.taken, report.judged, report.waiting, report.open) == (3, 3, 1, 0)
    assert (report.unknown, report.unknown_requests) == (1, ("agreed",))
    assert requests.folder.counters().tally() == Tally(better=1, same=1, worse=1)


def test_the_same_labels_again_count_once(requests):
    requests.request("a", 3, 5)
    first, again = requests.take(a=5), requests.take(a=5)
    assert (first.newly_judged, again.newly_judged) == (1, 0)
    assert (again.taken, again.repeated, again.judged) == (0, 1, 1)
    (state,) = requests.folder.counters().states
    assert (state.node, state.sequence) == ("edge-1.labels", 1)


def test_a_changed_label_is_refused_and_the_first_one_stands(requests):
    requests.request("a", 3, 5)
    requests.request("b", 3, 5)
    requests.take(a=5)
    report = requests.take(a=3, b=3)
    assert (report.changed, report.taken) == (("a",), 1)
    assert (report.better, report.worse) == (1, 1)


def test_a_unit_waits_until_it_is_complete_and_all_its_disagreements_have_labels(clips):
    clips.differ("f1", 3, 5, unit="clip")
    clips.differ("f2", 3, 5, unit="clip")
    assert clips.take(f1=5).open == 0, "a label is missing"
    report = clips.take(f2=3)
    assert (report.open, report.judged) == (1, 0), "the router has not completed it"
    clips.close("clip", "night")
    report = clips.take()
    assert (report.open, report.judged, report.same) == (0, 1, 1)
    assert clips.folder.counters().tally("night") == Tally(same=1)


def test_the_score_of_a_unit_is_the_mean_over_its_disagreements(clips):
    for name in ("f1", "f2", "f3", "f4"):
        clips.differ(name, 3, 5, unit="clip")
    clips.close("clip")
    clips.take(f1=3, f2=3, f3=3, f4=5)
    assert clips.folder.counters().tally().scores == ((-1000, 1),), "-0.5 stands in bin -1000"


def test_a_unit_whose_answer_was_lost_is_not_judged_a_second_time(clips):
    """The router counts it as lost, and so does not name it among those that differ."""
    clips.differ("f1", 3, 5, unit="lost")
    report = clips.take(f1=3)
    assert (report.taken, report.judged) == (1, 0)


def test_units_that_found_no_room_are_told(requests):
    requests.request("a", 3, 5)
    requests.close("b")
    report = requests.take(a=5)
    assert (report.judged, report.waiting, report.unkept) == (1, 1, 1)


def test_a_late_disagreement_of_a_judged_unit_changes_nothing(clips):
    clips.differ("f1", 3, 5, unit="clip")
    clips.close("clip")
    clips.take(f1=5)
    clips.differ("f2", 3, 5, unit="clip")
    assert clips.take(f2=3).judged == 1
    assert clips.folder.counters().tally() == Tally(better=1)


def test_scores_serve_where_a_label_is_no_class(clips):
    clips.differ("f1", [0.5], [0.6], unit="clip")
    clips.close("clip")
    assert clips.take(f1=3).unfit == ("f1",)
    report = take_labels(clips.folder, {"f1": Label("score", "worse")})
    assert report.worse == 1


def test_a_batch_takes_one_label_a_row(requests):
    requests.differ("a", 3, 5, rows=2)
    requests.close("a")
    assert requests.take(a=3).unfit == ("a",)
    requests.take(a="5;9")
    assert requests.folder.counters().tally().scores == ((1000, 1),), "0.5 stands in bin 1000"


def test_a_torn_journal_and_torn_records_lose_only_the_torn_line(requests):
    requests.request("a", 3, 5)
    requests.take(a=5)
    with requests.folder.labels_path.open("a") as file:
        file.write('{"request": "b", "la')
    with requests.path("disagreements").open("a") as file:
        file.write('{"request": "tor\n')
    requests.request("b", 3, 5)
    report = requests.take(a=5, b=3)
    assert (report.judged, report.better, report.worse) == (2, 1, 1)
    assert set(read_book(requests.folder.labels_path).labels) == {"a", "b"}


def test_a_journal_of_something_else_is_refused(requests):
    requests.folder.labels_path.write_text('{"other": 1}\n')
    with pytest.raises(InputError, match=r"labels\.jsonl: line 1: .*must not be counted again"):
        requests.take(a=5)


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=4), max_size=6))
def test_any_split_and_order_of_the_same_labels_gives_the_same_counts(tmp_path_factory, files):
    kept, truth = Kept(tmp_path_factory.mktemp("law"), REQUESTS), {"a": 5, "b": 3, "c": 5, "d": 1, "e": 3}
    for name in truth:
        kept.request(name, 3, 5)
    for names in (*files, list(truth)):
        kept.take(**{name: truth[name] for name in names})
    assert kept.folder.counters().tally() == Tally(better=2, same=1, worse=2)


def written(path, text):
    path.write_text(text)
    return path


def test_a_csv_file_is_read_whatever_writes_it(tmp_path):
    text = "\ufeffrequest,label,who\r\nr1, 3 ,ann\r\nr2,3.0,bob\r\nr1,3,ann\r\n"
    assert read_labels(written(tmp_path / "l.csv", text)) == {
        "r1": Label("label", "3"),
        "r2": Label("label", "3"),
    }
    text = "request_id,score\nr1,Worse\nr2,1\nr3,-0.5\n"
    assert read_labels(written(tmp_path / "s.csv", text)) == {
        "r1": Label("score", "worse"), "r2": Label("score", "better"), "r3": Label("score", "-0.5"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"expected the columns request and either label or score, found \[\]"),
        ("id,label\n1,2\n", r"found \['id', 'label'\]\. Name the columns in the first line"),
        ("request,label,score\n", "either label or score"),
        ("request,label\nr1,cat\n", r"l\.csv, row 2: expected a class as a whole number, found 'cat'"),
        ("request,label\nr1,2.5\n", "found '2.5'"),
        ("request,label\nr1,nan\n", "found 'nan'"),
        ("request,label\nr1\n", "found ''"),
        ("request,label\n,3\n", "row 2: it names no request"),
        ("request,score\nr1,2\n", r"expected better, same, worse or a number from -1 to 1, found '2'"),
        ("request,label\nr1,3\nr1,4\n", "row 3: expected one label of request 'r1', found 3 and 4"),
    ],
)
def test_wrong_labels_are_refused_before_any_counts(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_labels(written(tmp_path / "l.csv", text))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_labels(tmp_path / "none.csv")
