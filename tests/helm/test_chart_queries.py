"""Every query in rules, panels, scalers and checks is PromQL, by Prometheus' own parser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from chart_cases import AB, FLAGGER, IMAGE
from chart_render import merged, one, render

ADDRESS = "http://prometheus.monitoring:9090"
EVERYTHING = merged(
    IMAGE,
    AB,
    FLAGGER,
    {
        "monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}},
        "autoscaling": {"enabled": True, "engine": "keda", "prometheusAddress": ADDRESS},
        "rollout": {"flagger": {"prometheusAddress": ADDRESS}},
    },
)


def panel_queries() -> Iterator[str]:
    dashboard = json.loads(
        one(render(EVERYTHING), "ConfigMap", "edge-jettison-dashboard")["data"]["jettison.json"]
    )
    for panel in dashboard["panels"]:
        yield from (target["expr"].replace("$namespace", "models") for target in panel["targets"])


def promtool(groups: object, folder) -> str:
    """What `promtool check rules` has against groups of rules."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(groups))
    result = subprocess.run(
        [program, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_rules_are_taken_by_prometheus(tmp_path):
    assert promtool(one(render(EVERYTHING), "PrometheusRule")["spec"], tmp_path) == ""


def test_all_other_queries_are_promql(tmp_path):
    found = render(EVERYTHING)
    queries = [
        *panel_queries(),
        one(found, "MetricTemplate")["spec"]["query"],
        one(found, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"],
    ]
    assert len(queries) >= 10
    rules = [{"record": f"query{number}", "expr": query} for number, query in enumerate(queries)]
    assert promtool({"groups": [{"name": "queries", "rules": rules}]}, tmp_path) == ""


def test_a_query_that_is_none_is_found(tmp_path):
    rules = [{"record": "broken", "expr": "sum by (pod) (rate(x[5m])"}]
    assert "parse error" in promtool({"groups": [{"name": "queries", "rules": rules}]}, tmp_path)


def test_panels_do_not_overlap():
    dashboard = json.loads(
        one(render(EVERYTHING), "ConfigMap", "edge-jettison-dashboard")["data"]["jettison.json"]
    )
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
