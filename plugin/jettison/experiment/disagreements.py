"""What the router kept of units on which the two models differ, read back for whoever labels them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KEPT = ".disagreements.jsonl"
DIFFERING = ".differing.jsonl"


class Disagreement(NamedTuple):
    """One request that was answered differently.

    Args:
        node: Whose router kept it.
        unit: The unit's id there.
        request: What a label names it by: its request id, or where it has none the unit's key.
        place: Which one of its unit it is, counted from 0 in the order of the file.
        baseline: The baseline's answer in short, as parsed JSON.
        candidate: The candidate's.
    """

    node: str
    unit: str
    request: str
    place: int
    baseline: object
    candidate: object


class Differing(NamedTuple):
    """A unit that the router has counted as `disagree`."""

    node: str
    unit: str
    slices: tuple[str, ...]


def read_disagreements(folder: Path, experiment: str) -> Iterator[Disagreement]:
    """All that were kept, node by node, in the order in which they came.

    Raises:
        OSError: A file cannot be read.
    """
    for node, path in _files(folder, experiment, KEPT):
        places: dict[str, int] = {}
        for record in _lines(path):
            if not isinstance(record, dict) or not isinstance(record.get("unit_id"), str):
                continue
            unit = record["unit_id"]
            request = str(record.get("request") or record.get("unit") or "")
            place = places.get(unit, 0)
            places[unit] = place + 1
            yield Disagreement(node, unit, request, place, record.get("baseline"), record.get("candidate"))


def read_differing(folder: Path, experiment: str) -> Iterator[Differing]:
    """The units that are complete, and counted as `disagree`.

    Raises:
        OSError: A file cannot be read.
    """
    for node, path in _files(folder, experiment, DIFFERING):
        for entry in _lines(path):
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list):
                yield Differing(node, str(entry[0]), tuple(str(name) for name in entry[1]))


def _files(folder: Path, experiment: str, ending: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.glob(f"{experiment}.*{ending}")):
        yield path.name.removeprefix(f"{experiment}.").removesuffix(ending), path


def _lines(path: Path) -> Iterator[object]:
    """The parsed lines; one that a death tore is passed over, and a last one without its end is not there."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue
