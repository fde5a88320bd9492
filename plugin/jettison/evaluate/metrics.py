"""Metrics: one score per sample, higher is better.

The unit of evidence is the sample, so that a variant can be compared with the baseline in pairs. Names:

    top1       1 where the highest class score is the label's, else 0
    top5       1 where the label's score is among the five highest, else 0
    agreement  1 where the variant decides for the class that the baseline decides for, else 0
    sqnr       1 - |y - y0|^2 / |y0|^2 of the worst float output, at least 0; y0 is the baseline's output,
               so that a tolerance of 0.01 demands 20 dB
    mae        minus the mean absolute error, in the unit of the outputs, against labels where they are
               floating point numbers, else against the baseline's float outputs

Equal scores count in the order of the classes, in top5 as in top1: quantized logits tie often, and a tie
broken in favour of the label would flatter them. A sample whose outputs are not numbers gets the worst
score that there is: 0, or `WORST_MAE`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jettison.core.errors import RecipeError, SamplesError
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.answers import Answers
from jettison.evaluate.classes import (
    class_labels,
    class_scores,
    known_classes,
    looks_like_classes,
    predictions_of,
    ranks_of,
    required_predictions,
)
from jettison.evaluate.custom import custom_scores, parameters_of
from jettison.evaluate.labels import check_labels
from jettison.evaluate.sqnr import is_float, row_energies

WORST_MAE = -float(np.finfo(np.float32).max)
"""The mae score of outputs that are not numbers; finite, so that means and JSON stay numbers."""
_FIVE = 5


@dataclass(frozen=True)
class Metric:
    """A metric by name, and what it cannot do without.

    `source_sha256` is of the file that defines a user's own, so that results of an edited one are not reused.
    """

    name: str
    needs_labels: bool
    needs_baseline: bool
    function: Callable[[Answers], np.ndarray[Any, Any]]
    source_sha256: str = ""

    @property
    def identity(self) -> str:
        """What tells this metric's scores from all others."""
        return f"{self.name} {self.source_sha256}".rstrip()

    def __call__(self, answers: Answers) -> np.ndarray[Any, Any]:
        """One score per sample: float64 (rows,), finite.

        Raises:
            SamplesError: Labels are missing or cannot be read as this metric needs them.
            RecipeError: The model has no outputs for this metric, or the baseline's answers are missing.
        """
        if self.needs_labels and answers.labels is None:
            raise _labels_missing(self.name)
        if self.needs_baseline and answers.baseline is None:
            raise _baseline_missing(self.name)
        return self.function(answers)

    def check(self, samples: Samples, *, has_baseline: bool) -> None:
        """Raise before any work what would be raised at the first batch.

        Raises:
            SamplesError: The metric needs labels and the samples have none.
            RecipeError: The metric needs a baseline and there is none.
        """
        if self.needs_labels and not samples.has_labels:
            raise _labels_missing(self.name, samples.source)
        if self.needs_baseline and not has_baseline:
            raise _baseline_missing(self.name)


def resolve_metric(name: str) -> Metric:
    """The metric of that name, or the user's own as `package.module:function`.

    The function's parameter `outputs`, or the first one if none is so named, gets the outputs as a dict
    of arrays by name; parameters named `labels` and `baseline` get the labels and the baseline's outputs
    (demanded unless the parameter has a default). It returns one score per sample, higher is better.

    Raises:
        RecipeError: There is no such metric or function, or its parameters cannot be filled.
    """
    if ":" in name:
        parameters = parameters_of(name)
        return Metric(
            name=name,
            needs_labels=parameters.needs_labels,
            needs_baseline=parameters.needs_baseline,
            function=lambda answers: custom_scores(parameters, answers),
            source_sha256=parameters.source_sha256,
        )
    if name not in _BUILT_IN:
        near = difflib.get_close_matches(name, _BUILT_IN, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise RecipeError(
            f"metric {name!r}",
            detail="there is no such metric",
            fix=f"{hint}Metrics are {', '.join(_BUILT_IN)} and package.module:function",
        )
    return _BUILT_IN[name]


def metric_for(name: str | None, samples: Samples, outputs: Sequence[TensorSpec]) -> Metric:
    """The metric of that name, or what fits samples and outputs, known to be applicable beside a baseline.

    Raises:
        RecipeError: There is no such metric, or it takes more classes than the model has.
        SamplesError: The metric needs labels and the samples have none, or none that it can read.
    """
    metric = resolve_metric(name) if name else default_metric(samples, outputs)
    metric.check(samples, has_baseline=True)
    if metric.name == "top5" and (classes := known_classes(outputs)) is not None and classes <= _FIVE:
        raise _too_few_classes(f"{classes} classes")
    check_labels(metric.name, samples, outputs)
    return metric


def default_metric(samples: Samples, outputs: Sequence[TensorSpec]) -> Metric:
    """The metric where the user names none, from the labels and the baseline's outputs.

    top1 where the first output looks like class scores and labels are whole numbers or one row of class
    shares each; mae where labels are floating point numbers, as many a sample as the first float output
    has; else agreement where the first output looks like class scores, and sqnr for anything else.
    """
    classes = looks_like_classes(outputs)
    if samples.has_labels:
        labels = np.asarray(next(iter(samples.batches(1))).labels)
        if classes and (labels.dtype.kind in "iub" or (labels.ndim == 2 and labels.shape[1] > 1)):
            return _BUILT_IN["top1"]
        if labels.dtype.kind == "f" and _fits_first_float(labels, outputs):
            return _BUILT_IN["mae"]
    return _BUILT_IN["agreement" if classes else "sqnr"]


def _fits_first_float(labels: np.ndarray[Any, Any], outputs: Sequence[TensorSpec]) -> bool:
    shapes = [spec.shape[1:] for spec in outputs if spec.dtype.is_float]
    if not shapes:
        return False
    sizes = [size for size in shapes[0] if isinstance(size, int)]
    return len(sizes) < len(shapes[0]) or math.prod(sizes) == labels.size


def _labels_missing(metric: str, source: str = "") -> SamplesError:
    return SamplesError(
        f"metric {metric!r}",
        detail=f"expected samples with labels, found none{f' in {source}' if source else ''}",
        fix="Add an array 'labels' to the samples, or choose agreement or sqnr, which need none",
    )


def _baseline_missing(metric: str) -> RecipeError:
    return RecipeError(
        f"metric {metric!r}",
        detail="it compares with a baseline's outputs, and no baseline was given",
        fix="Give a baseline, or choose top1 or top5 with labels",
    )


def _top1(answers: Answers) -> np.ndarray[Any, Any]:
    decided = required_predictions(answers, "top1")
    scores = class_scores(answers.outputs)
    labels = class_labels(answers, classes=None if scores is None else scores.shape[1])
    return _ones_where(decided == labels)


def _top5(answers: Answers) -> np.ndarray[Any, Any]:
    scores = class_scores(answers.outputs)
    if scores is None or scores.shape[1] <= _FIVE:
        raise _too_few_classes("none" if scores is None else f"{scores.shape[1]} classes")
    labels = class_labels(answers, classes=scores.shape[1])
    return _ones_where(ranks_of(scores, labels) < _FIVE)


def _too_few_classes(found: str) -> RecipeError:
    return RecipeError(
        "metric 'top5'", detail=f"expected scores of more than 5 classes, found {found}", fix="Choose top1"
    )


def _agreement(answers: Answers) -> np.ndarray[Any, Any]:
    decided = required_predictions(answers, "agreement")
    return _ones_where(decided == predictions_of(answers.baseline or {}))


def _ones_where(right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return right.astype(np.float64)


def _sqnr(answers: Answers) -> np.ndarray[Any, Any]:
    worst = np.ones(len(answers))
    for expected, found in _float_pairs(answers, "sqnr"):
        energies = row_energies(expected, found)
        share = np.divide(
            energies.noise,
            energies.signal,
            where=energies.signal > 0,
            out=(energies.noise > 0).astype(np.float64),
        )
        share[energies.broken] = 1.0
        worst = np.minimum(worst, 1 - share)
    return np.maximum(worst, 0.0)


def _mae(answers: Answers) -> np.ndarray[Any, Any]:
    if answers.labels is not None and answers.labels.dtype.kind == "f":
        pairs = [_labelled_pair(answers)]
    elif answers.baseline is None:
        raise _baseline_missing("mae")
    else:
        pairs = _float_pairs(answers, "mae")
    total, elements = np.zeros(len(answers)), 0
    for pair in pairs:
        expected, found = (array.reshape(len(answers), -1).astype(np.float64) for array in pair)
        with np.errstate(invalid="ignore"):
            error = np.where(found == expected, 0.0, np.abs(found - expected))
        total, elements = total + error.sum(axis=1), elements + error[:1].size
    return np.maximum(np.nan_to_num(-total / max(1, elements), nan=WORST_MAE), WORST_MAE)


def _float_pairs(answers: Answers, metric: str) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    baseline: Arrays = answers.baseline or {}
    pairs = [(expected, answers.outputs[name]) for name, expected in baseline.items() if is_float(expected)]
    if not pairs:
        raise RecipeError(
            f"metric {metric!r}",
            detail=f"expected a floating point output, found {sorted(answers.outputs)} without any",
            fix="Choose agreement or top1, or give your own metric as package.module:function",
        )
    return pairs


def _labelled_pair(answers: Answers) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    labels = np.asarray(answers.labels)
    floats = [array for array in answers.outputs.values() if is_float(array)]
    if not floats or floats[0][:1].size != labels[:1].size:
        shape = floats[0].shape if floats else "none"
        raise SamplesError(
            "labels",
            detail=f"expected the shape of the first float output, {shape}, found {labels.shape}",
            fix="Give labels in the shape of that output, or give your own metric as package.module:function",
        )
    return labels, floats[0]


_BUILT_IN = {
    "top1": Metric("top1", True, False, _top1),
    "top5": Metric("top5", True, False, _top5),
    "agreement": Metric("agreement", False, True, _agreement),
    "sqnr": Metric("sqnr", False, True, _sqnr),
    "mae": Metric("mae", False, False, _mae),
}
METRIC_NAMES = tuple(_BUILT_IN)
BINARY = ("top1", "top5", "agreement")
"""Metrics whose scores are 0 or 1, for which it is known beforehand how many samples a tolerance takes."""
