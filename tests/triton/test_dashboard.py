"""The dashboard's queries, run by a real Prometheus that scrapes a real Triton and a real verdict service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus import Prometheus, prometheus
from router_live import serving

from jettison.experiment.settings import Settings
from jettison.triton.runtime import Installation

pytest.importorskip("uvicorn", reason="the extra 'verdict' is not installed")
pytestmark = pytest.mark.server

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
DASHBOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "ab.json").read_text())
TOKEN = "0123456789abcdef" * 2
VARIABLES = {"$experiment": ".*", "$router": ".*", "$__rate_interval": "20s"}
SETTINGS = {
    "name": "night", "baseline": "a" * 64, "candidate": "b" * 64, "data_source": "shadow:test",
    "unit": "clip", "margin": 0.01, "planned_disagreement": 0.04,
    "latency": {"limit_ms": 1000, "quantile": 0.99},
}  # fmt: skip


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def filled(expression: str) -> str:
    """As Grafana would send it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"an unknown variable in {expression}"
    return expression


def config(triton: str, verdict: str, token: Path) -> dict[str, Any]:
    """The configuration that ships, with this machine's targets, and in more of a hurry."""
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = {"triton": triton, "verdict": verdict}
    for job in found["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(token)
    return found


@pytest.fixture(scope="module")
def scraped(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen some seconds of shadow traffic."""
    work = tmp_path_factory.mktemp("dashboard")
    (work / "token").write_text(TOKEN)
    (work / "ab.yaml").write_text(yaml.safe_dump(SETTINGS))
    experiment = Settings.model_validate(SETTINGS).id
    with serving(installation, work, candidate="three", latency_limit_ms=1000) as live:
        live.set(mode="shadow", experiment=experiment)
        paths = {"--experiment": "ab.yaml", "--token": "token", "--state": "verdicts"}
        given = [text for option, name in paths.items() for text in (option, str(work / name))]
        command = (sys.executable, "-m", "jettison", "ab", "serve", "--scrape", live.server.metrics_url)
        with subprocess.Popen(
            (*command, *given, "--port", "0", "--poll", "0.5", "--json"), stdout=subprocess.PIPE, text=True
        ) as service:
            try:
                assert service.stdout is not None
                url = json.loads("".join(service.stdout.readline() for _ in range(3)))["url"]
                hosts = (
                    re.sub("^http://|/metrics$", "", address) for address in (live.server.metrics_url, url)
                )
                with prometheus(work, config(*hosts, work / "token")) as found:
                    end = time.monotonic() + 40
                    query = f'ab_counted{{experiment="{experiment}",count="disagree"}} > 20'
                    while time.monotonic() < end and not found.values(query):
                        live.ask()
                        time.sleep(0.02)
                    time.sleep(3)  # two scrapes more, so that every rate has two samples
                    yield found
            finally:
                service.kill()


def test_both_are_scraped(scraped: Prometheus) -> None:
    assert {one["metric"]["job"]: one["value"][1] for one in scraped.values("up")} == {
        "triton": "1",
        "verdict": "1",
    }


@pytest.mark.parametrize("expression", expressions())
def test_every_query_of_the_dashboard_gives_something(scraped: Prometheus, expression: str) -> None:
    found = scraped.values(filled(expression))
    assert found, f"{expression} gives nothing"
    assert all(one["value"][1] not in ("+Inf", "-Inf") for one in found)


@pytest.mark.parametrize("variable", DASHBOARD["templating"]["list"], ids=lambda variable: variable["name"])
def test_every_variable_has_values(scraped: Prometheus, variable: dict[str, Any]) -> None:
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert found is not None
    assert scraped.ask(f"/api/v1/label/{found[2]}/values", **{"match[]": found[1]})["data"]


def test_what_the_dashboard_shows_is_what_the_verdict_is_made_of(scraped: Prometheus) -> None:
    """y = 3 x against 2 x: every unit differs and waits for a label, and nothing is decided."""
    (decision,) = scraped.values("ab_decision == 1")
    assert decision["metric"]["decision"] == "continue"
    (pending,), (differ,) = (
        scraped.values(query) for query in ("ab_units_pending", 'ab_counted{count="disagree"}')
    )
    assert pending["value"][1] == differ["value"][1]
    (shown,) = scraped.values('jettison_router_counted{slice="all",count="disagree"}')
    assert int(shown["value"][1]) >= int(differ["value"][1]) > 20
