"""A source as a clean float ONNX file, equal to what it was made from."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

import jettison
from jettison.core.errors import ExternalError, ModelError
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.clean import clean
from jettison.graph.model import open_model
from jettison.graph.save import save_model
from jettison.sources.doors import KERAS_SETTINGS, check_installed
from jettison.sources.equality import differences
from jettison.sources.examples import Examples
from jettison.sources.exchange import EXAMPLES_FILE, MODEL_FILE, TRIALS_FILE, ExportAnswer, ExportRequest
from jettison.sources.source import Source

_PROGRAM = "jettison.sources.child"
_TOLD_LINES = 3
"""Of the last words of a process that died, what an error quotes."""


def export_source(source: Source, examples: Examples, path: Path) -> tuple[str, ...]:
    """Write the source as ONNX to `path`; remarks for the report.

    The file is run beside the source, at two batch sizes and two sizes of every open axis, before it counts.

    Raises:
        ModelError: It cannot be loaded or exported, or its ONNX form answers otherwise.
        SamplesError: The samples are not its inputs.
        MissingError: What loads it is not installed.
        ExternalError: The process that exports it died.
    """
    check_installed(source.kind)
    with tempfile.TemporaryDirectory(prefix="jettison-export-") as name:
        folder = Path(name)
        examples.save(folder / EXAMPLES_FILE)
        answer = _asked(_request(source, folder, varying=examples.varying))
        write_clean(source, folder / MODEL_FILE, path)
        check_equal(source, path, trials_in(folder / TRIALS_FILE, answer.trials))
    return answer.notes


def write_clean(source: Source, exported: Path, path: Path) -> None:
    """Write what the exporter wrote as a clean model; errors name the source.

    Raises:
        ModelError: It cannot be read, or not be cleaned.
    """
    try:
        save_model(clean(open_model(exported)), path)
    except ModelError as error:
        raise ModelError(f"model {source}", detail=f"its ONNX form: {error.detail}", fix=error.fix) from error


def weights_digest(source: Source) -> str:
    """What identifies the weights of the module that the source's function gives: it may load them itself.

    Raises:
        ModelError: The function is not there, fails, or gives no module.
        MissingError: torch is not installed.
        ExternalError: The process that calls it died.
    """
    check_installed(source.kind)
    with tempfile.TemporaryDirectory(prefix="jettison-weights-") as name:
        return _asked(_request(source, Path(name), only_weights=True)).weights


def _request(
    source: Source,
    folder: Path,
    *,
    varying: Mapping[str, tuple[int, ...]] | None = None,
    only_weights: bool = False,
) -> ExportRequest:
    return ExportRequest(
        source=source.model_copy(update=source.located(Path.cwd())),
        varying=dict(varying or {}),
        folder=folder,
        search_path=tuple(str(Path(entry).absolute()) for entry in sys.path),
        working_folder=Path.cwd(),
        answer=folder / "answer.json",
        only_weights=only_weights,
    )


def _asked(request: ExportRequest) -> ExportAnswer:
    """What a process of its own answers; the problem that it tells is raised here."""
    request_path = request.folder / "request.json"
    request_path.write_text(request.model_dump_json(), encoding="utf-8")
    status, words = _run_child(request_path)
    if request.answer.is_file():
        answer = ExportAnswer.model_validate_json(request.answer.read_bytes())
        if answer.problem is not None:
            raise answer.problem.error()
        return answer
    lines = [line.strip() for line in words.splitlines() if line.strip()][-_TOLD_LINES:]
    raise ExternalError(
        f"exporting {request.source}",
        detail=f"its process ended with status {status}: {' / '.join(lines) or 'without a word'}",
        fix="A negative status is a signal, and -9 mostly means too little memory; export it to ONNX by hand "
        "and give that file as `path`",
    )


def _run_child(request: Path) -> tuple[int, str]:
    """Exit status and all that was printed; it starts where no file of the user's shadows a module."""
    root = str(Path(jettison.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([root, inherited] if inherited else [root])
    done = subprocess.run(
        [sys.executable, "-m", _PROGRAM, str(request)],
        cwd=request.parent,
        env={**os.environ, **KERAS_SETTINGS, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


def trials_in(path: Path, count: int) -> Iterator[tuple[Arrays, Arrays]]:
    """Inputs and the source's answers of each trial."""
    with np.load(path, allow_pickle=False) as stored:
        for index in range(count):
            given, found = (
                {key.removeprefix(start): stored[key] for key in stored.files if key.startswith(start)}
                for start in (f"{index}.in.", f"{index}.out.")
            )
            yield given, found


def check_equal(source: Source, path: Path, trials: Iterable[tuple[Arrays, Arrays]]) -> None:
    """Nothing, where the ONNX file gives the source's answers in every trial.

    Raises:
        ModelError: It fails, or an output differs; the message names the shapes, the output and by how much.
    """
    runner = OnnxRuntimeRunner(path, optimize=False)
    for given, expected in trials:
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in given.items())
        try:
            found = runner.run(given)
        except ModelError as error:
            raise _unequal(source, f"fails on {shapes}: {error.detail}") from error
        problem = next(differences(expected, found), None)
        if problem is not None:
            raise _unequal(source, f"answers otherwise than the source on {shapes}: {problem}")


def _unequal(source: Source, detail: str) -> ModelError:
    return ModelError(
        f"model {source}",
        detail=f"its ONNX form {detail}",
        fix="The exporter changed what it computes: look for state kept between calls, loops over an open "
        "axis and random numbers; try another release of torch, or export it by hand and give the file as "
        "`path`",
    )
