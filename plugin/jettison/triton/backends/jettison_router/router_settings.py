"""What a router model is told in the `parameters` of its configuration.

Runs in Triton's stub: standard library only, nothing of Jettison. `jettison.triton.router.RouterOptions`
writes what is read here; a test holds the two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A node's, experiment's or slice's name: also a file's."""

TASKS = ("classification", "embedding", "detection", "tolerance")
CORRELATIONS = ("sequence", "key")
VARIABLE = "$"
"""What a node's name begins with that stands in the server's environment."""


@dataclass(frozen=True)
class Settings:
    """How one router works; the same for all its instances, and fixed while it is loaded.

    Args:
        baseline: The model that answers.
        candidate: The model that is tried.
        baseline_version: Of the baseline; -1 for the newest that is served.
        candidate_version: Of the candidate.
        state_path: The file with mode and weight, which may change at any time.
        counter_folder: Where counters and disagreements are kept.
        node: This machine's name, unique in the experiment; `$NAME` takes that of a variable of the server's
            environment, so that many machines can serve one repository.
        key_path: The file of the key by which counters are signed; empty where nobody signs.
        task: How two answers are compared.
        output: The output that is compared; the first where it is empty. For a detector that of the boxes.
        score_output: A detector's scores.
        class_output: A detector's classes; empty where there is one class.
        threshold: The least cosine of embeddings, or the least F1 of a detector's matched boxes.
        score_threshold: Boxes with lower scores are no detections.
        absolute_tolerance: Of the task `tolerance`: how far numbers may differ, whatever their size.
        relative_tolerance: And how far as a share of the baseline's.
        sample_share: The share of units whose answers are compared.
        deadline_ms: How long the candidate may take before it counts as failed.
        latency_limit_ms: What counts as late, for the experiment; 0 where nothing does.
        unit_header: The parameter that a forwarded header fills, which names the unit.
        correlation_ids: `sequence` where they name sequences, which never move; `key` where they are names.
        unit_idle_s: A unit without a request for so long is complete.
        unit_max_requests: So is one with so many; 1 where every request is a unit.
        most_open_units: More open units than that close the oldest.
        candidate_in_flight: The most requests that one instance has at the candidate at a time.
        shadow_bytes: The most bytes of inputs and answers that they may hold.
        breaker_failures: So many failures of the candidate in a row, and it is left alone.
        breaker_pause_s: For so long.
        disagreement_bytes: The most bytes of kept disagreements.
    """

    baseline: str
    candidate: str
    state_path: str
    counter_folder: str
    node: str
    key_path: str = ""
    baseline_version: int = -1
    candidate_version: int = -1
    task: str = "tolerance"
    output: str = ""
    score_output: str = ""
    class_output: str = ""
    threshold: float = 0.99
    score_threshold: float = 0.5
    absolute_tolerance: float = 1e-3
    relative_tolerance: float = 1e-2
    sample_share: float = 1.0
    deadline_ms: float = 1000.0
    latency_limit_ms: float = 0.0
    unit_header: str = ""
    correlation_ids: str = "sequence"
    unit_idle_s: float = 30.0
    unit_max_requests: int = 1000
    most_open_units: int = 4096
    candidate_in_flight: int = 8
    shadow_bytes: int = 64 << 20
    breaker_failures: int = 5
    breaker_pause_s: float = 5.0
    disagreement_bytes: int = 64 << 20

    @property
    def are_shadows_in_background(self) -> bool:
        """Whether shadows take only what time is left: where a limit is set, their own speed is asked for."""
        return not self.latency_limit_ms

    @property
    def are_requests_units(self) -> bool:
        """Whether every request is a unit, which closes at once."""
        return self.unit_max_requests == 1


def settings_of(
    parameters: Mapping[str, Mapping[str, str]], environment: Mapping[str, str] = os.environ
) -> Settings:
    """The settings in a configuration's parameters.

    Raises:
        ValueError: One is missing, unknown or impossible; the text says which.
    """
    given = {key: entry["string_value"] for key, entry in parameters.items()}
    kinds = {part.name: str(part.type) for part in fields(Settings)}
    unknown, missing = sorted(set(given) - set(kinds)), sorted(_NEEDED - set(given))
    if unknown or missing:
        raise ValueError(f"unknown parameters {unknown}, missing {missing}: write it with router_config()")
    values = {key: _KINDS[kinds[key]](text) for key, text in given.items()}
    found = Settings(**values)
    found = replace(found, node=_node(found.node, environment))
    _check(found)
    return found


def _node(text: str, environment: Mapping[str, str]) -> str:
    if not text.startswith(VARIABLE):
        return text
    name = text.removeprefix(VARIABLE)
    if name not in environment:
        raise ValueError(f"node {text!r}: the server's environment has no variable {name!r}: set it")
    return environment[name]


_NEEDED = {"baseline", "candidate", "state_path", "counter_folder", "node"}
_KINDS = {"str": str, "float": float, "int": int}


def _check(settings: Settings) -> None:
    sides = (
        (settings.baseline, settings.baseline_version),
        (settings.candidate, settings.candidate_version),
    )
    if sides[0] == sides[1]:
        raise ValueError(f"baseline and candidate are both {settings.baseline!r}: give two models")
    if not NAME.fullmatch(settings.node):
        raise ValueError(f"node {settings.node!r}: expected letters, digits and '.', '_', '-'")
    if settings.task not in TASKS or settings.correlation_ids not in CORRELATIONS:
        raise ValueError(f"expected a task of {TASKS} and correlation_ids of {CORRELATIONS}")
    if settings.task == "detection" and not (settings.output and settings.score_output):
        raise ValueError("a detector's answers are compared by its boxes: name output and score_output")
    positive = ("deadline_ms", "unit_idle_s", "unit_max_requests", "most_open_units", "candidate_in_flight")
    wrong = [name for name in positive if not getattr(settings, name) > 0]
    if wrong or not 0 <= settings.sample_share <= 1:
        raise ValueError(f"expected {wrong or 'sample_share'} above 0, and sample_share at most 1")
