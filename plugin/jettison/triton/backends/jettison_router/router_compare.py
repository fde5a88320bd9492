"""Whether two models' answers to one request agree, in the sense of the task that they do.

Numpy and standard library only. An answer that is not of the baseline's form is the candidate's error, not a
disagreement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_settings import Settings
else:
    from router_settings import Settings

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

MATCHING_OVERLAP = 0.5
"""From what intersection over union on two boxes are one object. Source: PASCAL VOC 2010, section 8.2."""
_PIECE = 1 << 15
"""So many numbers are compared at a time. Chosen: 256 KB of float64 stay in a core's cache; 4 MB as a whole
took some 40 MB of memory in each thread."""
MOST_SHOWN = 8
"""Chosen: what a labeller can take in."""


class Compared(NamedTuple):
    """What came out: whether they agree, and both answers in a form small enough to keep."""

    is_same: bool
    baseline: object
    candidate: object


class MismatchError(ValueError):
    """The candidate's answer is not of the baseline's form."""


def compare(baseline: Arrays, candidate: Arrays, settings: Settings) -> Compared:
    """Both answers, compared; of a batch, all rows must agree.

    Raises:
        MismatchError: The candidate's outputs have other names, types or shapes.
    """
    has_free_rows = settings.task == "detection"
    _check(baseline, candidate, has_free_rows=has_free_rows)
    if settings.task == "detection":
        return _detections(baseline, candidate, settings)
    name = settings.output or sorted(baseline)[0]
    if name not in baseline:
        raise ValueError(f"there is no output {name!r} to compare, only {sorted(baseline)}")
    if settings.task == "classification":
        return _classes(baseline[name], candidate[name])
    if settings.task == "embedding":
        return _embeddings(baseline[name], candidate[name], settings.threshold)
    return _numbers(baseline, candidate, settings)


def _check(baseline: Arrays, candidate: Arrays, *, has_free_rows: bool) -> None:
    if set(baseline) != set(candidate):
        raise MismatchError(f"expected outputs {sorted(baseline)}, found {sorted(candidate)}")
    for name, expected in baseline.items():
        found = candidate[name]
        fits = expected.ndim == found.ndim if has_free_rows else expected.shape == found.shape
        if expected.dtype != found.dtype or not fits:
            raise MismatchError(
                f"output {name!r}: expected {expected.dtype} {expected.shape}, "
                f"found {found.dtype} {found.shape}"
            )


def _classes(baseline: Array, candidate: Array) -> Compared:
    first, second = np.atleast_1d(baseline), np.atleast_1d(candidate)
    tops = np.argmax(first, axis=-1).reshape(-1), np.argmax(second, axis=-1).reshape(-1)
    # argmax takes NaN for the largest, so two rows of NaN would agree.
    is_same = bool(np.array_equal(tops[0], tops[1])) and not _has_nan(second)
    return Compared(is_same, _top(first, tops[0]), _top(second, tops[1]))


def _has_nan(values: Array) -> bool:
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def _top(scores: Array, tops: Array) -> object:
    rows = scores.reshape(-1, scores.shape[-1])[:MOST_SHOWN]
    return [[int(top), _number(row[top])] for row, top in zip(rows, tops, strict=False)]


def _embeddings(baseline: Array, candidate: Array, threshold: float) -> Compared:
    first, second = (np.atleast_1d(side).astype(np.float64) for side in (baseline, candidate))
    norms = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.asarray((first * second).sum(axis=-1) / (norms[0] * norms[1]))
    cosines = np.where((norms[0] == 0) & (norms[1] == 0), 1.0, cosines)
    shown = [_number(value) for value in cosines.reshape(-1)[:MOST_SHOWN]]
    return Compared(bool((cosines >= threshold).all()), {"norms": _shown(norms[0])}, {"cosines": shown})


def _numbers(baseline: Arrays, candidate: Arrays, settings: Settings) -> Compared:
    apart = [name for name in sorted(baseline) if not _is_close(baseline[name], candidate[name], settings)]
    names = apart or sorted(baseline)[:1]
    return Compared(
        not apart,
        {name: _shown(baseline[name]) for name in names},
        {name: _shown(candidate[name]) for name in names},
    )


def _is_close(baseline: Array, candidate: Array, settings: Settings) -> bool:
    if baseline.dtype.kind not in "fc":
        return bool(np.array_equal(baseline, candidate))
    allowed = {"rtol": settings.relative_tolerance, "atol": settings.absolute_tolerance}
    first, second = baseline.reshape(-1), candidate.reshape(-1)
    pieces = (slice(start, start + _PIECE) for start in range(0, first.size, _PIECE))
    return all(
        np.allclose(
            second[piece].astype(np.float64), first[piece].astype(np.float64), equal_nan=True, **allowed
        )
        for piece in pieces
    )


def _detections(baseline: Arrays, candidate: Arrays, settings: Settings) -> Compared:
    first, second = _images(baseline, settings), _images(candidate, settings)
    if len(first) != len(second):
        raise MismatchError(f"expected boxes of {len(first)} images, found {len(second)}")
    scores = [_f1(one, other) for one, other in zip(first, second, strict=True)]
    is_same = all(score >= settings.threshold for score in scores)
    return Compared(is_same, _boxes_shown(first), {"f1": scores[:MOST_SHOWN], "boxes": _boxes_shown(second)})


class Detections(NamedTuple):
    """The objects found in one image: corners (n, 4), scores (n,), classes (n,), best first."""

    boxes: Array
    scores: Array
    classes: Array


def _images(arrays: Arrays, settings: Settings) -> list[Detections]:
    boxes, scores = arrays[settings.output].astype(np.float64), arrays[settings.score_output]
    if boxes.ndim not in (2, 3) or boxes.shape[-1] != 4 or scores.size * 4 != boxes.size:
        raise MismatchError(f"expected boxes (..., n, 4) and a score of each, found {boxes.shape}")
    classes = arrays[settings.class_output] if settings.class_output else np.zeros(scores.shape)
    if classes.size != scores.size:
        raise MismatchError(f"expected a class of each box, found {classes.shape}")
    batch = boxes if boxes.ndim == 3 else boxes[None]
    images = zip(batch, scores.reshape(batch.shape[:2]), classes.reshape(batch.shape[:2]), strict=True)
    return [_kept(Detections(*image), settings.score_threshold) for image in images]


def _kept(image: Detections, least: float) -> Detections:
    order = np.argsort(-image.scores, kind="stable")
    order = order[image.scores[order] >= least]
    return Detections(*(side[order] for side in image))


def _f1(first: Detections, second: Detections) -> float:
    """The share of boxes that have a partner of the same class: 2 matched / (boxes of both)."""
    total = len(first.boxes) + len(second.boxes)
    if not total:
        return 1.0
    overlaps = _overlaps(first.boxes, second.boxes)
    overlaps[first.classes[:, None] != second.classes[None, :]] = 0.0
    matched = 0
    for row in range(len(first.boxes)):  # greedy, the surest box first, as VOC and COCO match
        best = int(np.argmax(overlaps[row])) if overlaps.shape[1] else 0
        if overlaps.shape[1] and overlaps[row, best] >= MATCHING_OVERLAP:
            overlaps[:, best] = 0.0
            matched += 1
    return 2 * matched / total


def _overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of all pairs of boxes (left, top, right, bottom)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    found: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _boxes_shown(images: list[Detections]) -> object:
    return [
        [
            [*map(_number, box), _number(score), _number(label)]
            for box, score, label in zip(*image, strict=True)
        ]
        for image in (Detections(*(side[:MOST_SHOWN] for side in image)) for image in images[:MOST_SHOWN])
    ]


def _shown(array: Array) -> list[object]:
    return [_number(value) for value in np.asarray(array).reshape(-1)[:MOST_SHOWN]]


def _number(value: object) -> object:
    """A value that JSON can hold: five digits of a number, and text for what is none."""
    if isinstance(value, bytes):
        return value[:64].decode(errors="replace")
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(str(value))
    return float(f"{number:.5g}") if np.isfinite(number) else str(number)
