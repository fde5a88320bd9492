"""The course of an experiment: kept in few lines, drawn as a picture that says what it shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from ab_cases import counted, settings

from jettison.experiment import history
from jettison.experiment.history import read_history, remember, snapshot_of
from jettison.experiment.plot import plot
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import decide

SVG = "{http://www.w3.org/2000/svg}"


def look(units, *, worse=0, asked=None, at=8, **more):
    asked = asked or settings()
    tally = Tally(better=units // 150, same=units, worse=units // 150 + worse, **more)
    verdict = decide(asked, counted(tally, experiment=asked.id))
    return snapshot_of(verdict, f"2026-03-01T{at:02}:00:00+00:00")


def test_looks_come_back_and_an_equal_one_is_not_written(tmp_path):
    path = tmp_path / "history.jsonl"
    first, later = look(100), look(200, at=9)
    for snapshot in (first, look(100, at=12), later):
        remember(path, snapshot)
    assert read_history(path) == (first, later)


def test_a_torn_line_is_passed_over_and_closed(tmp_path):
    path = tmp_path / "history.jsonl"
    remember(path, look(100))
    with path.open("a") as file:
        file.write('{"at": "2026')
    looks = remember(path, look(200))
    assert [snapshot.units for snapshot in looks] == [snapshot.units for snapshot in read_history(path)]
    assert len(looks) == 2


def test_a_long_history_is_thinned_and_keeps_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "MOST_LINES", 20)
    path = tmp_path / "history.jsonl"
    for units in range(100, 10_000, 100):
        remember(path, look(units))
    units = [snapshot.units for snapshot in read_history(path)]
    assert len(units) <= 20
    assert (units[0], units[-1]) == (look(100).units, look(9900).units)
    assert units == sorted(units)


def texts(svg):
    root = ElementTree.fromstring(svg)  # noqa: S314 (we wrote it)
    return root, [text.text for text in root.iter(f"{SVG}text")]


def test_the_plot_shows_evidence_bounds_margin_and_what_is_asked():
    root, words = texts(plot(settings(), [look(units) for units in (100, 1000, 3000)]))
    assert words[0] == "gate: promote"
    assert {"quality", "quality-against", "20 is asked", "margin -0.01", "units judged"} <= set(words)
    assert "errors" not in words, "a guard that nothing moved is left out"
    assert len(list(root.iter(f"{SVG}polyline"))) == 3
    (band,) = root.iter(f"{SVG}polygon")
    assert len(band.get("points").split()) == 6


def test_the_line_of_quality_rises_with_its_evidence():
    root, _ = texts(plot(settings(), [look(units) for units in (100, 1000, 3000)]))
    first = next(root.iter(f"{SVG}polyline"))
    heights = [float(point.split(",")[1]) for point in first.get("points").split()]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("units", [[], [0], [5], [10**9, 2 * 10**9]])
def test_any_history_gives_a_picture_inside_its_frame(units):
    root, _ = texts(plot(settings(name="a-b.c"), [look(count, worse=count // 3) for count in units]))
    for line in root.iter(f"{SVG}polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 760
            assert 0 <= y <= 520


def test_the_plot_of_agreement_has_its_own_words():
    asked = settings(evidence="agreement")
    looks = [look(0, asked=asked, agree=units, disagree=units // 300) for units in (300, 3000)]
    _, words = texts(plot(asked, looks))
    assert {"agreement", "margin +0.01"} <= set(words)
    assert any(word.startswith("share of disagreements") for word in words)
