"""Labels joined to what the router kept: which of the two models was right on the units on which they differ.

A unit is judged once: when it is complete and each of its kept disagreements has its label. Its score is the
mean over them of (candidate right) - (baseline right). What was taken stays: the same label again changes
nothing, another one for the same request is refused, since whoever could change labels after a look could
choose the answer.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import InputError
from jettison.core.files import append_lines
from jettison.core.locks import locked
from jettison.experiment.counter_file import read_key, sign, write_counters
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.disagreements import (
    Differing,
    Disagreement,
    read_differing,
    read_disagreements,
)
from jettison.experiment.folder import ExperimentFolder
from jettison.experiment.label_file import Label
from jettison.experiment.settings import REQUEST
from jettison.experiment.tally import Tally, unit_tally

_SHOWN = 5
"""Chosen: names in a report; the number beside them tells of all."""


class LabelReport(BaseModel):
    """What became of a file of labels.

    Args:
        given: Labels in the file.
        taken: Of them the new ones of kept disagreements.
        repeated: Those that were known.
        changed: Requests that have another label already, which stands.
        unknown: How many are of no kept disagreement: both answered alike, or not seen here, or not yet.
        unknown_requests: Some of them.
        unfit: Requests whose answers cannot be held against their label, such as classes of a detector.
        judged: Units that are judged now, over all files.
        newly_judged: Of them those by this file.
        waiting: Complete units that still want a label.
        unkept: Of them those whose disagreements the router had no room for: they count as worse.
        open: Labelled units that the router has not completed yet, or that lost an answer.
        better: Judged units on which the candidate was right.
        same: On which neither was, or both as often.
        worse: On which the baseline was.
    """

    model_config = ConfigDict(frozen=True)

    given: int
    taken: int
    repeated: int
    changed: tuple[str, ...]
    unknown: int
    unknown_requests: tuple[str, ...]
    unfit: tuple[str, ...]
    judged: int
    newly_judged: int
    waiting: int
    unkept: int
    open: int
    better: int
    same: int
    worse: int


@dataclass
class Book:
    """The journal of an experiment's labels: what was taken, and what it judged."""

    labels: dict[str, Label] = field(default_factory=dict)
    scores: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)


def take_labels(folder: ExperimentFolder, given: Mapping[str, Label]) -> LabelReport:
    """Take labels into the experiment, and count the units that they judge.

    Raises:
        InputError: Settings or setup of the folder cannot be read, or its journal is no journal.
        OSError: The folder is read-only or the disk is full; what was taken before stays.
    """
    settings = folder.settings()
    with locked(folder.labels_path):
        book = read_book(folder.labels_path)
        kept = list(read_disagreements(folder.counter_folder, settings.id))
        known = {record.request: record for record in kept if record.request}
        changed = [name for name, label in given.items() if book.labels.get(name, label) != label]
        unfit = [name for name, label in given.items() if name in known and not _fits(known[name], label)]
        new = {
            name: label
            for name, label in given.items()
            if name in known and name not in book.labels and name not in unfit
        }
        _append(
            folder.labels_path, ({"request": name, label.kind: label.text} for name, label in new.items())
        )
        book.labels.update(new)
        units = _units(kept, is_request=settings.unit == REQUEST)
        differing = dict(
            _named(read_differing(folder.counter_folder, settings.id), is_request=settings.unit == REQUEST)
        )
        fresh = dict(_judged(units, book, differing))
        _append(
            folder.labels_path,
            ({"unit": name, "score": score, "slices": parts} for name, (score, parts) in fresh.items()),
        )
        book.scores.update(fresh)
        _write_counters(folder, settings.id, book)
    unknown = [name for name in given if name not in known and name not in book.labels]
    labelled = sum(all(record.request in book.labels for record in records) for records in units.values())
    tally = _tally(book)
    return LabelReport(
        given=len(given),
        taken=len(new),
        repeated=sum(name in book.labels for name in given) - len(new) - len(changed),
        changed=tuple(changed),
        unknown=len(unknown),
        unknown_requests=tuple(unknown[:_SHOWN]),
        unfit=tuple(unfit),
        judged=len(book.scores),
        newly_judged=len(fresh),
        waiting=max(0, len(differing) - len(book.scores)),
        unkept=sum(name not in units for name in differing),
        open=labelled - len(book.scores),
        better=tally.better,
        same=tally.same,
        worse=tally.worse,
    )


def read_book(path: Path) -> Book:
    """The journal; empty where there is none. A line that a death tore is passed over.

    Raises:
        InputError: A whole line is no entry of it.
    """
    book = Book()
    for number, line in enumerate(path.read_text().splitlines(keepends=True) if path.is_file() else (), 1):
        if not line.endswith("\n") or not line.strip():
            continue
        try:
            _enter(book, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            fix = "Restore it from a backup: counted labels must not be counted again"
            raise InputError(f"labels {path}", detail=f"line {number}: {error}", fix=fix) from error
    return book


def _enter(book: Book, entry: dict[str, object]) -> None:
    if "unit" in entry:
        parts = entry.get("slices")
        names = tuple(str(part) for part in parts) if isinstance(parts, list) else ()
        book.scores[str(entry["unit"])] = float(str(entry["score"])), names
    else:
        kind = "label" if "label" in entry else "score"
        book.labels[str(entry["request"])] = Label("label" if kind == "label" else "score", str(entry[kind]))


def _append(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    if text:
        append_lines(path, text)


def _units(kept: Iterable[Disagreement], *, is_request: bool) -> dict[str, list[Disagreement]]:
    """The kept disagreements by unit; where every request is a unit, each by itself."""
    units: dict[str, list[Disagreement]] = defaultdict(list)
    for record in kept:
        name = f"{record.node}/{record.unit}"
        units[f"{name}/{record.place}" if is_request else name].append(record)
    return units


def _named(differing: Iterable[Differing], *, is_request: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Complete units by the names that `_units` gives, with their slices."""
    seen: Counter[str] = Counter()
    for unit in differing:
        name = f"{unit.node}/{unit.unit}"
        yield f"{name}/{seen[name]}" if is_request else name, unit.slices
        seen[name] += 1


def _judged(
    units: Mapping[str, list[Disagreement]], book: Book, differing: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, tuple[float, tuple[str, ...]]]]:
    """Complete units whose disagreements are all labelled, and that were not judged before."""
    for name, slices in differing.items():
        records = units.get(name, [])
        if records and name not in book.scores and all(r.request in book.labels for r in records):
            scores = [_score(record, book.labels[record.request]) for record in records]
            yield name, (sum(scores) / len(scores), slices)


def _fits(record: Disagreement, label: Label) -> bool:
    if label.kind == "score":
        return True
    rows = {len(label.classes)}
    return {len(tops) for side in (record.baseline, record.candidate) for tops in [_tops(side)]} == rows


def _score(record: Disagreement, label: Label) -> float:
    """(candidate right) - (baseline right), the mean over the rows of a batch."""
    if label.kind == "score":
        return label.score
    rows = list(zip(_tops(record.baseline), _tops(record.candidate), label.classes, strict=True))
    return sum((second == right) - (first == right) for first, second, right in rows) / len(rows)


def _tops(answer: object) -> list[int]:
    """The classes of an answer as the router keeps them, [class, score] a row; none for another task's."""
    rows = answer if isinstance(answer, list) else []
    return [row[0] for row in rows if isinstance(row, list) and len(row) == 2 and isinstance(row[0], int)]


def _tally(book: Book) -> Tally:
    return sum((unit_tally(score) for score, _ in book.scores.values()), Tally())


def _write_counters(folder: ExperimentFolder, experiment: str, book: Book) -> None:
    """The judged units as the counters of a node of their own; the number of the state is theirs."""
    if not book.scores:
        return
    setup = folder.setup()
    node = f"{setup.node.lstrip('$')}.labels"
    slices: dict[str, Tally] = defaultdict(Tally)
    for score, parts in book.scores.values():
        for part in {WHOLE, *parts}:
            slices[part] += unit_tally(score)
    state = Counters(experiment, node, sequence=len(book.scores), slices=tuple(sorted(slices.items())))
    if setup.key is not None:
        state = sign(state, read_key(setup.key))
    write_counters(folder.counter_folder / f"{experiment}.{node}.json", CounterSet(experiment, (state,)))
