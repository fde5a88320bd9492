"""What the parts of the guarantee share: targets with their figures, scores, and measured processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jettison.core.runner import Runner
from jettison.core.samples import Samples
from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.reference import Reference
from jettison.evaluate.scoring import score


@dataclass(frozen=True)
class Check:
    """One target: what is asked, what was found, and whether it holds."""

    what: str
    found: str
    held: bool


@dataclass(frozen=True)
class Part:
    """One part of the guarantee: a table as rows of columns by name, its targets, and remarks."""

    title: str
    rows: Sequence[dict[str, Any]]
    checks: Sequence[Check]
    notes: Sequence[str] = field(default_factory=tuple)

    def document(self) -> dict[str, Any]:
        """The part for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """The part as Markdown tables."""
        lines = [f"### {self.title}", "", *_table([shown(row) for row in self.rows]), ""]
        checks = [
            {"target": check.what, "found": check.found, "held": "yes" if check.held else "NO"}
            for check in self.checks
        ]
        lines += [*_table(checks), "", *(f"{note}." for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def shown(row: dict[str, Any]) -> dict[str, str]:
    """The row in words; the ending of a column's name is its unit."""
    return {name.replace("_", " "): _word(name, value) for name, value in row.items()}


def _word(name: str, value: object) -> str:
    if value is None:
        return ""
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    if name.endswith("speedup"):
        return f"{value:.2f}x"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[dict[str, str]]) -> list[str]:
    if not rows:
        return []
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(row.get(name, '') for name in names)} |" for row in rows]


def scored(
    runner: Runner, samples: Samples, reference: Reference, *, metric: str = "agreement"
) -> tuple[float, float]:
    """SQNR in dB against the float model, and the mean of the metric."""
    found = score(runner, samples, metric=resolve_metric(metric), reference=reference)
    return found.sqnr_db or 0.0, found.mean


def decibels(damage: float) -> float:
    """Noise over signal as dB of signal over noise."""
    return -10.0 * math.log10(max(damage, 1e-15))


@dataclass(frozen=True)
class Ran:
    """What a program printed and took: seconds of its wall clock, bytes of its largest resident set."""

    output: str
    seconds: float
    peak_rss_bytes: int

    def document(self) -> Any:
        """Its output read as JSON."""
        return json.loads(self.output)


def measured(command: Sequence[str]) -> Ran:
    """Run a program to its end.

    Raises:
        RuntimeError: It failed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {process.returncode}: {output[-300:]}")
    return Ran(output, time.perf_counter() - started, usage.ru_maxrss * 1024)
