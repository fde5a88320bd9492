"""Inputs to try a model on: two batch sizes, and two sizes of every axis that stays open.

The export is made from the first trial, so what it wrongly takes for fixed shows in the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jettison.core.errors import ModelError, SamplesError
from jettison.core.tensors import Arrays
from jettison.sources.examples import LARGEST_BATCH

BATCHES = (LARGEST_BATCH, 1)
Axes = Mapping[str, Sequence[int]]
"""Axes beside the batch, by input."""


def open_axes(arrays: Arrays, *, varying: Axes, named: Axes) -> dict[str, tuple[int, ...]]:
    """For each input the axes beside the batch that stay open: those in which samples differ, and named ones.

    Raises:
        ModelError: A named input or axis is not there.
    """
    for name, axes in named.items():
        if name not in arrays or any(axis >= arrays[name].ndim for axis in axes):
            there = ", ".join(f"{key} with axes 0 to {array.ndim - 1}" for key, array in arrays.items())
            raise ModelError(
                f"dynamic axes {sorted(axes)} of {name!r}",
                detail=f"expected axes of {there}",
                fix="Correct `dynamic`; axis 0 is the batch, which is always open",
            )
    return {name: tuple(sorted({*varying.get(name, ()), *named.get(name, ())})) for name in arrays}


def ordered(rows: Sequence[Arrays], axes: Axes) -> list[Arrays]:
    """Rows of two shapes, in all open axes more than one element in the first, which an export is made from.

    Where all rows are of one shape, the second is the first cut in half along its open axes.

    Raises:
        SamplesError: Every sample has a single element along an open axis.
    """
    found = sorted(rows, key=lambda arrays: _has_single(arrays, axes))
    if _has_single(found[0], axes):
        raise SamplesError(
            "samples",
            detail=f"expected more than one element along the open axes {dict(axes)}, found one",
            fix="Give samples of other sizes too: a tracer takes an axis of one element for fixed",
        )
    if len(found) == 1 and any(axes.values()):
        found.append(_halved(found[0], axes))
    return found


def trials_of(rows: Sequence[Arrays], batches: Sequence[int] = BATCHES) -> Iterator[Arrays]:
    """Each kind of rows in batches of each size; where there are too few, rows are repeated."""
    for arrays in rows:
        for size in batches:
            yield {name: array[np.arange(size) % len(array)] for name, array in arrays.items()}


def _has_single(arrays: Arrays, axes: Axes) -> bool:
    return any(arrays[name].shape[axis] < 2 for name, found in axes.items() for axis in found)


def _halved(arrays: Arrays, axes: Axes) -> Arrays:
    halved = {}
    for name, array in arrays.items():
        cut = tuple(
            slice(0, max(1, size // 2) if axis in axes.get(name, ()) else size)
            for axis, size in enumerate(array.shape)
        )
        halved[name] = array[cut]
    return halved
