"""What a published version is made of and where it comes from, in `manifest.json` in its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.artifacts import Lineage
from jettison.core.engine import EngineRecord
from jettison.core.errors import RepositoryError
from jettison.core.files import sha256_of
from jettison.core.tensors import Arrays
from jettison.triton.config import ModelConfig

MANIFEST_NAME = "manifest.json"

Signature = tuple[str, ...]
"""What a client sees of a model: one line for each input and output, sorted."""


class Record(BaseModel):
    """A value that is written to disk: frozen; fields that a newer Jettison added are passed over."""

    model_config = ConfigDict(frozen=True)


class FileRecord(Record):
    """One file of the version folder."""

    name: str
    sha256: str
    size_bytes: int


class OutputPrint(Record):
    """One output of the golden inference: exact by `sha256`, close by `mean` and `largest`.

    Both are of the finite values: masked logits are infinite, and JSON has no infinity.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str
    mean: float
    largest: float


class Golden(Record):
    """The fingerprint of one inference, by which a load is proven.

    `seed` and `batch` make the inputs again; `outputs` is what the model gave before it was published.
    """

    seed: int
    batch: int
    outputs: tuple[OutputPrint, ...]


class Evidence(Record):
    """Why this version was found good enough, in short; the report has the rest."""

    target: str
    metric: str | None = None
    score: float | None = None
    score_delta: float | None = None
    score_delta_low: float | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    reasons: tuple[str, ...] = ()


class Manifest(Record):
    """The identity of a published version; signed ones have the digest of their configuration too.

    `engines` are its plans by their file names.
    """

    model: str
    version: int
    created: str
    jettison: str
    signature: Signature
    files: tuple[FileRecord, ...]
    config_sha256: str | None = None
    lineage: Lineage | None = None
    golden: Golden | None = None
    evidence: Evidence | None = None
    engines: dict[str, EngineRecord] | None = None

    def changed_files(self, folder: Path) -> list[str]:
        """Names of recorded files that are missing from the folder, or that someone replaced in place."""
        return [
            record.name
            for record in self.files
            if not (folder / record.name).is_file() or sha256_of(folder / record.name) != record.sha256
        ]


def signature_of(config: ModelConfig) -> Signature:
    """The lines that must not change between versions of one name: side, name, type, whole shape."""
    inputs = [f"input {t.name} {t.data_type} {_shape(config.wire_shape(t))}" for t in config.input]
    outputs = [f"output {t.name} {t.data_type} {_shape(config.wire_shape(t))}" for t in config.output]
    return tuple(sorted([*inputs, *outputs]))


def record_of(path: Path) -> FileRecord:
    """Name, digest and size of a file."""
    return FileRecord(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a version folder, or None where there is none.

    Raises:
        RepositoryError: The file is torn or of another kind.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RepositoryError(
            f"manifest {path}",
            detail=f"it is no manifest of Jettison: {error.error_count()} fields do not fit",
            fix="Restore it, or remove that version and publish again",
        ) from error


def output_print(name: str, array: np.ndarray[Any, Any]) -> OutputPrint:
    """The print of one output; text has no mean, and counts by its digest alone."""
    numbers = array.astype(np.float64) if array.dtype.kind in "biuf" else np.zeros(1)
    finite = numbers[np.isfinite(numbers)]
    content = array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode()
    return OutputPrint(
        name=name,
        shape=array.shape,
        sha256=hashlib.sha256(content).hexdigest(),
        mean=float(finite.mean()) if finite.size else 0.0,
        largest=float(np.abs(finite).max(initial=0.0)),
    )


def golden_of(outputs: Arrays, *, seed: int, batch: int) -> Golden:
    """The fingerprint of these outputs."""
    return Golden(
        seed=seed, batch=batch, outputs=tuple(output_print(k, v) for k, v in sorted(outputs.items()))
    )


def golden_differences(golden: Golden, outputs: Arrays, *, tolerance: float = 0.01) -> list[str]:
    """How the outputs differ from the fingerprint; empty if they match.

    Equal bytes match. Otherwise mean and largest value may differ by `tolerance` of the largest value,
    since kernels of other processors round otherwise; that is wide enough for INT8 and far below what a
    wrong file gives.
    """
    found = golden_of(outputs, seed=golden.seed, batch=golden.batch)
    if [o.name for o in found.outputs] != [o.name for o in golden.outputs]:
        return [
            f"expected outputs {[o.name for o in golden.outputs]}, found {[o.name for o in found.outputs]}"
        ]
    pairs: Sequence[tuple[OutputPrint, OutputPrint]] = list(zip(golden.outputs, found.outputs, strict=True))
    return [
        problem for expected, got in pairs if (problem := _difference(expected, got, tolerance)) is not None
    ]


def _difference(expected: OutputPrint, found: OutputPrint, tolerance: float) -> str | None:
    if expected.shape != found.shape:
        return f"output {expected.name!r}: expected shape {expected.shape}, found {found.shape}"
    allowed = tolerance * max(expected.largest, 1e-6)
    close = abs(expected.mean - found.mean) <= allowed and abs(expected.largest - found.largest) <= allowed
    is_text = expected.largest == found.largest == 0
    if expected.sha256 == found.sha256 or (close and not is_text):
        return None
    return (
        f"output {expected.name!r}: expected mean {expected.mean:.6g} and largest {expected.largest:.6g}, "
        f"found {found.mean:.6g} and {found.largest:.6g}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape)
