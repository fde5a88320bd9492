"""What the service knows of an experiment, as a file that is replaced as a whole.

Counters, contradictions and the ending stand in one file, so that a kill at any moment leaves what was known
before it or after it. What is read from the nodes again afterwards changes nothing: of each node the latest
state counts.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.errors import InputError
from jettison.core.files import read_bounded, write_bytes
from jettison.core.validation import problem_of
from jettison.experiment.counters import CounterSet
from jettison.experiment.verdict import CounterDocument, Verdict

FORMAT: Literal["jettison-verdict-service/1"] = "jettison-verdict-service/1"
LARGEST_STATE_BYTES = 256 << 20
"""Chosen: some ten thousand nodes, twice: as counters and in the verdict."""


class Kept(BaseModel):
    """One experiment.

    Args:
        format: The form of the file.
        experiment: Its id.
        counters: The latest state of each node.
        contradictions: States that cannot both be true, in words.
        ending: The verdict that ended it; None while it goes on.
        ended: When, in ISO 8601; "" while it goes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    format: Literal["jettison-verdict-service/1"] = FORMAT
    experiment: str
    counters: CounterDocument
    contradictions: tuple[str, ...] = ()
    ending: Verdict | None = None
    ended: str = ""


class Shelf:
    """The folder of the service's files; one service at a time.

    Args:
        folder: Its path; made where it is not there.

    Raises:
        InputError: Another service has it.
        OSError: It cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise InputError(
                f"state {folder}",
                detail="expected to be alone, found another verdict service with it",
                fix="Stop that one, or give a folder of its own",
            ) from error
        self._sweep()

    def read(self, experiment: str) -> Kept:
        """What is known; nothing where there is no file yet.

        Raises:
            InputError: The file is no state, or that of another experiment.
        """
        path = self._path(experiment)
        if not path.exists():
            return Kept(experiment=experiment, counters=CounterSet(experiment))
        what = f"state {path}"
        fix = (
            "Restore it, or move it away: nodes that can be reached are read again, "
            "what others had counted and the ending are lost"
        )
        content = read_bounded(path, what, most=LARGEST_STATE_BYTES, missing=fix, fix=fix)
        try:
            kept = Kept.model_validate_json(content)
        except ValidationError as error:
            raise InputError(what, detail=problem_of(error).detail, fix=fix) from error
        if not kept.experiment == kept.counters.experiment == experiment:
            detail = f"expected experiment {experiment}, found {kept.experiment}"
            raise InputError(what, detail=detail, fix=fix)
        return kept

    def write(self, kept: Kept) -> None:
        """Replace the experiment's file.

        Raises:
            OSError: The disk is full or the folder read-only; the old file stands.
        """
        write_bytes(self._path(kept.experiment), kept.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        """Let another service have it."""
        os.close(self._lock)

    def _path(self, experiment: str) -> Path:
        return self._folder / f"{experiment}.state.json"

    def _sweep(self) -> None:
        """Remove what a killed service had not renamed yet; the lock says that nobody writes now."""
        for stage in self._folder.glob(".*.state.json.*"):
            stage.unlink(missing_ok=True)
