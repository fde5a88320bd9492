"""The sets of samples of a run: which decide, which a search may look at, and what they have in common.

Evidence is on samples that no search saw. What is known from a calibration is less: ranges of activations,
so evaluation on its samples is allowed, and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jettison.compress.passes import Learner
from jettison.core.errors import SamplesError
from jettison.core.samples import Samples, open_samples, shared, split
from jettison.core.tensors import TensorSpec
from jettison.evaluate.figures import exact, percent
from jettison.evaluate.gate import Gate, samples_needed
from jettison.evaluate.labels import check_labels, unused_labels
from jettison.evaluate.metrics import BINARY, Metric, default_metric
from jettison.recipe import Recipe

FEW_SAMPLES = 16
"""Fewer calibration samples leave ranges of activations to chance."""


@dataclass(frozen=True)
class SampleSets:
    """The checked sets. `is_halved` where calibration and evaluation are halves of one source."""

    calibration: Samples
    search: Samples
    evaluation: Samples
    is_halved: bool
    notes: tuple[str, ...]
    training: Samples | None = None


def open_sets(recipe: Recipe, specs: Sequence[TensorSpec]) -> SampleSets:
    """All sets, checked before any work; without search samples a search uses those of the calibration.

    Raises:
        SamplesError: A set does not fit the model, or a search or a training would see all samples that
            decide.
        ModelError: A pass learns from a model that does not exist.
    """
    sources, halving = recipe.samples, list[str]()
    calibration = open_samples(sources.calibration, specs)
    if sources.evaluation is not None:
        evaluation = open_samples(sources.evaluation, specs)
    else:
        calibration, evaluation = split(calibration, 0.5, seed=recipe.seed)
        halving = [f"one sample set was given: halved by seed {recipe.seed} into calibration and evaluation"]
    search = calibration if sources.search is None else open_samples(sources.search, specs)
    training = None if sources.training is None else open_samples(sources.training, specs)
    for step in (step for variant in recipe.variants for step in variant.passes):
        if training is not None and isinstance(step, Learner):
            step.check_sources(training)
    seen = (*_overlaps(recipe, calibration, search, evaluation), *_learned(recipe, training, evaluation))
    return SampleSets(calibration, search, evaluation, bool(halving), (*seen, *halving), training)


def search_metric(
    recipe: Recipe, samples: Samples, *, metric: Metric, outputs: Sequence[TensorSpec]
) -> Metric:
    """What a search judges by: the metric of the verdict, or one in its unit where its samples lack labels.

    Where no variant searches, nothing is asked of those samples.

    Raises:
        SamplesError: The labels are none that the metric can read, or lack and no metric stands in for it.
    """
    if recipe.searching is None:
        return metric
    found = metric
    if metric.needs_labels and not samples.has_labels:
        found = default_metric(samples, outputs)
        if not {found.name, metric.name} <= {*BINARY}:
            raise _unlabelled(recipe.searching, samples, metric)
    check_labels(found.name, samples, outputs)
    return found


def _unlabelled(variant: str, samples: Samples, metric: Metric) -> SamplesError:
    return SamplesError(
        f"samples {samples.source}",
        detail=f"expected labels, since variant {variant!r} judges its choices on these samples and the "
        f"metric {metric.name!r} needs them, found none",
        fix="Add an array 'labels' to them, or give other samples with --search (search in the recipe)",
    )


def metric_notes(
    sets: SampleSets, *, metric: str, is_named: bool, gate: Gate, searched_by: str | None = None
) -> Iterator[str]:
    """What the metric makes of the samples: labels that it does not use, halves too small for the tolerance.

    Args:
        sets: The samples.
        metric: What decides.
        is_named: Whether the user asked for that metric.
        gate: Has the tolerance.
        searched_by: What a search judges by, where that may be another metric.
    """
    if searched_by not in (None, metric):
        yield (
            f"the search judges by {searched_by} with the tolerance for {metric}, since its samples have no "
            "labels; give search samples with labels to have it judge as the verdict does"
        )
    unused = None if is_named else unused_labels(metric, sets.evaluation)
    if unused is not None:
        yield unused
    needed, count = samples_needed(gate), sets.evaluation.count
    if sets.is_halved and metric in BINARY and needed is not None and count < needed:
        yield (
            f"halving leaves {count} samples that decide, where a tolerance of {exact(gate.tolerance)} at "
            f"{percent(gate.confidence)} confidence takes about {needed} even if not one differs: give at "
            f"least {2 * needed} samples, or evaluation samples of their own"
        )


def calibration_notes(recipe: Recipe, calibration: Samples) -> Iterator[str]:
    """That the samples are few, where a variant takes ranges of activations from them."""
    passes = (made for variant, _ in recipe.tried for made in variant.passes)
    ranged = any("ranges" in type(made).model_fields for made in passes)
    if ranged and calibration.count < FEW_SAMPLES:
        samples = "sample" if calibration.count == 1 else "samples"
        told = "ranges of activations are guesses; 128 are plenty"
        yield f"{calibration.count} calibration {samples}: {told}"


def _overlaps(recipe: Recipe, calibration: Samples, search: Samples, evaluation: Samples) -> Iterator[str]:
    count, seen = evaluation.count, shared(evaluation, calibration)
    searching, halve = recipe.searching, _instead(recipe)
    if searching is not None:
        searched = seen if search is calibration else shared(evaluation, search)
        if searched == count:
            raise _all_searched(recipe, searching, evaluation)
        if searched and search is not calibration:
            yield f"{searched} of {count} evaluation samples are among those that the search judges by"
    if seen == count:
        yield (
            f"the evaluation samples are those of the calibration (all {count}): no evidence on unseen ones; "
            f"give others, {halve}"
        )
    elif seen:
        use = ", by which the search judges too" if searching and search is calibration else ""
        yield f"{seen} of {count} evaluation samples are among those of the calibration{use}"


def _learned(recipe: Recipe, training: Samples | None, evaluation: Samples) -> Iterator[str]:
    """That some evaluation samples are trained on, where a variant trains; all of them are refused."""
    trained = next((variant.name for variant, _ in recipe.tried if variant.trains), None)
    if training is None or trained is None:
        return
    count, learned = evaluation.count, shared(evaluation, training)
    if learned == count:
        raise SamplesError(
            f"samples {evaluation.source}",
            detail=f"expected evaluation samples that no training sees, found all {count} among the training "
            f"samples, from which variant {trained!r} learns",
            fix="Give other samples with --training (training in the recipe), or others for evaluation",
        )
    if learned:
        yield f"{learned} of {count} evaluation samples are among those that variant {trained!r} learns from"


def _instead(recipe: Recipe) -> str:
    """What else makes calibration and evaluation differ; halves of one set agree in equal samples only."""
    if recipe.samples.evaluation is None:
        return "or a calibration set in which not all samples are equal"
    return "or leave evaluation out, so that calibration is halved"


def _all_searched(recipe: Recipe, variant: str, evaluation: Samples) -> SamplesError:
    which, otherwise = "search", "or none"
    if recipe.samples.search is None:
        which, otherwise = "calibration", _instead(recipe)
    return SamplesError(
        f"samples {evaluation.source}",
        detail=f"expected evaluation samples that no search sees, found all {evaluation.count} among the "
        f"{which} samples, by which variant {variant!r} judges its choices",
        fix=f"Give other samples with --search (search in the recipe), {otherwise}",
    )
