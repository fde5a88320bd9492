"""Whether a variant decides for the same reasons as the baseline: what each looks at, found by occlusion.

Parts of a sample are hidden one by one, and the map holds how far the score of a class falls:

    map[p] = score_c(x) - score_c(x with part p hidden)

c is the class that the baseline decides for, in both maps, so that they answer one question even where the
decisions differ. Needs no gradients: an ONNX file, an engine and a live server are explained alike.

Two figures compare the maps of a sample. Spearman's rank correlation takes all parts alike, those as well
that hardly matter, whose order rounding may change. The overlap of the top tenth takes only the parts that
matter most: 1 where they are the same, 0.1 to be expected of maps that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jettison.core.errors import ModelError
from jettison.core.progress import Progress, silent
from jettison.core.runner import Runner
from jettison.core.samples import Batch, Samples
from jettison.core.tensors import Arrays
from jettison.evaluate.agreement import Map, falls, rank_correlation, top_overlap
from jettison.evaluate.answers import answers_of
from jettison.evaluate.classes import NO_CLASS, class_scores
from jettison.evaluate.explanation import NotApplicable, finite, without_classes
from jettison.evaluate.occlusion import Layout, Occluder, occluder_of

_BATCH_BYTES = 64 << 20
"""Inputs of one batch at most: a driving camera's image in float32 is 25 MB."""

_DIGITS = 6
"""Of a map's numbers in the report: as many as float32 has for certain, and half the text."""


class SaliencyPlan(BaseModel):
    """How much to hide, and in how many samples.

    Each model takes `samples * (patches_per_side ** 2 + 1)` images at most: 800 unless told, 8 s at 10 ms.

    Args:
        samples: How many to explain, evenly spaced over the set.
        numbers: Samples by number, in place of evenly spaced ones.
        patches_per_side: Of an image; fewer where a side has fewer pixels.
        most_tokens: Parts of a text; neighbouring tokens are left out together where it has more.
        batch_size: Samples run together; fewer where they are large, or as the model fixes it. More took no
            less time and more memory, 0.9 GB at 32, an EfficientNet-Lite0 on two cores.
        layout: Where an image's channels lie, if the rule of `occlusion` does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=16, ge=1)
    numbers: tuple[int, ...] = ()
    patches_per_side: int = Field(default=7, ge=2)
    most_tokens: int = Field(default=49, ge=2)
    batch_size: int = Field(default=4, ge=1)
    layout: Layout | None = None


class SampleSaliency(BaseModel):
    """What the two models look at in one sample.

    Args:
        sample: Its number in the set, from 0.
        class_number: The class whose score is watched, the baseline's decision.
        variant_class: The variant's decision; -1 where its scores are not numbers.
        rank_correlation: Spearman's, -1 to 1; 0 where a score is not a number.
        top_overlap: Share of the top tenth that both maps have in common, 0 to 1.
        baseline_map: Fall of the score by part in the unit of the scores, row by row; None for a score that
            is not a number. One row for a text.
        variant_map: The same of the variant.
    """

    model_config = ConfigDict(frozen=True)

    sample: int
    class_number: int
    variant_class: int
    rank_correlation: float
    top_overlap: float
    baseline_map: tuple[tuple[float | None, ...], ...]
    variant_map: tuple[tuple[float | None, ...], ...]


class SaliencyReport(BaseModel):
    """Agreement of what the baseline and a variant look at.

    Args:
        kind: What parts are hidden of.
        input: In which input; others stay whole.
        layout: Where its channels were taken to lie; None for tokens.
        rank_correlation: Mean over the samples.
        rank_correlation_low: Of the sample with the lowest one.
        top_overlap: Mean over the samples.
        broken: Samples with a score that is not a number, for which agreement counts as 0.
        samples: Each explained sample, by its number.
    """

    model_config = ConfigDict(frozen=True)

    applies: Literal[True] = True
    kind: Literal["image", "tokens"]
    input: str
    layout: Layout | None
    rank_correlation: float
    rank_correlation_low: float
    top_overlap: float
    broken: int
    samples: tuple[SampleSaliency, ...]


def explain_saliency(
    baseline: Runner,
    variant: Runner,
    samples: Samples,
    *,
    plan: SaliencyPlan | None = None,
    decides_classes: bool | None = None,
    progress: Progress | None = None,
) -> SaliencyReport | NotApplicable:
    """Whether both models look at the same parts of some samples.

    Args:
        baseline: The float model.
        variant: The compressed one.
        samples: Of which the plan takes some.
        plan: How much to hide.
        decides_classes: Whether the first output is a class decision; None to judge by its shape and name.
        progress: Gets the runs done and their number.

    Raises:
        ModelError: An output has no row per sample, or the models know different classes.
    """
    plan = plan or SaliencyPlan()
    refused = without_classes(baseline.outputs, decides_classes=decides_classes)
    if refused is not None:
        return refused
    numbers = plan.numbers or _evenly_spaced(samples.count, plan.samples)
    rows = _Rows(samples, tuple(sorted({number for number in numbers if 0 <= number < samples.count})))
    row = next(iter(rows.read()), None)
    if row is None:
        return NotApplicable(reason=f"none of the samples {list(numbers)} is in the set of {samples.count}")
    occluder = occluder_of(
        baseline.inputs,
        row,
        patches_per_side=plan.patches_per_side,
        most_tokens=plan.most_tokens,
        layout=plan.layout,
    )
    if isinstance(occluder, NotApplicable):
        return occluder
    row_bytes = sum(array.nbytes for array in row.values())
    at_once = min(plan.batch_size, max(1, _BATCH_BYTES // max(1, row_bytes)))
    return _Study(rows, occluder, at_once, progress or silent("")).compare(baseline, variant)


def _evenly_spaced(count: int, wanted: int) -> tuple[int, ...]:
    """Numbers over the whole set, since sets are often sorted by class."""
    return tuple(index * count // min(count, wanted) for index in range(min(count, wanted)))


@dataclass(frozen=True)
class _Rows:
    """Some samples of a set, read one at a time, the order kept."""

    samples: Samples
    numbers: tuple[int, ...]

    def read(self) -> Iterator[Arrays]:
        """Inputs of each, with a first axis of 1."""
        wanted, number = set(self.numbers), 0
        for batch in self.samples.read():
            for row in range(len(batch)):
                if number in wanted:
                    yield {name: array[row : row + 1] for name, array in batch.inputs.items()}
                number += 1
            if number > max(self.numbers, default=-1):
                return


@dataclass(frozen=True)
class _Study:
    """Both models, asked about the same samples with the same parts hidden."""

    rows: _Rows
    occluder: Occluder
    rows_at_once: int
    progress: Progress

    def compare(self, baseline: Runner, variant: Runner) -> SaliencyReport | NotApplicable:
        grids = [self.occluder.grid(row) for row in self.rows.read()]
        before, after = self._whole(baseline), self._whole(variant)
        if before is None or after is None:
            return NotApplicable(reason="the model gives decisions without the scores behind them")
        if before.shape != after.shape:
            raise ModelError(
                "class scores",
                detail=f"expected the baseline's {before.shape[1]} classes, found {after.shape[1]}",
                fix="Compare variants of one model, with the same outputs",
            )
        classes = _decided(before)
        parts = sum(down * right for down, right in grids)
        first = self._maps(baseline, before, classes, grids=grids, done=0)
        second = self._maps(variant, after, classes, grids=grids, done=parts)
        columns = zip(self.rows.numbers, classes, _decided(after), first, second, strict=True)
        return _report([_sample(*row) for row in columns if row[-1].size > 1], self.occluder)

    def _whole(self, runner: Runner) -> np.ndarray[Any, Any] | None:
        """Class scores of the samples as they are, float64 (samples, classes); None where there are none."""
        found = []
        stream = self._stream(map(Batch, self.rows.read()))
        for answers in answers_of(runner, stream, batch_size=self.rows_at_once):
            scores = class_scores(answers.outputs)
            if scores is None:
                return None
            found.append(scores.astype(np.float64))
        return np.concatenate(found)

    def _maps(
        self,
        runner: Runner,
        whole: np.ndarray[Any, Any],
        classes: np.ndarray[Any, Any],
        *,
        grids: Sequence[tuple[int, int]],
        done: int,
    ) -> list[Map]:
        """A map for each sample: how far the score of its class falls by each hidden part."""
        sizes = [down * right for down, right in grids]
        watched, total = np.repeat(classes, sizes), 2 * sum(sizes)
        scores = np.full(len(watched), np.nan)
        stream = self._stream(self._occluded())
        for answers in answers_of(runner, stream, batch_size=self.rows_at_once):
            part = slice(answers.first, answers.first + len(answers))
            rows = class_scores(answers.outputs)
            if rows is not None:
                scores[part] = np.take_along_axis(rows.astype(np.float64), watched[part, None], axis=1)[:, 0]
            self.progress(done + part.stop, total)
        by_sample = np.split(scores, np.cumsum(sizes)[:-1])
        return [
            falls(unhidden, hidden).reshape(grid)
            for unhidden, hidden, grid in zip(_of(whole, classes), by_sample, grids, strict=True)
        ]

    def _occluded(self) -> Iterator[Batch]:
        """Every sample once for each of its parts, hidden."""
        for row in self.rows.read():
            down, right = self.occluder.grid(row)
            for start in range(0, down * right, self.rows_at_once):
                parts = range(start, min(start + self.rows_at_once, down * right))
                yield Batch(self.occluder.hidden(row, parts))

    def _stream(self, batches: Iterable[Batch]) -> Samples:
        """Batches in the form that models are asked with, to be read once."""
        of = self.rows.samples
        return Samples(
            f"{of.source} (parts hidden)", len(self.rows.numbers), False, of.sha256, lambda: iter(batches)
        )


def _decided(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The class of the highest score, `NO_CLASS` where one is not a number: int64 (samples,)."""
    return np.where(np.isnan(scores).any(axis=1), NO_CLASS, scores.argmax(axis=1))


def _of(scores: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The score of each sample's class; NaN without a class."""
    picked = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    return np.where(classes == NO_CLASS, np.nan, picked)


def _sample(number: int, decided: int, variant_decided: int, first: Map, second: Map) -> SampleSaliency:
    return SampleSaliency(
        sample=number,
        class_number=int(decided),
        variant_class=int(variant_decided),
        rank_correlation=rank_correlation(first, second),
        top_overlap=top_overlap(first, second),
        baseline_map=_numbers(first),
        variant_map=_numbers(second),
    )


def _numbers(found: Map) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(finite(float(f"{value:.{_DIGITS}g}")) for value in row) for row in found.tolist())


def _report(found: Sequence[SampleSaliency], occluder: Occluder) -> SaliencyReport | NotApplicable:
    if not found:
        return NotApplicable(reason="no sample has two parts that could be hidden one after the other")
    correlations = [sample.rank_correlation for sample in found]
    return SaliencyReport(
        kind=occluder.kind,
        input=occluder.input,
        layout=occluder.layout,
        rank_correlation=float(np.mean(correlations)),
        rank_correlation_low=min(correlations),
        top_overlap=float(np.mean([sample.top_overlap for sample in found])),
        broken=sum(_is_broken(sample) for sample in found),
        samples=tuple(found),
    )


def _is_broken(sample: SampleSaliency) -> bool:
    return any(None in row for row in (*sample.baseline_map, *sample.variant_map))
