"""The batch size that a model demands, and batches made to fit it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from jettison.core.errors import ModelError
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays, TensorSpec


def fixed_batch_size(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch size to which the inputs are fixed, or None where they leave it open.

    An input without dimensions holds for a whole batch, so its samples are run one by one.

    Raises:
        ModelError: Inputs are fixed to different batch sizes.
    """
    sizes = {spec.name: spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], int)}
    if len(set(sizes.values())) > 1:
        raise ModelError(
            "the model's inputs",
            detail=f"expected one batch size on the first dimension of all, found {sizes}",
            fix="Export the model with the batch as the first dimension of every input",
        )
    found = next(iter(sizes.values()), None)
    if found is None and any(not spec.shape for spec in inputs):
        return 1
    return found if isinstance(found, int) else None


def one_batch(samples: Samples, inputs: Sequence[TensorSpec]) -> Arrays:
    """The first samples as one batch that the inputs take: of their fixed size, else a single sample.

    Raises:
        ModelError: Inputs are fixed to different batch sizes.
    """
    size = fixed_batch_size(inputs) or 1
    return padded(next(samples.batches(size)).inputs, size)


def padded(arrays: Arrays, size: int) -> Arrays:
    """The arrays with their last row repeated until there are `size` rows."""
    return {
        name: array
        if len(array) >= size
        else np.concatenate([array, np.repeat(array[-1:], size - len(array), 0)])
        for name, array in arrays.items()
    }


def fitting_batches(
    samples: Samples,
    inputs: Sequence[TensorSpec],
    *,
    size: int = 1,
    fill_last: bool = True,
    progress: Progress | None = None,
) -> Iterator[Arrays]:
    """The samples' inputs in batches of the size that the inputs are fixed to, else of `size`.

    Args:
        samples: The samples.
        inputs: Specifications of the model's inputs.
        size: Of batches where the inputs leave it open; the last one may be shorter there.
        fill_last: Fill up a last batch that is too short for a fixed size; else leave it out, so that no
            sample counts twice. Where it is the only one, its samples fill whole batches, each equally often.
        progress: Called with samples done and their number.

    Raises:
        ModelError: Inputs are fixed to different batch sizes.
    """
    fixed, done = fixed_batch_size(inputs), 0
    for batch in samples.batches(fixed or size):
        if fixed is None:
            yield batch.inputs
        elif fill_last or len(batch) == fixed:
            yield padded(batch.inputs, fixed)
        elif not done:
            yield from _evenly(batch.inputs, len(batch), fixed)
        done += len(batch)
        if progress is not None:
            progress(done, samples.count)


def _evenly(arrays: Arrays, count: int, size: int) -> Iterator[Arrays]:
    """Batches of `size` rows in which each of `count` samples stands equally often."""
    for start in range(0, math.lcm(count, size), size):
        rows = np.arange(start, start + size) % count
        yield {name: array[rows] for name, array in arrays.items()}
