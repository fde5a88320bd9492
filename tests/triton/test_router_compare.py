"""What agreement means for each task, on arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import router_fakes as fakes
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def load() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield fakes.load(patch, fakes.World())


@pytest.fixture(scope="module")
def compared(load: Callable[[str], ModuleType]) -> Callable[..., Any]:
    module, settings = load("router_compare"), load("router_settings")

    def run(baseline: Any, candidate: Any, **given: object) -> Any:
        made = replace(settings.Settings("old", "new", "", "", "edge-1"), **given)
        sides = [
            side if isinstance(side, dict) else {"y": np.float32(side)} for side in (baseline, candidate)
        ]
        return module.compare(*sides, made)

    run.error = module.MismatchError  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    ("candidate", "is_same"),
    [([[0.2, 0.5], [9, 1]], True), ([[0.2, 0.5], [1, 9]], False), ([[np.nan, 0.5], [9, 1]], False)],
    ids=["other scores, same tops", "another top in the second row", "NaN"],
)
def test_classes_agree_by_their_top(compared: Any, candidate: Any, is_same: bool) -> None:
    found = compared([[0.1, 0.9], [2, 1]], candidate, task="classification")
    assert found.is_same == is_same
    assert found.baseline == [[1, 0.9], [0, 2.0]]


def test_two_rows_of_nan_do_not_agree(compared: Any) -> None:
    rows = [[np.nan, np.nan]]
    assert not compared(rows, rows, task="classification").is_same


@pytest.mark.parametrize(
    ("candidate", "is_same"),
    [([[2, 0.1]], True), ([[1, 1]], False), ([[0, 0]], False), ([[np.nan, 0]], False)],
)
def test_embeddings_agree_by_cosine(compared: Any, candidate: Any, is_same: bool) -> None:
    assert compared([[1, 0]], candidate, task="embedding", threshold=0.99).is_same == is_same


def test_two_empty_embeddings_agree(compared: Any) -> None:
    assert compared([[0, 0]], [[0, 0]], task="embedding").is_same


@pytest.mark.parametrize(("candidate", "is_same"), [([1.009, 0.0009], True), ([1.02, 0.0], False)])
def test_numbers_agree_within_the_tolerance(compared: Any, candidate: Any, is_same: bool) -> None:
    assert (
        compared([1.0, 0.0], candidate, relative_tolerance=0.01, absolute_tolerance=0.001).is_same == is_same
    )


def test_whole_numbers_and_text_agree_where_they_are_equal(compared: Any) -> None:
    ids, words = {"y": np.int64([1, 2])}, {"y": np.array([b"a", b"b"], dtype=object)}
    assert compared(ids, ids).is_same
    assert not compared(ids, {"y": np.int64([1, 3])}).is_same
    assert compared(words, words).is_same
    assert compared(words, {"y": np.array([b"a", b"c"], dtype=object)}).candidate == {"y": ["a", "c"]}


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({"z": np.float32([1])}, r"expected outputs \['y'\], found \['z'\]"),
        ({"y": np.float64([1])}, "expected float32 .* found float64"),
        ({"y": np.float32([1, 2])}, r"expected float32 \(1,\), found float32 \(2,\)"),
    ],
)
def test_an_answer_of_another_form_is_no_answer(compared: Any, candidate: Any, words: str) -> None:
    with pytest.raises(compared.error, match=words):
        compared({"y": np.float32([1])}, candidate)


NAMES = {"task": "detection", "output": "boxes", "score_output": "scores", "class_output": "classes"}
ONE, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def detector(*found: tuple[list[float], float, int]) -> dict[str, np.ndarray]:
    boxes = np.float32([box for box, _, _ in found]).reshape(1, -1, 4)
    scores = np.float32([[score for _, score, _ in found]])
    return {"boxes": boxes, "scores": scores, "classes": np.int64([[label for _, _, label in found]])}


@pytest.mark.parametrize(
    ("candidate", "f1"),
    [
        (detector((FAR, 0.8, 2), ([1, 0, 10, 10], 0.9, 1)), 1.0),
        (detector((ONE, 0.9, 1)), 2 / 3),
        (detector((ONE, 0.9, 1), (FAR, 0.4, 2)), 2 / 3),
        (detector((ONE, 0.9, 2), (FAR, 0.8, 2)), 0.5),
        (detector(([6, 0, 16, 10], 0.9, 1), (FAR, 0.8, 2)), 0.5),
        (detector((ONE, 0.9, 1), (ONE, 0.9, 1), (FAR, 0.8, 2)), 0.8),
        (detector(), 0.0),
    ],
    ids=[
        "moved a little",
        "one missing",
        "one below the score",
        "another class",
        "overlap 0.25",
        "twice",
        "none",
    ],
)
def test_detections_agree_by_matched_boxes(
    compared: Any, candidate: dict[str, np.ndarray], f1: float
) -> None:
    baseline = detector((ONE, 0.9, 1), (FAR, 0.8, 2))
    found = compared(baseline, candidate, threshold=0.9, **NAMES)
    assert found.candidate["f1"] == [pytest.approx(f1)]
    assert found.is_same == (f1 >= 0.9)


def test_two_images_without_objects_agree(compared: Any) -> None:
    assert compared(detector(), detector(), **NAMES).is_same


def test_boxes_that_are_none_are_no_answer(compared: Any) -> None:
    wrong = detector((ONE, 0.9, 1)) | {"boxes": np.zeros((1, 1, 5), np.float32)}
    with pytest.raises(compared.error, match=r"expected boxes \(\.\.\., n, 4\)"):
        compared(wrong, wrong, **NAMES)


@given(
    rows=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=4)
)
@pytest.mark.parametrize("task", ["classification", "embedding", "tolerance"])
def test_an_answer_agrees_with_itself(compared: Any, rows: list[list[float]], task: str) -> None:
    assert compared(rows, rows, task=task).is_same
