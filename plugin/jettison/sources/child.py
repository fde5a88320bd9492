"""The program that runs the frameworks: python -m jettison.sources.child REQUEST.

It is a process of its own, since torch stays in memory, its threads would falsify latencies, Keras reads its
backend from the environment once, and code of the user may print or exit.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.core.errors import JettisonError, ModelError
from jettison.core.tensors import Arrays
from jettison.graph.save import save_model
from jettison.sources.doors import load_torch
from jettison.sources.equality import differences
from jettison.sources.examples import load_rows
from jettison.sources.exchange import (
    EXAMPLES_FILE,
    MODEL_FILE,
    TRIALS_FILE,
    ExportAnswer,
    ExportRequest,
    problem_from,
)
from jettison.sources.source import Source
from jettison.sources.subject import Subject, answers_of
from jettison.sources.subjects import subject_of
from jettison.sources.torch_module import open_module
from jettison.sources.tracing import exported_graph
from jettison.sources.trials import BATCHES, open_axes, ordered, trials_of
from jettison.sources.weights import module_digest

_SEED = 0


def main() -> None:
    """Answer the request whose path is the only argument."""
    request = ExportRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    sys.path[:] = request.search_path
    os.chdir(request.working_folder)
    try:
        _seed()
        answer = _weighed(request.source) if request.only_weights else export(request)
    except JettisonError as error:
        answer = ExportAnswer(problem=problem_from(error))
    request.answer.write_text(answer.model_dump_json(), encoding="utf-8")


def _seed() -> None:
    """Let a function that draws its weights draw the same in each process."""
    random.seed(_SEED)
    np.random.seed(_SEED)
    load_torch().manual_seed(_SEED)


def _weighed(source: Source) -> ExportAnswer:
    """The digest of the weights of the module that a function gives."""
    return ExportAnswer(weights=module_digest(open_module(source.torch or "", source.state)))


def export(request: ExportRequest) -> ExportAnswer:
    """Write the model as ONNX, and the trials with the source's own answers beside it.

    Raises:
        JettisonError: What the modules below raise about the model, the samples or this machine.
    """
    rows, source = load_rows(request.folder / EXAMPLES_FILE), request.source
    subject = subject_of(source, rows[0].keys())
    axes = _axes(subject, rows[0], request)
    tried, batches = ordered(rows, axes, takes=lambda found: _is_taken(subject, found)), _batches(subject)
    trials = list(trials_of(tried, batches))
    if subject.program is not None and len(rows) == 1:
        trials = _taken(subject, trials)
    answers = _answers(subject, trials, source.outputs, given=len(rows) * len(batches))
    model, bounds = exported_graph(
        subject, trials[0], axes=axes, names=source.dynamic, outputs=tuple(answers[0])
    )
    _save(model, request.folder / MODEL_FILE, subject)
    arrays: dict[str, Any] = {}
    for index, (given, found) in enumerate(zip(trials, answers, strict=False)):
        arrays.update({f"{index}.in.{name}": array for name, array in given.items()})
        arrays.update({f"{index}.out.{name}": array for name, array in found.items()})
    np.savez(request.folder / TRIALS_FILE, **arrays)
    return ExportAnswer(
        trials=len(answers), notes=(*subject.notes, *bounds, *_closed(subject, trials[0], axes))
    )


def _closed(subject: Subject, arrays: Arrays, axes: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """That an axis which the model calls open is fixed in its ONNX form, by samples of one size."""
    for name, declared in subject.declared_open.items():
        for axis in sorted({*declared} - {*axes[name]}):
            yield (
                f"axis {axis} of {name!r}, open in the source, is fixed at {arrays[name].shape[axis]}, its "
                "size in all samples; to keep it open, give samples of other sizes or name it under `dynamic`"
            )


def _save(model: ir.Model, path: Path, subject: Subject) -> None:
    try:
        save_model(model, path)
    except ModelError as error:
        raise ModelError(
            subject.what,
            detail=f"the exporter wrote no valid ONNX: {error.detail}",
            fix="Run: pip install -U torch onnxscript",
        ) from error


def _batches(subject: Subject) -> tuple[int, ...]:
    """Two batch sizes, or the one that an exported program takes."""
    fixed = {sizes[0] for sizes in subject.fixed.values() if 0 in sizes}
    return tuple(fixed)[:1] or BATCHES


def _axes(subject: Subject, arrays: Arrays, request: ExportRequest) -> dict[str, tuple[int, ...]]:
    """The axes beside the batch that stay open, which an exported program has decided itself."""
    if subject.program is None:
        named = {name: tuple(axes) for name, axes in request.source.dynamic.items()}
        return open_axes(arrays, varying=request.varying, named=named)
    return {
        name: tuple(axis for axis in range(1, arrays[name].ndim) if axis not in fixed)
        for name, fixed in subject.fixed.items()
    }


def _taken(subject: Subject, trials: list[Arrays]) -> list[Arrays]:
    """The trials without those of made-up sizes that a program does not take: its open axes have bounds."""
    return [trial for index, trial in enumerate(trials) if index == 0 or _is_taken(subject, trial)]


def _is_taken(subject: Subject, trial: Arrays) -> bool:
    try:
        subject.call(trial)
    except ModelError:
        return False
    return True


def _answers(subject: Subject, trials: list[Arrays], names: tuple[str, ...], *, given: int) -> list[Arrays]:
    """What the source answers to each trial, known to answer equal inputs equally.

    So many trials first are of sizes that were given, the others of one that was made up.
    """
    answers = [
        answers_of(subject.call(trial, is_made_up=index >= given), subject, names=names)
        for index, trial in enumerate(trials)
    ]
    again = answers_of(subject.call(trials[0]), subject, names=names)
    changed = next(differences(answers[0], again), None)
    if changed is not None:
        raise ModelError(
            subject.what,
            detail=f"it gives different answers to equal inputs: {changed}",
            fix="Switch off dropout, noise and everything else that is random or counts its calls",
        )
    return answers


if __name__ == "__main__":
    main()
