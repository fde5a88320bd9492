"""Which weights are removed: by a threshold, to a sparsity, or two of each four. Plain arrays in, masks out.

A mask is True where a weight is removed. What is zero already counts among the removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jettison.graph.two_to_four import GROUP, LEAST_ZEROS
from jettison.graph.zeros import Mask

Floats = np.ndarray[Any, np.dtype[np.float32]]

Criterion = Literal["magnitude", "taylor"]
"""By what weights are judged: the less, the sooner one is removed. `taylor.py` says what its kind needs."""


def below(weight: Floats, threshold: float) -> Mask:
    """Where |w| is below the threshold, or 0 in any case."""
    magnitudes = np.abs(weight)
    return np.asarray((magnitudes < threshold) | (magnitudes == 0))


def deviations_of(weight: Floats, deviations: float) -> float:
    """The threshold of one layer: so many standard deviations of its weights."""
    return deviations * float(np.std(weight, dtype=np.float64))


def smallest(scores: Sequence[Floats], sparsity: float) -> list[Mask]:
    """Where the smallest scores of all arrays together lie: exactly round(sparsity * count) of them.

    Of equal scores the earlier ones are taken. Where more scores are 0 than that, all of these are taken.

    Args:
        scores: float32, 0 or more, of any shapes.
        sparsity: The share, 0 to 1.
    """
    flat = np.concatenate([part.reshape(-1) for part in scores]) if scores else np.zeros(0, np.float32)
    count = max(round(sparsity * flat.size), int(np.count_nonzero(flat == 0)))
    if not count:
        return [np.zeros(part.shape, np.bool_) for part in scores]
    edge = np.partition(flat, count - 1)[count - 1]
    mask = flat < edge
    missing = count - int(np.count_nonzero(mask))
    mask[np.flatnonzero(flat == edge)[:missing]] = True
    ends = np.cumsum([part.size for part in scores])[:-1]
    return [piece.reshape(part.shape) for piece, part in zip(np.split(mask, ends), scores, strict=True)]


def two_of_four(scores: Floats, axis: int) -> Mask:
    """Where the two smallest of each four consecutive scores along the axis lie: of equal ones the first two.

    Args:
        scores: float32, 0 or more; the axis has a multiple of four.
        axis: Where input channels lie.
    """
    moved = np.moveaxis(scores, axis, -1)
    ranks = np.argsort(moved.reshape(-1, GROUP), axis=1, kind="stable")
    mask = np.zeros(ranks.shape, np.bool_)
    np.put_along_axis(mask, ranks[:, :LEAST_ZEROS], np.True_, axis=1)
    found = np.moveaxis(mask.reshape(moved.shape), -1, axis)
    return np.asarray(found | (scores == 0))
