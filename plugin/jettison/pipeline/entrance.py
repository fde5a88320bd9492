"""The entrance: a source in any form becomes an ONNX file, once for equal code, weights and examples.

A function may load weights itself, from files that nobody else knows of. So the module that it makes is asked
for its weights each time, unless the recipe gives them as `state`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from jettison.core.artifacts import Lineage, lineage_of
from jettison.core.code import code_digest
from jettison.core.errors import ModelError
from jettison.core.files import sha256_of
from jettison.pipeline.steps import MODEL_FILE, Steps
from jettison.sources.doors import check_installed
from jettison.sources.examples import Examples, examples_of
from jettison.sources.export import export_source, weights_digest
from jettison.sources.source import Source

_LIBRARIES = ("torch", "keras", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
_NOTES_FILE = "notes.json"


@dataclass(frozen=True)
class Entered:
    """The model as an ONNX file, and remarks about how it became one."""

    path: Path
    notes: tuple[str, ...] = ()


def enter(source: Source, samples: str, steps: Steps) -> Entered:
    """The source's own file where it is ONNX, else the step that exports it with examples of those samples.

    Raises:
        ModelError: It cannot be loaded or exported, or its ONNX form answers otherwise.
        SamplesError: The samples are not its inputs.
        MissingError: What loads it is not installed; the message names the extra.
        ExternalError: The process that exports it died.
    """
    if source.path is not None:
        return Entered(source.path)
    check_installed(source.kind)
    examples = examples_of(samples)
    report = steps.reporter(f"exporting {source}")

    def build(stage: Path) -> None:
        report(0, 1)
        notes = export_source(source, examples, stage / MODEL_FILE)
        (stage / _NOTES_FILE).write_text(json.dumps(notes))
        report(1, 1)

    folder = steps.store.once(_lineage(source, examples), build)
    return Entered(folder / MODEL_FILE, tuple(json.loads((folder / _NOTES_FILE).read_text())))


def _lineage(source: Source, examples: Examples) -> Lineage:
    """Who made the ONNX file from what: code and weights by their content, installed packages by version."""
    settings = source.model_dump_json(include={"torch", "dynamic", "outputs"})
    code = code_digest(source.torch) if source.torch else ""
    package = [re.split("[.:]", source.torch)[0]] if source.torch else []
    files = (file for file in (source.file, source.state) if file is not None)
    loaded = weights_digest(source) if source.torch and source.state is None else ""
    return lineage_of(
        "export",
        f"{source.kind} {settings} {code} {loaded}".rstrip(),
        parents=(*(_sha256(source, file) for file in files), examples.digest),
        libraries=(*_LIBRARIES, *package),
    )


def _sha256(source: Source, file: Path) -> str:
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no such file"
        what = f"model {source}" if file == source.file else f"state dict {file}"
        raise ModelError(what, detail=f"expected a file, found {found}", fix="Correct its path")
    return sha256_of(file)
