"""Inputs to try a model on: two batch sizes, and two sizes of every axis that stays open.

The export is made from the first trial, so what it wrongly takes for fixed shows in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from jettison.core.errors import ModelError, SamplesError
from jettison.core.tensors import Arrays
from jettison.sources.examples import LARGEST_BATCH

BATCHES = (LARGEST_BATCH, 1)
_SHARES = (Fraction(1, 2), Fraction(2, 3), Fraction(3, 4), Fraction(1, 3))
"""Sizes to try where samples have one only. A network that halves four times takes 32 of 48, and no 24."""
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


def ordered(
    rows: Sequence[Arrays], axes: Axes, *, takes: Callable[[Arrays], bool] = lambda _: True
) -> list[Arrays]:
    """Rows of two shapes, in all open axes more than one element in the first, which an export is made from.

    Where all rows are of one shape, the second is the first cut along its open axes: in half, or to another
    share where only that one is taken.

    Args:
        rows: Rows of one or two shapes.
        axes: The open axes.
        takes: Whether the model takes rows of a size that no sample has.

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
        cuts = [_cut(found[0], axes, share) for share in _SHARES]
        found.append(next((cut for cut in cuts if takes(cut)), cuts[0]))
    return found


def trials_of(rows: Sequence[Arrays], batches: Sequence[int] = BATCHES) -> Iterator[Arrays]:
    """Each kind of rows in batches of each size; where there are too few, rows are repeated."""
    for arrays in rows:
        for size in batches:
            yield {name: array[np.arange(size) % len(array)] for name, array in arrays.items()}


def _has_single(arrays: Arrays, axes: Axes) -> bool:
    return any(arrays[name].shape[axis] < 2 for name, found in axes.items() for axis in found)


def _cut(arrays: Arrays, axes: Axes, share: Fraction) -> Arrays:
    """The first so large share along the open axes."""
    found = {}
    for name, array in arrays.items():
        cut = tuple(
            slice(0, max(1, int(size * share)) if axis in axes.get(name, ()) else size)
            for axis, size in enumerate(array.shape)
        )
        found[name] = array[cut]
    return found
