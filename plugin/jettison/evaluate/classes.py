"""Class decisions in a model's outputs and in labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jettison.core.errors import RecipeError, SamplesError
from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.answers import Answers
from jettison.evaluate.sqnr import is_float

NO_CLASS = -1
"""The decision of a row whose scores are not numbers."""

_NOT_CLASSES = ("embed", "feature", "hidden", "box", "coord", "landmark", "keypoint", "depth", "mask", "pose")
"""Words in the names of outputs of the shape (batch, n) that are no class scores."""


def class_scores(outputs: Arrays) -> np.ndarray[Any, Any] | None:
    """Scores (rows, classes) from the first float output that holds some, or None.

    Dimensions of size 1 behind the batch are dropped, so (rows, 1000, 1, 1) counts.
    """
    for array in outputs.values():
        sizes = [size for size in array.shape[1:] if size != 1]
        if is_float(array) and len(sizes) == 1:
            return array.reshape(len(array), sizes[0])
    return None


def known_classes(outputs: Sequence[TensorSpec]) -> int | None:
    """How many classes the model's outputs tell of, or None where the shapes leave it open.

    As `class_scores` picks them: the first float output with one dimension above 1 behind the batch.
    """
    for spec in outputs:
        sizes = [size for size in spec.shape[1:] if size != 1]
        if not spec.dtype.is_float:
            continue
        if any(not isinstance(size, int) for size in sizes):
            return None
        if len(sizes) == 1:
            return int(sizes[0] or 0)
    return None


def predictions_of(outputs: Arrays) -> np.ndarray[Any, Any] | None:
    """The class decided for each row, int64 (rows,), or None where the model decides no classes.

    It is the argmax of the class scores (`NO_CLASS` where they hold NaN), or else the first output of one
    whole number a row, as models with an ArgMax inside give it.
    """
    scores = class_scores(outputs)
    if scores is not None:
        values = scores.astype(np.float64)
        return np.where(np.isnan(values).any(axis=1), NO_CLASS, values.argmax(axis=1))
    for array in outputs.values():
        if array.dtype.kind in "iu" and array[:1].size == 1:
            return array.reshape(-1).astype(np.int64)
    return None


def looks_like_classes(outputs: Sequence[TensorSpec]) -> bool:
    """Whether the first output is of the shape (batch, classes), or one whole number a sample.

    Embeddings and coordinates have the first shape too, so the names that exporters give them are left out.
    """
    if not outputs:
        return False
    first = outputs[0]
    rest = [size for size in first.shape[1:] if size != 1]
    named_otherwise = any(word in first.name.lower() for word in _NOT_CLASSES)
    is_decision = first.dtype.numpy.kind in "iu" and not rest
    return is_decision or (first.dtype.is_float and len(rest) == 1 and not named_otherwise)


def required_predictions(answers: Answers, metric: str) -> np.ndarray[Any, Any]:
    """The decisions, where a metric cannot do without.

    Raises:
        RecipeError: The model decides no classes.
    """
    found = predictions_of(answers.outputs)
    if found is None:
        shapes = {name: f"{array.dtype} {array.shape}" for name, array in answers.outputs.items()}
        raise RecipeError(
            f"metric {metric!r}",
            detail=f"expected an output of class scores, (samples, classes), found {shapes}",
            fix="Choose sqnr or mae, or give your own metric as package.module:function",
        )
    return found


def class_labels(answers: Answers, *, classes: int | None) -> np.ndarray[Any, Any]:
    """The label of each sample as int64 (rows,), from class numbers or from one row of class shares each.

    Args:
        answers: Answers with labels: whole numbers (rows,) or (rows, 1), or any numbers (rows, classes).
        classes: How many classes the model knows, or None where it does not tell.

    Raises:
        SamplesError: Labels of another shape or type, or a class that the model does not know.
    """
    labels = np.asarray(answers.labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if classes is not None and labels.shape[1] != classes:
            raise _bad_labels(f"expected {classes} columns, as many as classes, found {labels.shape[1]}")
        shares: np.ndarray[Any, Any] = labels.argmax(axis=1)
        return shares
    if labels.dtype.kind not in "iub" or labels[:1].size != 1 or labels.ndim > 2:
        raise _bad_labels(
            "expected whole numbers (samples,) or shares (samples, classes), "
            f"found {labels.dtype} {labels.shape}"
        )
    flat = labels.reshape(-1).astype(np.int64)
    beyond = np.inf if classes is None else classes
    if (unknown := np.flatnonzero((flat < 0) | (flat >= beyond))).size:
        row = int(unknown[0])
        known = "of 0 or more" if classes is None else f"from 0 to {classes - 1}"
        raise _bad_labels(f"expected a class {known}, found {flat[row]} at sample {answers.first + row}")
    return flat


def ranks_of(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many classes stand before each row's label, int64 (rows,): 0 where it is the decision.

    Equal scores count in the order of the classes; behind all classes is a label in a row that holds NaN.

    Args:
        scores: Floats, (rows, classes).
        labels: int64 (rows,), numbers of classes.
    """
    values, places = scores.astype(np.float64), labels[:, None]
    of_label = np.take_along_axis(values, places, axis=1)
    before = np.arange(values.shape[1])[None, :] < places
    ranks = ((values > of_label) | ((values == of_label) & before)).sum(axis=1)
    return np.asarray(np.where(np.isnan(values).any(axis=1), values.shape[1], ranks))


def _bad_labels(detail: str) -> SamplesError:
    return SamplesError("labels", detail=detail, fix="Give the number of the right class for each sample")
