"""Which samples a variant decides otherwise than the baseline, from what to what, and how close it was.

The margin of a decision is the score of the decided class minus the highest score of any other one, in the
unit of the model's class scores (logits or probabilities). A change is a matter of rounding where the
baseline's margin is small against its usual one; where it is not, the variant has unlearned something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jettison.core.progress import Progress
from jettison.core.runner import Runner
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.evaluate.answers import Answers, answers_of
from jettison.evaluate.classes import NO_CLASS, class_scores, predictions_of, ranks_of
from jettison.evaluate.explanation import NotApplicable, finite, without_classes
from jettison.evaluate.reference import Reference, check_same_samples, compared

MOST_KEPT = 100
"""Changed decisions, and class pairs, that a report keeps: as many as someone may look through."""

_NO_LABEL = NO_CLASS - 1


Effect = Literal["worse", "better", "same"]
"""What a changed decision did: only the baseline was right, only the variant is, or both or neither."""


class DecisionPlan(BaseModel):
    """How decisions are read.

    Args:
        top: A sample counts as right where its label is among so many of the highest scores.
        most: How many changed decisions and class pairs to keep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: int = Field(default=1, ge=1)
    most: int = Field(default=MOST_KEPT, ge=0)


class ChangedDecision(BaseModel):
    """One sample that the variant decides otherwise.

    Args:
        sample: Its number in the set, from 0.
        from_class: The baseline's decision.
        to_class: The variant's decision; -1 where its scores are not numbers.
        baseline_margin: How sure the baseline was: its margin, 0 for a tie; None where it gives no scores.
        variant_margin: The variant's own margin for its own decision; None as well where a score is infinite
            or not a number.
        label: The right class, or None where there are no labels.
        effect: Of the change on the score, which with top5 is whether the label is among the five highest;
            None without labels.
    """

    model_config = ConfigDict(frozen=True)

    sample: int
    from_class: int
    to_class: int
    baseline_margin: float | None
    variant_margin: float | None
    label: int | None = None
    effect: Effect | None = None


class ClassPair(BaseModel):
    """How many samples went from one class to another."""

    model_config = ConfigDict(frozen=True)

    from_class: int
    to_class: int
    count: int


class DecisionReport(BaseModel):
    """What a variant decides otherwise than the baseline.

    Args:
        samples: How many were asked.
        changed: How many of them the variant decides otherwise.
        worse: Changed ones that the baseline had right and the variant has not; None without labels.
        better: Changed ones that the variant has right and the baseline had not; None without labels.
        baseline_margin_median: Over all samples, to hold the margins of the changed ones against.
        changed_baseline_margin_median: Over the changed ones.
        pairs: Counts by pair of classes, the most frequent first, at most as many as were asked for.
        decisions: The changed ones, those first of which the baseline was surest, at most as many as were
            asked for.
    """

    model_config = ConfigDict(frozen=True)

    applies: Literal[True] = True
    samples: int
    changed: int
    changed_share: float
    worse: int | None
    better: int | None
    baseline_margin_median: float | None
    changed_baseline_margin_median: float | None
    pairs: tuple[ClassPair, ...]
    decisions: tuple[ChangedDecision, ...]


def explain_decisions(
    runner: Runner,
    samples: Samples,
    *,
    reference: Reference,
    decides_classes: bool | None = None,
    plan: DecisionPlan | None = None,
    progress: Progress | None = None,
) -> DecisionReport | NotApplicable:
    """What the variant decides otherwise than the baseline that the reference holds the answers of.

    Memory grows by 8 bytes a sample and by what is kept of each changed one.

    Args:
        runner: The variant.
        samples: Those that the reference answers.
        reference: The baseline's answers; for two runners, `reference_of(baseline, samples)`.
        decides_classes: Whether the first output is a class decision; None to judge by its shape and name.
        plan: What counts as right, and how much to keep.
        progress: Gets the samples done and their number.

    Raises:
        SamplesError: The reference answers other samples.
        ModelError: The variant's outputs do not fit the baseline's.
    """
    plan = plan or DecisionPlan()
    refused = without_classes(runner.outputs, decides_classes=decides_classes)
    if refused is not None:
        return refused
    check_same_samples(reference, samples)
    answers = (compared(some, reference) for some in answers_of(runner, samples))
    found = _gather(_told(answers, samples.count, progress), plan.top)
    if found is None:
        shapes = {spec.name: spec.shape for spec in runner.outputs}
        return NotApplicable(reason=f"the model decides no classes: its outputs are {shapes}")
    return _report(found, plan.most)


@dataclass(frozen=True)
class _Columns:
    """One row for each changed sample; `margins` and `is_labelled` have one for every sample.

    Margins are NaN where there are no scores.
    """

    samples: np.ndarray[Any, Any]
    before: np.ndarray[Any, Any]
    after: np.ndarray[Any, Any]
    baseline_margins: np.ndarray[Any, Any]
    variant_margins: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    was_right: np.ndarray[Any, Any]
    is_right: np.ndarray[Any, Any]
    margins: np.ndarray[Any, Any]
    is_labelled: np.ndarray[Any, Any]

    @property
    def effects(self) -> list[Effect]:
        """What each change did to the score."""
        return [
            "same" if was == now else "worse" if was else "better"
            for was, now in zip(self.was_right, self.is_right, strict=True)
        ]

    @property
    def surest_first(self) -> np.ndarray[Any, Any]:
        """Row numbers by falling margin of the baseline, then by sample."""
        return np.lexsort((self.samples, -self.baseline_margins))


def _told(answers: Iterable[Answers], count: int, progress: Progress | None) -> Iterator[Answers]:
    for some in answers:
        yield some
        if progress is not None:
            progress(some.first + len(some), count)


def _gather(answers: Iterable[Answers], top: int) -> _Columns | None:
    """What changed, or None where an output decides no classes after all."""
    parts = []
    for some in answers:
        baseline: Arrays = some.baseline or {}
        before, after = predictions_of(baseline), predictions_of(some.outputs)
        if before is None or after is None:
            return None
        margins, labels = _margins(baseline, len(some)), _labels(some)
        rows = np.flatnonzero(before != after)
        parts.append(
            (
                rows + some.first,
                before[rows],
                after[rows],
                margins[rows],
                _margins(some.outputs, len(some))[rows],
                labels[rows],
                _right(baseline, before, labels, top)[rows],
                _right(some.outputs, after, labels, top)[rows],
                margins,
                labels != _NO_LABEL,
            )
        )
    return _Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _margins(outputs: Arrays, count: int) -> np.ndarray[Any, Any]:
    """The highest score minus the second: float64 (rows,), NaN where there are no scores or no numbers."""
    scores = class_scores(outputs)
    if scores is None:
        return np.full(count, np.nan)
    second, first = np.partition(scores.astype(np.float64), [-2, -1], axis=1)[:, -2:].T
    with np.errstate(invalid="ignore"):
        return np.asarray(first - second)


def _right(
    outputs: Arrays, decided: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], top: int
) -> np.ndarray[Any, Any]:
    """Whether each row's label is among the `top` highest scores, or the decision where there are none."""
    scores = class_scores(outputs)
    if top == 1 or scores is None:
        return np.asarray((labels >= 0) & (decided == labels))
    known = (labels >= 0) & (labels < scores.shape[1])
    return np.asarray(known & (ranks_of(scores, np.where(known, labels, 0)) < top))


def _labels(answers: Answers) -> np.ndarray[Any, Any]:
    """The right class of each row, int64, `_NO_LABEL` where the labels name no classes."""
    labels, scores = answers.labels, class_scores(answers.outputs)
    if labels is None:
        return np.full(len(answers), _NO_LABEL)
    if labels.dtype.kind in "iub" and labels[:1].size == 1:
        return labels.reshape(-1).astype(np.int64)
    if scores is not None and labels.shape == scores.shape:
        return np.asarray(labels.argmax(axis=1))
    return np.full(len(answers), _NO_LABEL)


def _report(found: _Columns, most: int) -> DecisionReport:
    samples, changed = len(found.margins), len(found.samples)
    effects = found.effects
    told = Counter(effects) if found.is_labelled.all() else None
    counts = Counter(zip(found.before.tolist(), found.after.tolist(), strict=True))
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return DecisionReport(
        samples=samples,
        changed=changed,
        changed_share=changed / samples,
        worse=None if told is None else told["worse"],
        better=None if told is None else told["better"],
        baseline_margin_median=_median(found.margins),
        changed_baseline_margin_median=_median(found.baseline_margins),
        pairs=tuple(ClassPair(from_class=a, to_class=b, count=count) for (a, b), count in pairs[:most]),
        decisions=tuple(_decision(found, row, effects[row]) for row in found.surest_first[:most].tolist()),
    )


def _decision(found: _Columns, row: int, effect: Effect) -> ChangedDecision:
    label = int(found.labels[row])
    return ChangedDecision(
        sample=int(found.samples[row]),
        from_class=int(found.before[row]),
        to_class=int(found.after[row]),
        baseline_margin=finite(found.baseline_margins[row]),
        variant_margin=finite(found.variant_margins[row]),
        label=None if label == _NO_LABEL else label,
        effect=None if label == _NO_LABEL else effect,
    )


def _median(margins: np.ndarray[Any, Any]) -> float | None:
    known = margins[np.isfinite(margins)]
    return float(np.median(known)) if known.size else None
