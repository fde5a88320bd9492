"""Rendered objects, walked as their controllers would, end where the verdict of a real service says."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from controllers import Argo, Flagger

from jettison.experiment.counters import WHOLE, Counters
from jettison.experiment.settings_file import load_settings
from jettison.experiment.tally import Tally
from jettison.rollout import argo, flagger
from jettison.rollout.plan import Gateway, RolloutPlan, Step, VerdictEndpoint
from verdict_service.verdict_cases import SETTINGS, TOKEN, Service, leave, serving

pytest.importorskip("uvicorn", reason="the extra 'verdict' is not installed")

SECRETS = {"verdict": {"token": TOKEN}}
COUNTS = {
    "promote": {"better": 60, "same": 2900, "worse": 55},
    "rollback": {"better": 5, "same": 500, "worse": 60},
    "continue": {"better": 1, "same": 20, "worse": 1},
    "exhausted": {"better": 10, "same": 180, "worse": 12},
    "later": {},
}
QUESTIONS = 6
HOOK = Path(__file__).parents[2] / "deploy" / "gitops" / "wait-for-verdict.yaml"


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Iterator[tuple[Service, Path]]:
    """A service with one experiment for each verdict, named after it, and the folder of its work."""
    work = tmp_path_factory.mktemp("ends")
    more = work / "more"
    more.mkdir()
    for letter, (name, counts) in zip("cdef0", COUNTS.items(), strict=True):
        # Names do not tell experiments apart, settings do.
        text = SETTINGS.replace("name: gate", f"name: {name}").replace("b" * 64, f"{letter}a" * 32)
        (more / f"{name}.yaml").write_text(text + ("max_units: 200\n" if name == "exhausted" else ""))
        count(work, name, **counts)
    with serving(work, "--token", str(work / "token"), "--experiment", str(more)) as service:
        for name in COUNTS:
            expect(service, name, "continue" if name == "later" else name)
        yield service, work


def count(work: Path, name: str, **counts: int) -> None:
    """A node leaves its counters of that experiment."""
    settings = load_settings(work / "more" / f"{name}.yaml")
    if counts:
        leave(work / "counters", Counters(settings.id, "n1", 0, 1, ((WHOLE, Tally(**counts)),)))


def expect(service: Service, name: str, decision: str) -> None:
    """Wait until the service says so."""
    end = time.monotonic() + 10
    while (found := service.ask(f"/v1/experiments/{name}/verdict", token=TOKEN).document).get(
        "decision"
    ) != decision:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def plan(service: Service, experiment: str, **changes: object) -> RolloutPlan:
    host, port = service.address
    return RolloutPlan(
        name="fashion", namespace="models", workload="fashion-l4", selector={"app": "fashion-l4"}, replicas=4,
        steps=(Step(weight=10, verdict=True), Step(weight=50)),
        verdict=VerdictEndpoint(
            url=f"http://{host}:{port}", experiment=experiment, credentials="verdict", interval_s=60,
            wait_s=60 * QUESTIONS,
        ),
    ).model_copy(update=changes)  # fmt: skip


def behind_gateways(service: Service, experiment: str) -> Flagger:
    given = plan(
        service, experiment, steps=(Step(weight=10), Step(weight=50)), gateways=(Gateway(name="edge"),)
    )
    return Flagger(flagger.render(given, bearer=TOKEN)[0])


@pytest.mark.parametrize(
    ("experiment", "state", "weights", "asked"),
    [
        ("promote", "promoted", [10, 50], 1),
        ("rollback", "rolled back", [10, 0], 1),
        ("continue", "paused", [10], QUESTIONS),
        ("exhausted", "paused", [10], QUESTIONS),
    ],
)
def test_argo_ends_by_the_verdict(told, experiment, state, weights, asked):
    end = Argo(argo.render(plan(told[0], experiment)), SECRETS).walk()
    assert (end.state, end.weights, end.asked) == (state, weights, asked)


@pytest.mark.parametrize(
    ("experiment", "state", "weights"),
    [
        ("promote", "promoted", [10, 50]),
        ("rollback", "rolled back", [0]),
        ("continue", "holding", [10, 50]),
    ],
)
def test_flagger_ends_by_the_verdict(told, experiment, state, weights):
    end = behind_gateways(told[0], experiment).walk(50)
    assert (end.state, end.weights) == (state, weights)


def test_flagger_takes_out_what_begins_when_the_experiment_is_exhausted_already(told):
    end = behind_gateways(told[0], "exhausted").walk(50)
    assert (end.state, end.weights, end.asked) == ("rolled back", [0], 6), "five refused starts, then out"


def test_flagger_without_gateways_promotes_after_its_iterations_and_not_without_a_verdict(told):
    ends = {
        name: Flagger(flagger.render(plan(told[0], name, steps=()), bearer=TOKEN)[0]).walk(50).state
        for name in ("promote", "rollback", "continue")
    }
    assert ends == {"promote": "promoted", "rollback": "rolled back", "continue": "holding"}


def test_argo_pauses_at_the_first_question_without_the_limit_that_we_set(told):
    objects = copy.deepcopy(argo.render(plan(told[0], "continue")))
    del objects[0]["spec"]["metrics"][0]["inconclusiveLimit"]
    assert Argo(objects, SECRETS).walk().asked == 1


def test_argo_without_the_token_gives_up_after_21_questions_and_rolls_back(told):
    end = Argo(argo.render(plan(told[0], "promote")), {"verdict": {"token": "x" * 32}}).walk()
    assert (end.state, end.asked) == ("rolled back", 21)


@pytest.mark.parametrize(("experiment", "code"), [("promote", 0), ("rollback", 1), ("exhausted", 1)])
def test_the_hook_job_of_a_fleet_ends_well_at_promote_only(told, experiment, code):
    (container,) = yaml.safe_load(HOOK.read_text())["spec"]["template"]["spec"]["containers"]
    host, port = told[0].address
    url = f"http://{host}:{port}/v1/experiments/{experiment}/verdict"
    environment = dict(os.environ) | {"VERDICT": url, "TOKEN": TOKEN, "EVERY_S": "0.1"}
    command = [sys.executable, *container["command"][1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split("\n")[0]) == (code, experiment), done.stderr


def test_argo_goes_on_when_the_verdict_comes_while_it_asks(told):
    service, work = told

    def counters_arrive(asked: int) -> None:
        if asked == 3:
            count(work, "later", **COUNTS["promote"])
            expect(service, "later", "promote")

    end = Argo(argo.render(plan(service, "later")), SECRETS).walk(counters_arrive)
    assert (end.state, end.weights, end.asked) == ("promoted", [10, 50], 4)
