"""Which experiments have begun and ended: so that nobody begins again until chance is kind.

Each new experiment on the same two models and the same data has another chance of alpha to promote a bad
candidate, also one that is given up half-way because it went badly. So a second one is refused. Someone who
has a reason gives it, and it stays in the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from jettison.core.errors import InputError
from jettison.core.files import write_bytes
from jettison.core.locks import locked
from jettison.core.validation import problem_of
from jettison.experiment.settings import Settings
from jettison.experiment.verdict import Decision

Ending = Literal["promote", "rollback", "exhausted", "invalid", "withdrawn"]
"""A verdict that ends an experiment, or that somebody gave it up."""

_LUCK = ("rollback", "exhausted", "withdrawn")
"""Endings after which one might hope for better luck. Not `invalid`: that one has shown nothing, and is to be
done again; its counts do not go into the next one."""


class Entry(BaseModel):
    """One experiment.

    Args:
        experiment: Its id.
        name: What people call it.
        baseline: SHA-256 of the one model.
        candidate: SHA-256 of the other.
        data_source: Where the units come from.
        started: When, in ISO 8601.
        ended: When, or None while it runs.
        ending: How, or None while it runs.
        because: Why it was allowed although it repeats another one; "" where it repeats none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    name: str
    baseline: str
    candidate: str
    data_source: str
    started: str
    ended: str | None = None
    ending: Ending | None = None
    because: str = ""

    @property
    def state(self) -> str:
        """How it stands, in words."""
        return f"ended with {self.ending} on {self.ended}" if self.ending else f"runs since {self.started}"


_ENTRIES = TypeAdapter(tuple[Entry, ...])


def read_registry(path: Path) -> tuple[Entry, ...]:
    """All experiments, the oldest first; none where there is no file yet.

    Raises:
        InputError: The file is no registry.
    """
    if not path.exists():
        return ()
    try:
        return _ENTRIES.validate_json(path.read_bytes())
    except ValidationError as error:
        fix = "Restore it from a backup: without it, experiments can be repeated until they succeed"
        raise InputError(f"registry {path}", detail=problem_of(error).detail, fix=fix) from error


def begin(path: Path, settings: Settings, *, now: str, because: str = "") -> Entry:
    """Enter the experiment; one that runs already is handed back as it is.

    Args:
        path: The registry; made where it is not there.
        settings: The experiment's.
        now: The time in ISO 8601.
        because: Why it shall begin although the same models were compared on the same data before.

    Raises:
        InputError: The same experiment has ended; another one on the same models and data runs, or ended
            otherwise than by a promotion or as invalid, and there is no reason to repeat it.
    """
    with locked(path):
        entries = read_registry(path)
        for entry in entries:
            if entry.experiment == settings.id and entry.ending is None:
                return entry
        refused = next((entry for entry in entries if _is_repeated(entry, settings)), None)
        if refused is not None and not because.strip():
            raise _refusal(settings, refused)
        entry = _entry(settings, now, because if refused is not None else "")
        _write(path, (*entries, entry))
    return entry


def end(path: Path, experiment: str, ending: Ending, *, now: str) -> Entry:
    """Enter how the running experiment ended.

    Raises:
        InputError: No such experiment runs.
    """
    with locked(path):
        entries = read_registry(path)
        running = [entry for entry in entries if entry.experiment == experiment and entry.ending is None]
        if not running:
            fix = "Begin it first; a verdict that has ended an experiment stands"
            raise InputError(f"experiment {experiment}", detail="expected one that runs, found none", fix=fix)
        ended = running[0].model_copy(update={"ended": now, "ending": ending})
        _write(path, tuple(ended if entry is running[0] else entry for entry in entries))
    return ended


def is_ending(decision: Decision) -> bool:
    """Whether an experiment ends with that decision."""
    return decision != "continue"


def _entry(settings: Settings, now: str, because: str) -> Entry:
    return Entry(
        experiment=settings.id,
        name=settings.name,
        baseline=settings.baseline,
        candidate=settings.candidate,
        data_source=settings.data_source,
        started=now,
        because=because.strip(),
    )


def _is_repeated(entry: Entry, settings: Settings) -> bool:
    """Whether the experiment would be another draw of the same lot."""
    if entry.experiment == settings.id:
        return entry.ending != "invalid"
    same = (entry.baseline, entry.candidate, entry.data_source)
    is_same = same == (settings.baseline, settings.candidate, settings.data_source)
    return is_same and not settings.is_aa and (entry.ending is None or entry.ending in _LUCK)


def _refusal(settings: Settings, entry: Entry) -> InputError:
    if entry.experiment == settings.id:
        detail = f"expected one that has not ended, found that it {entry.state}"
        fix = "Its verdict stands. Bring another candidate, or give a reason to repeat it, which is kept"
        return InputError(f"experiment {settings.id}", detail=detail, fix=fix)
    return InputError(
        f"experiment {settings.id}",
        detail=f"the same models on the same data are in experiment {entry.experiment}, which {entry.state}, "
        "under other settings",
        fix="Go on with that one, bring another candidate, or give a reason to repeat it, which is kept",
    )


def _write(path: Path, entries: tuple[Entry, ...]) -> None:
    document = [entry.model_dump(exclude_none=True) for entry in entries]
    write_bytes(path, json.dumps(document, indent=1).encode() + b"\n")
