"""Examples for an exporter, from samples of a model whose inputs are not known yet.

All samples are read once and checked, and two kinds of rows are kept: of the first shape, and of that which
differs from it in most axes. An axis in which samples differ has to stay open in the export.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jettison.core import dtypes
from jettison.core.artifacts import arrays_digest
from jettison.core.errors import SamplesError
from jettison.core.sample_audit import SampleAudit
from jettison.core.samples import Batch, Samples, read_source
from jettison.core.tensors import Arrays, TensorSpec

LARGEST_BATCH = 3
"""Rows kept of each shape: more than one, so that a batch is no single sample, and an odd number, which the
constants of models seldom are."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Examples:
    """Some rows of each of one or two shapes, and the axes beside the batch in which the samples differ."""

    source: str
    rows: tuple[Arrays, ...]
    varying: dict[str, tuple[int, ...]]

    @property
    def digest(self) -> str:
        """What an export depends on, in hexadecimal."""
        return arrays_digest({**_flat(self.rows), "varying": np.array(repr(sorted(self.varying.items())))})

    def save(self, path: Path) -> None:
        """Write the rows as an .npz file."""
        np.savez(path, **_flat(self.rows))


def load_rows(path: Path) -> tuple[Arrays, ...]:
    """The rows that `Examples.save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        found: dict[int, Arrays] = {}
        for key in stored.files:
            index, _, name = key.partition(".")
            found.setdefault(int(index), {})[name] = stored[key]
    return tuple(found[index] for index in sorted(found))


def examples_of(source: str) -> Examples:
    """Examples from a file of samples, a folder of shards or a function.

    Raises:
        SamplesError: No such source, no sample, batches of different names, types or ranks, NaN.
    """
    return _examples(source, _checked(source))


def examples_among(samples: Samples) -> Examples:
    """Examples from samples that have been checked."""
    return _examples(samples.source, samples.read())


def _examples(source: str, batches: Iterable[Batch]) -> Examples:
    first, *others = _rows_by_shape(batches).values()
    second = max(others, key=lambda rows: _differences(first, rows), default=None)
    varying = {name: _varying(name, [first, *others]) for name in first}
    return Examples(
        source=source,
        rows=(first,) if second is None else (first, second),
        varying={name: axes for name, axes in varying.items() if axes},
    )


def _rows_by_shape(batches: Iterable[Batch]) -> dict[Shapes, Arrays]:
    """Up to `LARGEST_BATCH` rows of each combination of shapes, in the order of their first appearance."""
    found: dict[Shapes, Arrays] = {}
    for batch in batches:
        shapes = tuple(sorted((name, array.shape[1:]) for name, array in batch.inputs.items()))
        held = found.get(shapes)
        if held is None:
            found[shapes] = {name: array[:LARGEST_BATCH] for name, array in batch.inputs.items()}
        elif len(next(iter(held.values()))) < LARGEST_BATCH:
            found[shapes] = {
                name: np.concatenate([held[name], array])[:LARGEST_BATCH]
                for name, array in batch.inputs.items()
            }
    return found


def _checked(source: str) -> Iterator[Batch]:
    """The batches, each checked against names, types and ranks of the first."""
    audit: SampleAudit | None = None
    for batch in read_source(source):
        if audit is None:
            audit = SampleAudit(source, [_open_spec(source, *item) for item in batch.inputs.items()])
        audit.add(batch.inputs, None)
        if len(batch):
            yield batch
    if audit is None or not audit.count:
        raise SamplesError(f"samples {source}", detail="it holds no sample", fix="Give at least one sample")


def _open_spec(source: str, name: str, array: np.ndarray[Any, np.dtype[Any]]) -> TensorSpec:
    row = dtypes.of_numpy(array.dtype)
    if row is None or array.dtype.kind not in "biuf":
        raise SamplesError(
            f"samples {source}",
            detail=f"{name!r} is expected as numbers, found {array.dtype}",
            fix="Give numbers, as the model's forward takes them",
        )
    return TensorSpec(name=name, dtype=row, shape=(None,) * array.ndim)


def _varying(name: str, rows: Sequence[Arrays]) -> tuple[int, ...]:
    shapes = [arrays[name].shape for arrays in rows]
    return tuple(axis for axis in range(1, len(shapes[0])) if len({shape[axis] for shape in shapes}) > 1)


def _differences(first: Arrays, other: Arrays) -> int:
    return sum(
        size != found
        for name, array in first.items()
        for size, found in zip(array.shape[1:], other[name].shape[1:], strict=True)
    )


def _flat(rows: Sequence[Arrays]) -> dict[str, Any]:
    return {f"{index}.{name}": array for index, arrays in enumerate(rows) for name, array in arrays.items()}
