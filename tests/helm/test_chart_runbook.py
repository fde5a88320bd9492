"""Every alert of the chart has its section in docs/runbook.md, and says where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chart_cases import AB, IMAGE
from chart_render import merged, one, refusal, render

TEXT = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (Jettison\w+)\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL))


def alerts(**rules: object) -> dict[str, dict[str, str]]:
    """The chart's alerts, each with its annotations."""
    values = merged(IMAGE, AB, {"monitoring": {"rules": {"enabled": True, **rules}}})
    found = one(render(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    return {rule["alert"]: rule["annotations"] for rule in found if "alert" in rule}


def test_every_alert_has_a_section_and_every_section_an_alert():
    assert set(SECTIONS) == set(alerts())
    assert len(SECTIONS) >= 4


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_section_tells_what_it_means_a_command_to_look_and_what_to_do(name):
    parts = ["**It means**", "**First look**", "```bash", "**What to do**", "\n1. "]
    places = [SECTIONS[name].find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_alerts_point_at_their_section():
    for name, notes in alerts().items():
        assert notes["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert "runbook_url" not in notes


def test_alerts_link_to_the_page_where_its_address_is_known():
    for name, notes in alerts(runbookUrl="https://wiki.example/runbook").items():
        assert notes["runbook_url"] == f"https://wiki.example/runbook#{name.lower()}"
        assert "runbook" not in notes


def test_an_address_that_is_none_is_refused():
    assert "runbookUrl" in refusal({"monitoring": {"rules": {"runbookUrl": "docs/runbook.md"}}})


def test_series_that_the_page_names_are_those_of_the_code():
    plugin = Path(__file__).parents[2] / "plugin" / "jettison"
    code = "".join(path.read_text() for path in plugin.glob("**/*metrics.py"))
    named = set(re.findall(r"`(ab_\w+)`", TEXT)) | {"errors_candidate", "breaker_openings", "dropped_shadows"}
    assert len(named) >= 5
    assert [name for name in sorted(named) if f'"{name}"' not in code] == []
