"""What the process that runs the frameworks is asked for, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import JettisonError, MissingError, ModelError, SamplesError
from jettison.sources.source import Source

EXAMPLES_FILE = "examples.npz"
"""Rows of samples, as `examples.py` writes them."""
MODEL_FILE = "exported.onnx"
TRIALS_FILE = "trials.npz"
"""What the source was run on and what it answered: arrays `<trial>.in.<input>`, `<trial>.out.<output>`."""

_CLASSES = {"model": ModelError, "samples": SamplesError, "missing": MissingError}


class ExportRequest(BaseModel):
    """One model to be exported.

    Args:
        source: The model; paths are absolute.
        varying: Axes beside the batch in which the samples differ, by input.
        folder: Where the examples lie and the results go.
        search_path: Where modules are found, as in the process that asks.
        working_folder: Where the code of the user runs.
        answer: Where the answer goes.
        only_weights: Whether only the digest of its weights is asked for.
    """

    model_config = ConfigDict(frozen=True)

    source: Source
    varying: dict[str, tuple[int, ...]]
    folder: Path
    search_path: tuple[str, ...]
    working_folder: Path
    answer: Path
    only_weights: bool = False


class Problem(BaseModel):
    """An error in its three parts, and which class of the tree it is."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["model", "samples", "missing"]
    what: str
    detail: str
    fix: str

    def error(self) -> JettisonError:
        """The error, to be raised by whoever asked."""
        return _CLASSES[self.kind](self.what, detail=self.detail, fix=self.fix)


class ExportAnswer(BaseModel):
    """What became of it: a problem, or how many trials were made and remarks for the report.

    `weights` is the digest of its weights, where that alone was asked for.
    """

    model_config = ConfigDict(frozen=True)

    problem: Problem | None = None
    trials: int = 0
    notes: tuple[str, ...] = ()
    weights: str = ""


def problem_from(error: JettisonError) -> Problem:
    """The error as a value that crosses the border between processes."""
    kind = next((name for name, known in _CLASSES.items() if isinstance(error, known)), "model")
    return Problem.model_validate(
        {"kind": kind, "what": error.what, "detail": error.detail, "fix": error.fix}
    )
