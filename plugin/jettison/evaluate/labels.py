"""Labels judged before any work: whether they are what the metric reads, by what is known of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from jettison.core.errors import SamplesError
from jettison.core.sample_audit import LabelFacts
from jettison.core.samples import Samples
from jettison.core.tensors import TensorSpec, format_shape
from jettison.evaluate.classes import known_classes

_CLASSES = ("top1", "top5")
"""The metrics that read labels as classes."""


def check_labels(metric: str, samples: Samples, outputs: Sequence[TensorSpec]) -> None:
    """Refuse labels that the metric would refuse, or misread, at some later batch.

    What a user's own metric makes of labels is its own affair, and metrics that need none are not asked.

    Raises:
        SamplesError: A class number below 0 or beyond the model's classes; no class numbers at all; NaN.
    """
    facts = samples.labels
    if facts is None or not _reads(metric, facts):
        return
    if facts.not_finite is not None:
        problem = f"expected finite numbers, found NaN or infinity in {samples.place(facts.not_finite)}"
        raise _bad(samples, problem, fix="Remove or repair those samples")
    if metric in _CLASSES:
        _check_classes(facts, samples, known_classes(outputs))


def unused_labels(metric: str, samples: Samples) -> str | None:
    """What to tell where labels decided for no metric, so that nobody takes the score for one by labels."""
    facts = samples.labels
    if facts is None or _reads(metric, facts):
        return None
    shape = format_shape(facts.row_shape) if facts.row_shape else "one value"
    return (
        f"no metric fits the labels ({facts.dtype}, {shape} each), so the metric is {metric}, against the "
        "baseline; give class numbers, or name a metric that reads them"
    )


def _reads(metric: str, facts: LabelFacts) -> bool:
    return metric in _CLASSES or (metric == "mae" and facts.dtype.kind == "f")


def _check_classes(facts: LabelFacts, samples: Samples, classes: int | None) -> None:
    if facts.lowest is None or facts.highest is None or len(facts.row_shape) > 1:
        _check_shares(facts, samples, classes)
        return
    known = "of 0 or more" if classes is None else f"from 0 to {classes - 1}"
    for value, number in (facts.lowest, facts.highest):
        if value < 0 or (classes is not None and value >= classes):
            raise _bad(samples, f"expected a class {known}, found {value} in {samples.place(number)}")


def _check_shares(facts: LabelFacts, samples: Samples, classes: int | None) -> None:
    """Labels that are no whole numbers, one a sample, can only be one row of class shares each."""
    columns = facts.row_shape[0] if len(facts.row_shape) == 1 else 1
    if columns > 1 and columns == (classes or columns):
        return
    expected = "whole numbers, one a sample"
    if classes is not None:
        expected += f", or {classes} shares, one a class"
    shape = format_shape(facts.row_shape)
    found = (
        f"{facts.dtype}: {facts.example}"
        if facts.example and len(facts.row_shape) <= 1
        else f"{facts.dtype} of shape {shape}"
    )
    raise _bad(samples, f"expected {expected}, found {found} in {samples.place(0)}")


def _bad(
    samples: Samples, detail: str, fix: str = "Give the number of the right class for each sample"
) -> SamplesError:
    return SamplesError(f"labels of {samples.source}", detail=detail, fix=fix)
