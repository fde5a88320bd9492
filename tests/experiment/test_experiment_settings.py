"""Settings of an experiment: the id holds all of them, and what cannot work is told before it begins."""

from __future__ import annotations

import pytest
from ab_cases import BASELINE, CANDIDATE, settings
from pydantic import ValidationError

from jettison.core.errors import InputError
from jettison.core.validation import problem_of
from jettison.experiment import settings as settings_module
from jettison.experiment.settings_file import load_settings

CHANGES = [
    {"baseline": "c" * 64},
    {"candidate": "c" * 64},
    {"data_source": "replay:march"},
    {"unit": "device-hour"},
    {"margin": 0.02},
    {"planned_disagreement": 0.05},
    {"alpha": 0.01},
    {"evidence": "agreement"},
    {"min_units": 5},
    {"max_units": 500},
    {"latency": {"limit_ms": 50, "quantile": 0.99}},
    {"guard_errors": False},
    {"slices": [{"name": "night", "margin": 0.1}]},
    {"max_loss": 0.02},
    {"is_aa": True, "candidate": BASELINE},
    {"requests_are_independent": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_setting_is_in_the_id(change):
    assert settings(**change).id != settings().id


def test_every_setting_but_the_name_is_tried_above():
    assert {name for change in CHANGES for name in change} == set(type(settings()).model_fields) - {"name"}


def test_the_same_question_has_the_same_id_however_it_is_written():
    assert settings(name="other", alpha=0.05, baseline=f"sha256:{BASELINE}").id == settings().id
    assert len(settings().id) == 32


def test_other_formulas_are_another_experiment(monkeypatch):
    before = settings().id
    monkeypatch.setattr(settings_module, "FORMULAS", 99)
    assert settings().id != before


@pytest.mark.parametrize(
    ("change", "words", "fix"),
    [
        ({"margin": 0}, "margin: expected a number above 0, found 0", "Correct it"),
        ({"margin": None}, "margin: expected a number, found nothing", "Correct it"),
        ({"alpha": 0.5}, "alpha: expected a number below 0.5, found 0.5", "Correct it"),
        (
            {"unit": "request"},
            "expected what is independent of the next one, found 'request'",
            "Name the clip",
        ),
        ({"baseline": "v1"}, "expected a SHA-256 in hexadecimal, found 'v1'", "Give the SHA-256 of the file"),
        (
            {"candidate": BASELINE},
            "is_aa is false, found one model twice",
            "Set is_aa: true to test the road",
        ),
        ({"is_aa": True}, "is_aa is true, found two models", "false to compare two"),
        ({"name": "a b"}, "expected a name of letters, digits, '.', '_', '-', found 'a b'", "Rename it"),
        ({"min_units": 9, "max_units": 5}, "expected min_units of at most max_units 5, found 9", "Lower it"),
        ({"slices": [{"name": "all", "margin": 0.1}]}, "the slice 'all' is the whole", "own margin"),
        ({"slices": [{"name": "x", "margin": 0.1}] * 2}, "expected each slice once, found", "Keep one"),
        (
            {"evidence": "agreement", "slices": [{"name": "x", "margin": 0.1}]},
            "slices are judged by labels, and there are none",
            "Leave the slices out",
        ),
        (
            {"latency": {"limit_ms": 5, "quantile": 0.9, "proven_quantile": 0.9}},
            "expected proven_quantile below quantile 0.9, found 0.9",
            "lower it",
        ),
        ({"evidence": "label"}, "expected one of labels, agreement, found 'label'", "Did you mean 'labels'?"),
    ],
)
def test_what_cannot_work_is_told(change, words, fix):
    with pytest.raises(ValidationError) as caught:
        settings(**change)
    problem = problem_of(caught.value)
    assert words in problem.detail
    assert fix in problem.fix


def test_a_margin_is_required():
    with pytest.raises(ValidationError) as caught:
        settings_module.Settings.model_validate(settings().model_dump(exclude={"margin"}))
    assert problem_of(caught.value).detail == "the key 'margin' is missing"


def test_requests_are_units_only_where_someone_says_so():
    assert settings(unit="request", requests_are_independent=True).unit == "request"


def test_guards_share_one_alpha():
    slices = [{"name": "a", "margin": 0.1}, {"name": "b", "margin": 0.1}]
    assert settings(slices=slices, latency={"limit_ms": 50, "quantile": 0.99}).guards == 4


YAML = f"""
name: gate
baseline: {BASELINE}
candidate: sha256:{CANDIDATE}
data_source: shadow:gate-cameras
unit: clip
margin: 0.01
planned_disagreement: 0.04
"""


def test_settings_from_yaml(tmp_path):
    (tmp_path / "ab.yaml").write_text(YAML)
    assert load_settings(tmp_path / "ab.yaml") == settings()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("max_unit: 5", "unknown key 'max_unit'. Did you mean 'max_units'?"),
        ("margin: 0.02", "the key 'margin' stands twice, in lines 7 and 9"),
        ("latency: {limit: 5, quantile: 0.9}", "unknown key 'latency.limit'. Did you mean 'limit_ms'?"),
        ("slices: [{name: night, margn: 0.1}]", "unknown key 'slices.0.margn'. Did you mean 'margin'?"),
        ("min_units: yes", "expected a number for min_units, found true. Write a number"),
        ("slices: [{name: night}]", "the key 'slices.0.margin' is missing. Add it"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_yaml_is_told(tmp_path, more, words):
    (tmp_path / "ab.yaml").write_text(YAML + more)
    with pytest.raises(InputError) as caught:
        load_settings(tmp_path / "ab.yaml")
    assert words in str(caught.value)


def test_a_list_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_settings(tmp_path / "ab.yaml")
    (tmp_path / "ab.yaml").write_text("- margin")
    with pytest.raises(InputError, match="expected a mapping of keys"):
        load_settings(tmp_path / "ab.yaml")
