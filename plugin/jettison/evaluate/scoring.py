"""Scores of a model on samples: one number a sample, streamed, against the baseline's answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jettison.core.progress import Progress
from jettison.core.runner import Runner
from jettison.core.samples import Samples
from jettison.evaluate.answers import DEFAULT_BATCH_SIZE, Answers, answers_of
from jettison.evaluate.classes import predictions_of
from jettison.evaluate.metrics import Metric
from jettison.evaluate.reference import Reference, check_same_samples, compared
from jettison.evaluate.sqnr import SqnrMeter


@dataclass(frozen=True)
class Scores:
    """What a model is worth on samples.

    Args:
        metric: Name of the metric.
        values: float64 (samples,), higher is better.
        sqnr_db: SQNR against the baseline in dB; None without a baseline or without float outputs.
        broken: Samples for which outputs hold NaN or infinity where the baseline's are numbers.
        predictions: int32 (samples,), the class decided for each, or None where none is decided.
    """

    metric: str
    values: np.ndarray[Any, np.dtype[np.float64]]
    sqnr_db: float | None
    broken: int
    predictions: np.ndarray[Any, np.dtype[np.int32]] | None

    @property
    def mean(self) -> float:
        """The score of the model."""
        return float(self.values.mean())


def score(
    runner: Runner,
    samples: Samples,
    *,
    metric: Metric,
    reference: Reference | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress | None = None,
) -> Scores:
    """The model's scores; with a reference also how far its outputs are from the baseline's.

    Raises:
        SamplesError: The metric needs labels and there are none, or the reference answers other samples.
        RecipeError: The metric does not fit the model, or needs a baseline and there is none.
        ModelError: The outputs do not fit the samples or the baseline's outputs.
    """
    metric.check(samples, has_baseline=reference is not None)
    answers: Iterable[Answers] = answers_of(runner, samples, batch_size=batch_size)
    if reference is not None:
        check_same_samples(reference, samples)
        answers = (compared(some, reference) for some in answers)
    return _collect(answers, metric, count=samples.count, progress=progress)


def score_reference(
    reference: Reference, samples: Samples, *, metric: Metric, batch_size: int = DEFAULT_BATCH_SIZE
) -> Scores:
    """The baseline's own scores, from its answers as they were computed once.

    Raises:
        SamplesError: The metric needs labels and there are none, or the reference answers other samples.
        RecipeError: The metric does not fit the model.
    """
    metric.check(samples, has_baseline=True)
    check_same_samples(reference, samples)
    return _collect(_recalled(reference, samples, batch_size), metric, count=samples.count, progress=None)


def _recalled(reference: Reference, samples: Samples, batch_size: int) -> Iterable[Answers]:
    first = 0
    for batch in samples.batches(batch_size):
        outputs = reference.read(first, first + len(batch))
        yield Answers(outputs, batch.labels, outputs, first)
        first += len(batch)


def _collect(answers: Iterable[Answers], metric: Metric, *, count: int, progress: Progress | None) -> Scores:
    values: list[np.ndarray[Any, Any]] = []
    decided: list[np.ndarray[Any, Any] | None] = []
    meter, broken = SqnrMeter(), 0
    for some in answers:
        values.append(metric(some))
        decided.append(predictions_of(some.outputs))
        if some.baseline is not None:
            broken += int(meter.add(some.baseline, some.outputs).sum())
        if progress is not None:
            progress(some.first + len(some), count)
    classes = [part for part in decided if part is not None]
    return Scores(
        metric=metric.name,
        values=np.concatenate(values),
        sqnr_db=meter.db,
        broken=broken,
        predictions=np.concatenate(classes).astype(np.int32) if len(classes) == len(decided) else None,
    )
