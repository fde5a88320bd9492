"""The baseline's answers to all samples, computed once and compared with every variant of a run.

They stay in memory up to a bound and go to an unnamed temporary file beyond it: 512 x 1000 class scores
are nothing, the masks of a segmentation model are gigabytes. The file is read with plain reads and not
mapped, so that its pages do not count as the process's memory.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from jettison.core.errors import ModelError, SamplesError
from jettison.core.progress import Progress
from jettison.core.runner import Runner
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.evaluate.answers import DEFAULT_BATCH_SIZE, Answers, answers_of
from jettison.evaluate.sqnr import is_float

MEMORY_BYTES = 256 << 20
"""Answers beyond that go to a file; chosen as a small share of the smallest edge build machine, 4 GiB."""


class Column(Protocol):
    """Rows of one output, written in order and read anywhere."""

    def write(self, rows: np.ndarray[Any, Any]) -> None:
        """Append rows."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows from `start` up to `stop`."""
        ...


@dataclass(frozen=True)
class Reference:
    """The baseline's outputs for `count` samples.

    `samples_sha256` tells which samples they answer.
    """

    count: int
    samples_sha256: str
    columns: dict[str, Column]

    def read(self, start: int, stop: int) -> Arrays:
        """The outputs for samples from `start` up to `stop`, by name."""
        return {name: column.read(start, stop) for name, column in self.columns.items()}


def reference_of(
    runner: Runner,
    samples: Samples,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    memory_bytes: int = MEMORY_BYTES,
    progress: Progress | None = None,
) -> Reference:
    """The baseline's answers to all samples; `progress` gets the samples done and their number.

    Raises:
        ModelError: An output has no row per sample, changes its shape, or holds NaN.
    """
    columns: dict[str, Column] = {}
    for answers in answers_of(runner, samples, batch_size=batch_size):
        if not columns:
            columns = _columns(answers.outputs, samples.count, memory_bytes)
        for name, rows in answers.outputs.items():
            _check_numbers(name, rows, answers.first)
            columns[name].write(rows)
        if progress is not None:
            progress(answers.first + len(answers), samples.count)
    return Reference(samples.count, samples.sha256, columns)


def check_same_samples(reference: Reference, samples: Samples) -> None:
    """Refuse a reference that answers other samples.

    Raises:
        SamplesError: It does.
    """
    if reference.samples_sha256 != samples.sha256:
        raise SamplesError(
            f"samples {samples.source}",
            detail="expected the samples that the baseline answered, found others",
            fix="Compute the reference on the same samples",
        )


def compared(answers: Answers, reference: Reference) -> Answers:
    """The answers together with the reference's to the same samples.

    Raises:
        ModelError: The variant lacks an output of the baseline, or gives it in another shape.
    """
    baseline = reference.read(answers.first, answers.first + len(answers))
    for name, expected in baseline.items():
        found = answers.outputs.get(name)
        if found is None or found.shape != expected.shape:
            shape = "no such output" if found is None else f"shape {found.shape}"
            raise ModelError(
                f"the variant's output {name!r}",
                detail=f"expected the baseline's shape {expected.shape}, found {shape}",
                fix="Compare variants of one model, with the same names and shapes of outputs",
            )
    outputs = {name: answers.outputs[name] for name in baseline}
    return Answers(outputs, answers.labels, baseline, answers.first)


class _MemoryColumn:
    def __init__(self, name: str, rows: np.ndarray[Any, Any], count: int) -> None:
        self._name = name
        self._rows = np.empty((count, *rows.shape[1:]), rows.dtype)
        self._done = 0

    def write(self, rows: np.ndarray[Any, Any]) -> None:
        _check_shape(self._name, self._rows.shape[1:], rows)
        self._rows[self._done : self._done + len(rows)] = rows
        self._done += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        view = self._rows[start:stop]
        view.flags.writeable = False
        return view


class _FileColumn:
    def __init__(self, name: str, rows: np.ndarray[Any, Any]) -> None:
        self._name = name
        self._shape, self._dtype = rows.shape[1:], rows.dtype
        self._row_bytes = rows[:1].nbytes
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives and goes with this column

    def write(self, rows: np.ndarray[Any, Any]) -> None:
        _check_shape(self._name, self._shape, rows)
        self._file.write(np.ascontiguousarray(rows).tobytes())

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        self._file.seek(start * self._row_bytes)
        content = self._file.read((stop - start) * self._row_bytes)
        return np.frombuffer(content, self._dtype).reshape(-1, *self._shape)


def _columns(first: Arrays, count: int, memory_bytes: int) -> dict[str, Column]:
    needed = sum(rows[:1].nbytes for rows in first.values()) * count
    in_memory = needed <= memory_bytes
    return {
        name: _MemoryColumn(name, rows, count)
        if in_memory or rows.dtype.hasobject
        else _FileColumn(name, rows)
        for name, rows in first.items()
    }


def _check_shape(name: str, shape: tuple[int, ...], rows: np.ndarray[Any, Any]) -> None:
    if rows.shape[1:] != shape:
        raise ModelError(
            f"output {name!r}",
            detail=f"expected rows of shape {shape} for all samples, found {rows.shape[1:]}",
            fix="Export the model so that its outputs have one shape for all samples",
        )


def _check_numbers(name: str, rows: np.ndarray[Any, Any], first: int) -> None:
    if not is_float(rows):
        return
    bad = np.flatnonzero(np.isnan(rows.reshape(len(rows), -1).astype(np.float32)).any(axis=1))
    if bad.size:
        raise ModelError(
            "the baseline",
            detail=f"expected numbers in its output {name!r}, found NaN for sample {first + int(bad[0])}",
            fix="Repair the model or take that sample out; no variant can be compared with NaN",
        )
