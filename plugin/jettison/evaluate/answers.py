"""Answers: what a model says to samples, batch by batch, whatever batch size the model is fixed to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jettison.core.batching import fixed_batch_size, padded
from jettison.core.errors import ModelError
from jettison.core.runner import Runner, mixes_samples
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays, TensorSpec

DEFAULT_BATCH_SIZE = 4
"""As searches take: EfficientNet-Lite0 took 9.2 ms a sample on two busy cores where it took 10.3 in batches
of 8, bit for bit the same, and half of their memory; scored in batches of 32 it took 0.8 GB."""


@dataclass(frozen=True)
class Answers:
    """What a model said to some samples, with all that a metric may compare it with.

    Args:
        outputs: By output name, one row a sample.
        labels: One row a sample, or None.
        baseline: The baseline's outputs for the same samples, or None.
        first: Number of the first of these samples in the whole set, for error messages.
    """

    outputs: Arrays
    labels: np.ndarray[Any, Any] | None = None
    baseline: Arrays | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.outputs.values())))


def check_rows(outputs: Sequence[TensorSpec]) -> None:
    """Nothing, where each output can have a row for each sample, as far as its specification tells.

    Raises:
        ModelError: One has no dimensions.
    """
    for spec in outputs:
        if not spec.shape:
            raise _without_rows(
                spec.name, "one row for each sample, found a single number for the whole batch"
            )


def answers_of(
    runner: Runner, samples: Samples, *, batch_size: int = DEFAULT_BATCH_SIZE
) -> Iterator[Answers]:
    """The model's answers to all samples in order.

    A model with a fixed first dimension is run at that size: its last batch is filled up with
    repetitions of its last sample, and the answers to those are cut off. A model in which the samples of a
    batch change each other's answers is asked for one at a time, so that a score is the sample's own.

    Raises:
        ModelError: Inputs are fixed to different batch sizes, or an output has no row per sample.
    """
    fixed = fixed_batch_size(runner.inputs)
    first = 0
    for batch in samples.batches(1 if mixes_samples(runner) else fixed or batch_size):
        outputs = _run(runner, batch.inputs, count=len(batch), fixed=fixed)
        yield Answers(outputs, batch.labels, first=first)
        first += len(batch)


def _run(runner: Runner, inputs: Arrays, *, count: int, fixed: int | None) -> Arrays:
    size = fixed or count
    outputs = runner.run(padded(inputs, size))
    for name, array in outputs.items():
        if array.shape[:1] != (size,):
            raise _without_rows(name, f"one row for each of {size} samples, found shape {array.shape}")
    order = [spec.name for spec in runner.outputs if spec.name in outputs]
    return {name: outputs[name][:count] for name in order}


def _without_rows(name: str, expected: str) -> ModelError:
    return ModelError(
        f"output {name!r}",
        detail=f"expected {expected}",
        fix="Export the model with the batch as the first dimension of every output",
    )
