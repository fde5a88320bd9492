"""What Argo Rollouts and Flagger do with rendered objects, by their documentation.

Time is counted, not waited for.

Sources: https://argo-rollouts.readthedocs.io/en/stable/features/analysis/ (limits, inconclusive runs) and
https://docs.flagger.app/usage/webhooks (which hook holds, which counts as a failure, which is inverted).
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]
Between = Callable[[int], None]
"""Told after each question how many there were."""


def nothing(asked: int) -> None:
    del asked


@dataclass
class End:
    """How it ended: `promoted`, `rolled back`, `paused` (a person decides) or `holding` (it asks on)."""

    state: str
    weights: list[int] = field(default_factory=list)
    asked: int = 0


def answered(url: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body; 0 where nobody answers."""
    assert url.startswith("http://"), url
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - http, see above
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, see above
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Argo:
    """One Rollout with its AnalysisTemplates.

    Args:
        objects: As rendered.
        secrets: The namespace's Secrets, each with its keys.
    """

    def __init__(self, objects: tuple[Document, ...], secrets: Mapping[str, Mapping[str, str]]) -> None:
        self._templates = {
            one["metadata"]["name"]: one for one in objects if one["kind"] == "AnalysisTemplate"
        }
        (self._rollout,) = (one for one in objects if one["kind"] == "Rollout")
        self._secrets = secrets

    def walk(self, between: Between = nothing) -> End:
        """Through all steps, until one of them stops it."""
        end = End("promoted")
        for step in self._rollout["spec"]["strategy"]["canary"]["steps"]:
            if "setWeight" in step:
                end.weights.append(step["setWeight"])
            for named in step.get("analysis", {}).get("templates", ()):
                phase = self._run(self._templates[named["templateName"]]["spec"], end, between)
                if phase == "Inconclusive":
                    end.state = "paused"
                    return end
                if phase != "Successful":
                    end.state = "rolled back"
                    end.weights.append(0)
                    return end
        return end

    def _run(self, spec: Document, end: End, between: Between) -> str:
        """The phase of an analysis run with one metric."""
        (metric,) = spec["metrics"]
        tally = {"Successful": 0, "Failed": 0, "Inconclusive": 0}
        errors_in_a_row = successes_in_a_row = 0
        while True:
            phase = self._measure(metric, spec["args"])
            end.asked += 1
            between(end.asked)
            errors_in_a_row = errors_in_a_row + 1 if phase == "Error" else 0
            successes_in_a_row = successes_in_a_row + 1 if phase == "Successful" else 0
            if phase in tally:
                tally[phase] += 1
            if tally["Failed"] > metric.get("failureLimit", 0):
                return "Failed"
            if tally["Inconclusive"] > metric.get("inconclusiveLimit", 0):
                return "Inconclusive"
            if errors_in_a_row > metric.get("consecutiveErrorLimit", 4):
                return "Error"
            wanted = metric.get("consecutiveSuccessLimit", 0)
            if wanted and successes_in_a_row >= wanted:
                return "Successful"
            if sum(tally.values()) >= metric["count"]:
                return "Inconclusive" if wanted else "Successful"

    def _measure(self, metric: Document, args: list[Document]) -> str:
        web = metric["provider"]["web"]
        headers = {one["key"]: self._filled(one["value"], args) for one in web["headers"]}
        status, body = answered(web["url"], headers)
        if not 200 <= status < 300:
            return "Error"
        assert web["jsonPath"] == "{$}"
        result = json.loads(body)
        if holds(metric["failureCondition"], result):
            return "Failed"
        return "Successful" if holds(metric["successCondition"], result) else "Inconclusive"

    def _filled(self, text: str, args: list[Document]) -> str:
        for arg in args:
            reference = arg["valueFrom"]["secretKeyRef"]
            text = text.replace(
                "{{args." + arg["name"] + "}}", self._secrets[reference["name"]][reference["key"]]
            )
        return text


def holds(condition: str, result: Document) -> bool:
    """The one form of condition that we render."""
    match = re.fullmatch(r'result\.(\w+) == "(\w+)"', condition)
    assert match is not None, condition
    return result[match[1]] == match[2]


class Flagger:
    """One Canary without metrics of its own."""

    def __init__(self, canary: Document) -> None:
        self._analysis = canary["spec"]["analysis"]
        self._weights = list(self._analysis.get("stepWeights", ()))
        self._iterations = self._analysis.get("iterations", 0)

    def walk(self, ticks: int, between: Between = nothing) -> End:
        """So many intervals, or fewer where it ends before."""
        end, failed, started, iteration = End("holding"), 0, False, 0
        for tick in range(1, ticks + 1):
            end.asked = tick
            if self._says("rollback") or failed >= self._analysis["threshold"]:
                end.state = "rolled back"
                end.weights.append(0)
                return end
            if not started:
                started = self._says("pre-rollout")
                failed += not started
            elif len(end.weights) < len(self._weights):
                if self._says("confirm-traffic-increase"):
                    end.weights.append(self._weights[len(end.weights)])
            elif iteration < self._iterations:
                iteration += 1
            elif self._says("confirm-promotion"):
                end.state = "promoted"
                return end
            between(tick)
        return end

    def _says(self, kind: str) -> bool:
        """Whether every webhook of that type says yes: a status of at most 202."""
        hooks = [hook for hook in self._analysis["webhooks"] if hook["type"] == kind]
        assert hooks, f"no webhook of type {kind}"
        return all(0 < self._status(hook) <= 202 for hook in hooks)

    def _status(self, hook: Document) -> int:
        body = json.dumps({"name": "app", "namespace": "models", "metadata": hook["metadata"]}).encode()
        headers = {"Content-Type": "application/json"}
        return answered(hook["url"], headers, body)[0]
