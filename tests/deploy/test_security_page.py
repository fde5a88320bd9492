"""docs/security.md names only what there is: settings of the chart, options of verbs, codes of checks."""

from __future__ import annotations

import re

import pytest
from pages import VALUES, is_value, named_options, named_values, page, unknown_options

from jettison.triton.check.fleet_rules import CVE_FLOOR
from jettison.triton.check.page import page as page_of_checks

TEXT = page("security.md")


def test_every_value_that_it_names_is_one_of_the_chart():
    found = named_values(TEXT)
    assert len(found) >= 15
    assert [path for path in sorted(found) if not is_value(path)] == []


def test_every_option_that_it_names_is_one_of_that_verb():
    assert len(list(named_options(TEXT))) >= 20
    assert unknown_options(TEXT) == []


def test_every_code_that_it_names_is_a_check():
    known = set(re.findall(r"^\| ([A-Z]\d{3}) \|", page_of_checks(), re.MULTILINE))
    named = set(re.findall(r"\b[A-Z]\d{3}\b", TEXT))
    assert {"S501", "S502", "S503", "P203", "V701", "V705"} <= named <= known


def test_its_floor_and_what_it_recommends_are_those_of_the_code_and_the_chart():
    floor = ".".join(f"{part:02d}" for part in CVE_FLOOR)
    assert f"Triton before **{floor}** has holes" in TEXT
    image = VALUES["image"]
    assert f"Recommended is **{image['tag'].removesuffix('-py3')}**" in TEXT


def test_what_it_calls_the_default_is_the_default():
    assert VALUES["model"]["control"] == "none"
    assert VALUES["server"]["restrictedApi"] == {"enabled": True, "secretName": "", "secretKey": "key"}
    assert VALUES["networkPolicy"]["enabled"] is True
    assert VALUES["networkPolicy"]["inferenceFrom"] == []
    assert VALUES["model"]["verify"]["sha256"] is True


def test_what_there_is_not_would_be_found():
    text = "Set `model.verify.sha512` and `jettison check --verified KEY`, `server.restrictedApi.enabled`."
    assert [path for path in named_values(text) if not is_value(path)] == ["model.verify.sha512"]
    assert unknown_options(text) == ["--verified"]
    with pytest.raises(KeyError):
        unknown_options("`jettison scan --all`")
