"""What was seen at each look: the verdict's figures in short, so that their course can be drawn."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.files import append_lines, write_bytes
from jettison.experiment.estimates import Bounds
from jettison.experiment.verdict import Decision, Verdict

MOST_LINES = 4000
"""Chosen: more than a plot has points; then every second one goes."""


class Snapshot(BaseModel):
    """One look.

    Args:
        at: When, in ISO 8601.
        decision: What the verdict was.
        units: Judged, or compared where agreement is the evidence.
        pending: Not known yet.
        log_e: The natural logarithm of every e-value, by name.
        figure: The mean difference, or the share of disagreements where agreement is the evidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    decision: Decision
    units: int
    pending: int
    log_e: dict[str, float]
    figure: Bounds | None


def snapshot_of(verdict: Verdict, at: str) -> Snapshot:
    """The verdict's figures in short."""
    return Snapshot(
        at=at,
        decision=verdict.decision,
        units=verdict.units,
        pending=verdict.pending,
        log_e={entry.name: entry.log_e for entry in verdict.e_values},
        figure=verdict.estimates.difference or verdict.estimates.disagreement,
    )


def read_history(path: Path) -> tuple[Snapshot, ...]:
    """All looks, the oldest first; a line that a death tore is passed over."""
    found = []
    for line in path.read_text().splitlines(keepends=True) if path.is_file() else ():
        if line.endswith("\n"):
            try:
                found.append(Snapshot.model_validate_json(line))
            except ValidationError:
                continue
    return tuple(found)


def remember(path: Path, snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """All looks with this one, which is written where it shows anything new.

    Raises:
        OSError: The folder is read-only or the disk is full.
    """
    known = read_history(path)
    if known and known[-1].model_copy(update={"at": snapshot.at}) == snapshot:
        return known
    looks = (*known, snapshot)
    if len(looks) > MOST_LINES:
        looks = (*looks[:-1:2], snapshot)
        write_bytes(path, "".join(_line(look) for look in looks).encode())
        return looks
    append_lines(path, _line(snapshot))
    return looks


def _line(snapshot: Snapshot) -> str:
    return json.dumps(snapshot.model_dump(mode="json"), separators=(",", ":")) + "\n"
