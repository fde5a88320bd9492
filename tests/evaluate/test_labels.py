from __future__ import annotations

import numpy as np
import pytest
from evaluate_fakes import some_samples, spec

from jettison.core.errors import SamplesError
from jettison.core.samples import split
from jettison.evaluate.answers import Answers
from jettison.evaluate.classes import known_classes
from jettison.evaluate.labels import check_labels, unused_labels
from jettison.evaluate.metrics import metric_for, resolve_metric

LOGITS = [spec("logits", ("batch", 10))]
DECISION = [spec("label", ("batch",), "int64")]
FIX = "Give the number of the right class for each sample"


def with_labels(labels):
    return some_samples(count=len(labels), labels=np.asarray(labels))


def refusal(labels, outputs=LOGITS, metric="top1"):
    with pytest.raises(SamplesError) as caught:
        metric_for(metric, with_labels(labels), outputs)
    assert caught.value.what == "labels of arrays in memory"
    return f"{caught.value.detail}. {caught.value.fix}"


@pytest.mark.parametrize(
    ("label", "outputs", "classes"),
    [(-1, LOGITS, "from 0 to 9"), (10, LOGITS, "from 0 to 9"), (-1, DECISION, "of 0 or more")],
)
@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_class_numbers_that_the_model_does_not_have_are_told_before_any_work(label, outputs, classes, metric):
    labels = np.arange(200) % 10
    labels[[133, 150]] = label
    told = f"expected a class {classes}, found {label} in sample 133, counted from 0. {FIX}"
    assert refusal(labels, outputs, metric) == told


def test_a_model_that_decides_inside_may_have_any_number_of_classes():
    check_labels("top1", with_labels([0, 5, 70_000]), DECISION)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array([0.5, 1.0, 2.0], np.float32), "float32: 0.5"),
        (np.array([[3.0], [1.0]]), "float64: 3.0"),
        (np.array(["cat", "dog"]), "<U3: 'cat'"),
        (np.zeros((2, 8, 8), np.int64), "int64 of shape 8x8"),
        (np.eye(4), "float64 of shape 4"),
    ],
    ids=["fractions", "column", "words", "maps", "too few shares"],
)
def test_labels_that_are_no_classes_are_told_with_the_first_of_them(labels, found):
    expected = "expected whole numbers, one a sample, or 10 shares, one a class"
    assert refusal(labels) == f"{expected}, found {found} in sample 0, counted from 0. {FIX}"


@pytest.mark.parametrize(
    "labels", [np.eye(10)[:4], np.eye(10, dtype=np.int64)[:4], [[9], [0]], [True, False]]
)
def test_shares_columns_and_truths_are_classes(labels):
    check_labels("top1", with_labels(labels), LOGITS)


@pytest.mark.parametrize("metric", ["top1", "mae"])
def test_labels_that_are_not_finite_are_told(metric):
    shares = np.full((70, 10), 0.1)
    shares[66, 3] = np.nan
    assert refusal(shares, metric=metric) == (
        "expected finite numbers, found NaN or infinity in sample 66, counted from 0. "
        "Remove or repair those samples"
    )


def test_labels_that_the_metric_does_not_read_are_left_alone():
    for metric in ("agreement", "sqnr", "own:metric"):
        check_labels(metric, with_labels([-1, np.nan, 99]), LOGITS)
    check_labels("mae", with_labels([-1, 99]), LOGITS)
    check_labels("top1", some_samples(labels=False), LOGITS)


def test_a_part_is_judged_by_the_labels_of_its_source():
    labels = np.arange(40) % 10
    labels[39] = -1
    for part in split(with_labels(labels), 0.5, seed=0):
        with pytest.raises(SamplesError, match=r"found -1 in sample 39, counted from 0"):
            check_labels("top1", part, LOGITS)


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        ([spec("logits", ("batch", 7, 1, 1))], 7),
        ([spec("boxes", (None, 5, 4)), spec("logits", (None, 3))], 3),
        ([spec("ids", (None, 9), "int64"), spec("logits", (None, 3))], 3),
        ([spec("open", (None, "n")), spec("logits", (None, 3))], None),
        ([spec("price", (None, 1))], None),
        (DECISION, None),
    ],
)
def test_classes_are_those_of_the_output_that_is_scored(outputs, classes):
    assert known_classes(outputs) == classes


def test_a_negative_class_is_told_at_the_batch_too_where_the_classes_are_not_known():
    some = Answers({"y": np.array([1, 0])}, np.array([1, -1]), first=32)
    with pytest.raises(SamplesError, match=r"expected a class of 0 or more, found -1 at sample 33"):
        resolve_metric("top1")(some)


def test_labels_that_no_metric_fits_are_said_to_be_unused():
    assert unused_labels("agreement", with_labels(np.zeros(5, np.float32))) == (
        "no metric fits the labels (float32, one value each), so the metric is agreement, against the "
        "baseline; give class numbers, or name a metric that reads them"
    )
    assert "(int64, 8x8 each)" in (unused_labels("sqnr", with_labels(np.zeros((5, 8, 8), np.int64))) or "")
    assert unused_labels("top1", with_labels([1, 2])) is None
    assert unused_labels("mae", with_labels([1.0, 2.0])) is None
    assert unused_labels("agreement", some_samples(labels=False)) is None
