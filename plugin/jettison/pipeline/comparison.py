"""Two finished model files against each other: the evidence without the making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jettison.core.artifacts import Store, lineage_of
from jettison.core.batching import one_batch
from jettison.core.errors import ModelError
from jettison.core.samples import open_samples
from jettison.core.targets import Target
from jettison.core.tensors import TensorSpec
from jettison.evaluate.answers import check_rows
from jettison.evaluate.gate import Gate, choose
from jettison.evaluate.labels import unused_labels
from jettison.evaluate.metrics import metric_for
from jettison.graph.model import input_specs, model_digest, open_model, output_specs
from jettison.pipeline.entrance import enter
from jettison.pipeline.proof import Court, hear, variant_result
from jettison.pipeline.records import VariantRecord
from jettison.pipeline.results import TargetResult
from jettison.pipeline.run import STEPS_FOLDER, Surroundings, peak_rss_bytes
from jettison.pipeline.steps import LazyReference, ModelFile, Steps
from jettison.recipe import BASELINE
from jettison.sources.source import Source


@dataclass(frozen=True)
class Comparison:
    """Which variant to hold against which baseline, on what and how."""

    variant: Source
    baseline: Source
    samples: str
    target: Target
    metric: str | None = None
    gate: Gate = field(default_factory=Gate)
    seed: int = 0
    threads: int = 0


def compare(asked: Comparison, surroundings: Surroundings) -> TargetResult:
    """Score, interval, latency and verdict of one model against another.

    Raises:
        ModelError: A model cannot be read, or their inputs or outputs differ.
        SamplesError: The samples do not fit the models.
    """
    started = surroundings.clock()
    steps = Steps(
        Store(surroundings.output / STEPS_FOLDER),
        surroundings.reporter,
        surroundings.machine,
        asked.threads,
    )
    entered = [enter(source, asked.samples, steps) for source in (asked.baseline, asked.variant)]
    baseline, variant = (open_model(found.path) for found in entered)
    inputs, outputs = input_specs(baseline), output_specs(baseline)
    _check_signature(inputs, input_specs(variant), asked.variant)
    _check_signature(outputs, output_specs(variant), asked.variant)
    check_rows(outputs)
    samples = open_samples(asked.samples, inputs)
    metric = metric_for(asked.metric, samples, outputs)
    unused = None if asked.metric else unused_labels(metric.name, samples)
    source = _given(entered[0].path)
    court = Court(
        steps=steps,
        baseline=source,
        samples=samples,
        metric=metric,
        gate=asked.gate,
        reference=LazyReference(source, samples, steps),
        inputs=one_batch(samples, inputs),
        seed=asked.seed,
    )
    name = asked.variant.stem if asked.variant.stem != BASELINE else "variant"
    hearing = hear(court, asked.target, {name: _given(entered[1].path)})
    choice = choose(hearing.candidates, baseline=BASELINE)
    return TargetResult(
        model=asked.baseline.stem,
        target=asked.target.name,
        baseline=hearing.baseline,
        variants=(variant_result(name, hearing, VariantRecord()),),
        chosen=choice.name,
        reasons=choice.reasons,
        evaluations=1,
        seconds=round(surroundings.clock() - started, 3),
        peak_rss_bytes=peak_rss_bytes(),
        metric=metric.name,
        evaluation_samples=samples.count,
        notes=(
            *(note for found in entered for note in found.notes),
            *hearing.doubts(name),
            *(() if unused is None else (unused,)),
            *hearing.baseline_doubts,
        ),
    )


def _given(path: Path) -> ModelFile:
    digest = model_digest(path)
    return ModelFile(path, digest, lineage_of("given", "", parents=(digest,), libraries=()))


def _check_signature(expected: Sequence[TensorSpec], found: Sequence[TensorSpec], given: Source) -> None:
    """Names and element types must be equal; sizes are judged when the samples run."""
    want = sorted((spec.name, spec.dtype.name) for spec in expected)
    have = sorted((spec.name, spec.dtype.name) for spec in found)
    if want != have:
        raise ModelError(
            f"model {given}", detail=f"expected inputs and outputs like the baseline's, {want}, found {have}",
            fix="Compare models of one signature",
        )  # fmt: skip
