"""The order of the road: clean, calibrate, make variants, prove them, choose, for each target."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jettison.core.artifacts import Store
from jettison.core.batching import one_batch
from jettison.core.progress import Reporter
from jettison.core.samples import Samples, open_samples, split
from jettison.core.targets import Target
from jettison.core.tensors import TensorSpec
from jettison.evaluate.gate import choose
from jettison.evaluate.metrics import default_metric, metric_for
from jettison.graph.model import input_specs, open_model, output_specs
from jettison.pipeline.measure import bench_of
from jettison.pipeline.proof import Court, deliver, hear, variant_result
from jettison.pipeline.results import RunResult, TargetResult, VariantResult
from jettison.pipeline.steps import LazyReference, Steps
from jettison.recipe import BASELINE, Recipe

STEPS_FOLDER = "steps"


@dataclass(frozen=True)
class Surroundings:
    """What the command line knows and the steps must not look up: where to work, who listens, the time.

    `clock` gives seconds. `machine` identifies the processor, whose latencies no other machine shares.
    """

    output: Path
    reporter: Reporter
    clock: Callable[[], float]
    machine: str


@dataclass(frozen=True)
class _Sets:
    calibration: Samples
    search: Samples
    evaluation: Samples
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Road:
    recipe: Recipe
    court: Court
    searching: Court
    sets: _Sets


def run(recipe: Recipe, surroundings: Surroundings) -> RunResult:
    """Walk the whole road for every target; what stands on disk from an earlier run is not done again.

    Raises:
        ModelError: The model cannot be read.
        SamplesError: The samples do not fit the model.
        RecipeError: The metric does not fit, or a setting is impossible.
    """
    started = surroundings.clock()
    road = _prepare(recipe, surroundings)
    results = [_run_target(road, target, surroundings) for target in recipe.targets]
    head = dict(results[0])
    head["seconds"] = round(surroundings.clock() - started, 3)
    return RunResult(**head, targets=tuple(results))


def _prepare(recipe: Recipe, surroundings: Surroundings) -> _Road:
    model = open_model(recipe.model.path)
    inputs, outputs = input_specs(model), output_specs(model)
    sets = _samples(recipe, inputs)
    metric = metric_for(recipe.metric, sets.evaluation, outputs)
    store = Store(surroundings.output / STEPS_FOLDER)
    steps = Steps(store, surroundings.reporter, surroundings.machine, recipe.threads)
    source = steps.clean(recipe.model.path)
    court = Court(
        steps=steps,
        baseline=source,
        samples=sets.evaluation,
        metric=metric,
        gate=recipe.gate,
        reference=LazyReference(source, sets.evaluation, steps),
        inputs=one_batch(sets.evaluation, inputs),
        seed=recipe.seed,
    )
    return _Road(recipe, court, _searching(court, sets.search, outputs), sets)


def _searching(court: Court, samples: Samples, outputs: tuple[TensorSpec, ...]) -> Court:
    """What a search judges by: samples that are never the verdict's.

    Samples without labels are judged by what fits them, since the recipe's metric may need labels.
    """
    metric = court.metric
    if metric.needs_labels and not samples.has_labels:
        metric = default_metric(samples, outputs)
    reference = LazyReference(court.baseline, samples, court.steps)
    return dataclasses.replace(court, samples=samples, metric=metric, reference=reference)


def _samples(recipe: Recipe, specs: tuple[TensorSpec, ...]) -> _Sets:
    """All sets, checked before any work; without search samples a search uses those of the calibration."""
    sources, notes = recipe.samples, list[str]()
    calibration = open_samples(sources.calibration, specs)
    if sources.evaluation is not None:
        evaluation = open_samples(sources.evaluation, specs)
    else:
        calibration, evaluation = split(calibration, 0.5, seed=recipe.seed)
        notes.append(
            f"one sample set was given: halved by seed {recipe.seed} into calibration and evaluation"
        )
    search = calibration if sources.search is None else open_samples(sources.search, specs)
    if evaluation.sha256 in (calibration.sha256, search.sha256):
        notes.append("the evaluation samples are those of calibration or search: no evidence on unseen ones")
    return _Sets(calibration, search, evaluation, tuple(notes))


def _run_target(road: _Road, target: Target, surroundings: Surroundings) -> TargetResult:
    started = surroundings.clock()
    court, folder = road.court, surroundings.output / target.name
    bench = bench_of(road.searching, target)
    made = {
        variant.name: court.steps.variant(court.baseline, variant, target, road.sets.calibration, bench=bench)
        for variant in road.recipe.variants_for(target)
    }
    files = {name: deliver(found.file, folder / name) for name, found in made.items() if found.file}
    hearing = hear(court, target, files)
    choice = choose(hearing.candidates, baseline=BASELINE)
    variants = tuple(
        variant_result(name, hearing, found.record)
        if name in files
        else VariantResult(name=name, reasons=(f"refused: {found.record.refusal}",))
        for name, found in made.items()
    )
    return TargetResult(
        model=road.recipe.model.name,
        target=target.name,
        baseline=hearing.baseline.model_copy(
            update={"path": deliver(court.baseline, folder / BASELINE).path.resolve()}
        ),
        variants=variants,
        chosen=choice.name,
        reasons=choice.reasons,
        evaluations=sum(max(found.record.evaluations, 1) for found in made.values() if found.file),
        seconds=round(surroundings.clock() - started, 3),
        peak_rss_bytes=peak_rss_bytes(),
        metric=court.metric.name,
        evaluation_samples=court.samples.count,
        notes=road.sets.notes,
    )


def peak_rss_bytes() -> int:
    """The largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
