"""The order of the road: clean, calibrate, make variants, prove them, choose, for each target."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jettison.core.artifacts import Store
from jettison.core.batching import one_batch
from jettison.core.errors import ModelError
from jettison.core.memory import release
from jettison.core.progress import Reporter
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.answers import check_rows
from jettison.evaluate.gate import choose
from jettison.evaluate.metrics import Metric, metric_for
from jettison.graph.model import input_specs, open_model, output_specs
from jettison.pipeline.entrance import enter
from jettison.pipeline.explain import Subject, explain
from jettison.pipeline.measure import TimeBudget, bench_of
from jettison.pipeline.modules import SourceModules
from jettison.pipeline.patterns import check_patterns
from jettison.pipeline.pictures import write_pictures
from jettison.pipeline.proof import Court, clear, deliver, hear, variant_result
from jettison.pipeline.results import Explanation, RunResult, TargetResult, VariantResult
from jettison.pipeline.sample_sets import calibration_notes, metric_notes, open_sets, search_metric
from jettison.pipeline.steps import LazyReference, ModelFile, Steps, VariantFile
from jettison.recipe import BASELINE, Recipe, Variant
from jettison.recipe_effects import idle_notes
from jettison.report.looks import PICTURES_FOLDER
from jettison.sources.source import Source

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
class _Road:
    recipe: Recipe
    court: Court
    searching: Court
    calibration: Samples
    notes: tuple[str, ...]
    budget: TimeBudget | None = None
    training: Samples | None = None


def run(recipe: Recipe, surroundings: Surroundings) -> RunResult:
    """Walk the whole road for every target; what stands on disk from an earlier run is not done again.

    Raises:
        ModelError: The model cannot be read.
        SamplesError: The samples do not fit the model.
        RecipeError: The metric does not fit, or a setting is impossible.
    """
    started = surroundings.clock()
    road = _prepare(recipe, surroundings)
    if (seconds := recipe.time_budget_s) is not None:
        clock = surroundings.clock
        road = dataclasses.replace(road, budget=TimeBudget(lambda: seconds - (clock() - started)))
    try:
        results = [_run_target(road, target, surroundings) for target in recipe.targets]
    except ModelError:
        _check_runs(road.court.baseline.path, recipe.model)
        raise
    write_pictures(road.court.samples, results, surroundings.output / PICTURES_FOLDER)
    head = dict(results[0])
    head["seconds"] = round(surroundings.clock() - started, 3)
    return RunResult(**head, targets=tuple(results))


def _check_runs(path: Path, given: Source) -> None:
    """Nothing, where ONNX Runtime takes the clean model: then it was something else that failed.

    Raises:
        ModelError: It refuses it, told of the file that the user gave.
    """
    try:
        OnnxRuntimeRunner(path)
    except ModelError as error:
        raise ModelError(f"model {given}", detail=error.detail, fix=error.fix) from error


def _prepare(recipe: Recipe, surroundings: Surroundings) -> _Road:
    store = Store(surroundings.output / STEPS_FOLDER)
    store.sweep()
    steps = Steps(store, surroundings.reporter, surroundings.machine, recipe.threads)
    entered = enter(recipe.model, recipe.samples.calibration, steps)
    model = open_model(entered.path)
    inputs, outputs = input_specs(model), output_specs(model)
    check_rows(outputs)
    check_patterns(recipe, model)
    sets = open_sets(recipe, inputs)
    metric = metric_for(recipe.metric, sets.evaluation, outputs)
    searching_by = search_metric(recipe, sets.search, metric=metric, outputs=outputs)
    told = metric_notes(
        sets,
        metric=metric.name,
        is_named=recipe.metric is not None,
        gate=recipe.gate,
        searched_by=searching_by.name,
    )
    source = steps.clean(entered.path)
    court = Court(
        steps=steps,
        baseline=source,
        samples=sets.evaluation,
        metric=metric,
        gate=recipe.gate,
        reference=LazyReference(source, sets.evaluation, steps),
        inputs={name: array.copy() for name, array in one_batch(sets.evaluation, inputs).items()},
        seed=recipe.seed,
    )
    searching = _searching(court, sets.search, searching_by)
    few = calibration_notes(recipe, sets.calibration)
    notes = (*entered.notes, *sets.notes, *few, *told, *idle_notes(recipe))
    return _Road(recipe, court, searching, sets.calibration, notes, training=sets.training)


def _searching(court: Court, samples: Samples, metric: Metric) -> Court:
    """The court that a search asks, on samples that are never the verdict's."""
    reference = LazyReference(court.baseline, samples, court.steps)
    return dataclasses.replace(court, samples=samples, metric=metric, reference=reference)


def _run_target(road: _Road, target: Target, surroundings: Surroundings) -> TargetResult:
    started = surroundings.clock()
    court, folder = road.court, surroundings.output / target.name
    made = _variants(road, target)
    clear(folder, keep=(BASELINE, *(name for name, found in made.items() if found.file)))
    files = {name: deliver(found.file, folder / name) for name, found in made.items() if found.file}
    hearing = hear(court, target, files)
    refused = {name: f"refused: {found.record.refusal}" for name, found in made.items() if not found.file}
    choice = choose(hearing.candidates, baseline=BASELINE, refused=refused)
    told = _explanations(road, target, made, files, chosen=choice.name)
    variants = tuple(
        variant_result(name, hearing, found.record).model_copy(update={"explanation": told.get(name)})
        if name in files
        else VariantResult(name=name, reasons=(refused[name],))
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
        notes=(*_warnings(made), *hearing.doubts(choice.name), *road.notes, *hearing.baseline_doubts),
    )


def _variants(road: _Road, target: Target) -> dict[str, VariantFile]:
    """Every variant for that target as it was made, and nothing left of its making."""
    court, modules = road.court, SourceModules()
    made: dict[str, VariantFile] = {}
    for variant in road.recipe.variants_for(target):
        bench = bench_of(road.searching, target, _share(road, variant, target))
        made[variant.name] = court.steps.variant(
            court.baseline,
            variant,
            target,
            road.calibration,
            bench=dataclasses.replace(bench, training=road.training, modules=modules),
        )
        release()
    return made


def _share(road: _Road, variant: Variant, target: Target) -> TimeBudget | None:
    """The variant's part of the time for searches, as all that are still to come get the same."""
    if road.budget is None or not variant.searches:
        return None
    tried = road.recipe.tried
    to_come = [later for later, _ in tried[tried.index((variant, target)) :] if later.searches]
    return road.budget.share(len(to_come))


def _warnings(made: Mapping[str, VariantFile]) -> tuple[str, ...]:
    """What the passes of a variant tell that must not be overlooked, under the variant's name."""
    return tuple(f"{name}: {text}" for name, found in made.items() for text in found.record.warnings)


def _explanations(
    road: _Road,
    target: Target,
    made: Mapping[str, VariantFile],
    files: Mapping[str, ModelFile],
    *,
    chosen: str,
) -> dict[str, Explanation]:
    """What changed in each variant, where the recipe asks for it."""
    if not road.recipe.explain:
        return {}
    return {
        name: explain(
            road.court,
            Subject(name, file, made[name].record, target, road.calibration),
            looks=name == chosen,
        )
        for name, file in files.items()
    }


def peak_rss_bytes() -> int:
    """The largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
