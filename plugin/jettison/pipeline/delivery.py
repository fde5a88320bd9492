"""From a model file or a finished run into a Triton model repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from jettison.core.artifacts import LINEAGE_FILE, Lineage
from jettison.core.errors import ModelError, RecipeError, RepositoryError
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.model import input_specs, model_digest, model_files, open_model, output_specs
from jettison.graph.shapes import example_inputs
from jettison.pipeline.results import Delivered, RunResult, TargetResult, VariantResult
from jettison.recipe import BASELINE, FLOAT_SUFFIX, Recipe
from jettison.report.run_file import REPORT_FILE
from jettison.triton.manifest import Evidence, Golden, golden_of, read_manifest, record_of
from jettison.triton.publish import Published, Release, publish
from jettison.triton.repository import ModelFolder, model_folder
from jettison.triton.serving import MODEL_FILENAME, config_of

GOLDEN_SEED = 20
_OTHER_EVIDENCE = (
    "it stood there already: the evidence in its manifest is of the run that published it, whose score or "
    "tolerance was another"
)


def publish_file(
    path: Path,
    repository: Path,
    name: str,
    *,
    created: str,
    keep_versions: int = 2,
    evidence: Evidence | None = None,
) -> Published:
    """Publish an ONNX file as the next version of that model.

    Raises:
        ModelError: The file cannot be read, or ONNX Runtime cannot run it.
        RepositoryError: The repository refuses it; what was served before still is.
    """
    release = release_of(path, name, created=created, evidence=evidence)
    return publish(release, repository, keep_versions=keep_versions)


def publish_results(result: RunResult, recipe: Recipe, *, created: str) -> RunResult:
    """Publish baseline and chosen variant of the `cpu` target, one model each; equal files are not repeated.

    Results for GPU targets need an engine first, which only the GPU or its Triton image can build.

    Raises:
        RecipeError: The recipe does not say where.
        RepositoryError: The repository refuses them.
    """
    if recipe.publish is None:
        raise RecipeError(
            "publish", detail="the recipe does not say where", fix="Add publish: {repository: ...}"
        )
    target = _cpu_result(result)
    if target is None:
        note = "nothing published: results for GPUs need an engine, built on the GPU or in its Triton image"
        return result.model_copy(update={"notes": (*result.notes, note)})
    root, keep = recipe.publish.repository, recipe.publish.keep_versions
    wanted = {f"{target.model}-{FLOAT_SUFFIX}": (target.baseline.path, _baseline_evidence(target))}
    chosen = target.chosen_variant
    if chosen is not None and chosen.path is not None:
        wanted[f"{target.model}-{chosen.name}"] = (chosen.path, _variant_evidence(chosen, target))
    published = tuple(
        _standing(path, root, name, evidence=evidence)
        or _delivered(publish_file(path, root, name, created=created, keep_versions=keep, evidence=evidence))
        for name, (path, evidence) in wanted.items()
    )
    notes = (*result.notes, *(f"{done.model}: {note}" for done in published for note in done.notes))
    if chosen is None:
        notes = (*notes, "the baseline was chosen, and it alone is published")
    return result.model_copy(update={"published": published, "notes": notes})


class ChosenModel(NamedTuple):
    """The model that a finished run chose, and why."""

    path: Path
    evidence: Evidence

    @property
    def note(self) -> str | None:
        """What whoever publishes it must know: that it is the baseline, since no variant held."""
        reasons = self.evidence.reasons
        if reasons[:1] != (BASELINE,):
            return None
        return f"the run chose the baseline, the float model: {'; '.join(reasons[1:]) or 'no variant held'}"


def chosen_model(run_folder: Path) -> ChosenModel:
    """The model that a finished run chose for the `cpu`, and why; a moved or copied run is as good.

    Raises:
        RecipeError: The folder holds no report.
        RepositoryError: The run has no result for the `cpu`, or its model is gone or was changed.
    """
    result = _report(run_folder)
    target = _cpu_result(result)
    if target is None:
        raise _for_gpus_only(run_folder, result)
    variant = target.chosen_variant
    if variant is None or variant.path is None:
        found, sha256, evidence = target.baseline.path, target.baseline.sha256, _baseline_evidence(target)
    else:
        found, sha256, evidence = variant.path, variant.sha256, _variant_evidence(variant, target)
    path = _found(found, run_folder / target.target / target.chosen / found.name, run_folder)
    if sha256 is not None and model_digest(path) != sha256:
        raise RepositoryError(
            f"model {path}",
            detail="expected the file that the run measured, found another or a changed one",
            fix="Run again, or publish the file by its path, without the run's evidence",
        )
    return ChosenModel(path, evidence)


def _report(run_folder: Path) -> RunResult:
    report = run_folder / REPORT_FILE
    try:
        return RunResult.model_validate_json(report.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecipeError(
            f"run {run_folder}",
            detail=f"expected a finished run with {REPORT_FILE}",
            fix="Give an ONNX file, or run again",
        ) from error


def _found(recorded: Path, inside: Path, run_folder: Path) -> Path:
    """The model where a run folder has it, wherever that folder was moved to, else where the report says."""
    for path in (inside, recorded):
        if path.is_file():
            return path
    raise RepositoryError(
        f"run {run_folder}",
        detail=f"expected its model at {inside} or {recorded}, found neither",
        fix="Copy the run folder with all that is in it, or run again",
    )


def _for_gpus_only(run_folder: Path, result: RunResult) -> RepositoryError:
    """Its models are in TensorRT's dialect, for which ONNX Runtime has no fast kernels on a CPU."""
    names = ", ".join(target.target for target in result.targets) or result.target
    model = run_folder / result.target / result.chosen / MODEL_FILENAME
    return RepositoryError(
        f"run {run_folder}",
        detail=f"expected a result for cpu, found {names}: a model for GPUs is in TensorRT's dialect and "
        "is published once its engine is built, on the GPU or in its Triton image",
        fix=f"Run with target cpu too, or publish {model} by its path if ONNX Runtime shall serve it anyway",
    )


def _cpu_result(result: RunResult) -> TargetResult | None:
    return next((found for found in result.targets if found.target == "cpu"), None)


def release_of(path: Path, name: str, *, created: str, evidence: Evidence | None) -> Release:
    """An ONNX file with its configuration, lineage and golden answers.

    Raises:
        ModelError: The file cannot be read, or ONNX Runtime cannot run it.
    """
    model = open_model(path)
    return Release(
        config=config_of(name, input_specs(model), output_specs(model)),
        files=_released_files(path),
        created=created,
        lineage=_lineage_beside(path),
        golden=_golden(path),
        evidence=evidence,
    )


def _released_files(path: Path) -> dict[str, Path]:
    """The model and its external data by their names in the version folder.

    Raises:
        ModelError: The model finds its data in a subfolder, which a version folder does not have.
    """
    model, *data = model_files(path)
    below = [file for file in data if file.parent != path.parent.resolve()]
    if below or MODEL_FILENAME in {file.name for file in data}:
        raise ModelError(
            f"model {path}",
            detail=f"expected external data beside it, found {', '.join(map(str, below or data))}",
            fix="Save it again with all data in one file beside it, named other than model.onnx",
        )
    return {MODEL_FILENAME: model, **{file.name: file for file in data}}


def _golden(path: Path) -> Golden:
    """The fingerprint of one inference on seeded inputs; a model that cannot run is found here."""
    runner = OnnxRuntimeRunner(path)
    return golden_of(runner.run(example_inputs(runner.inputs, seed=GOLDEN_SEED)), seed=GOLDEN_SEED, batch=1)


def _lineage_beside(path: Path) -> Lineage | None:
    record = path.parent / LINEAGE_FILE
    try:
        return Lineage.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):
        return None


def _delivered(done: Published) -> Delivered:
    return Delivered(done.model, done.version, done.path, done.retired, done.notes)


def _standing(path: Path, root: Path, name: str, *, evidence: Evidence) -> Delivered | None:
    """The newest served version of that name, if it already holds this very model."""
    if not root.is_dir():
        return None
    folder: ModelFolder = model_folder(root, name)
    versions = folder.listed_versions()
    if not versions:
        return None
    newest = folder.path / str(versions[-1])
    manifest = read_manifest(newest)
    wanted = {record_of(file).sha256 for file in model_files(path)}
    if manifest is None or wanted != {record.sha256 for record in manifest.files}:
        return None
    changed = manifest.changed_files(newest)
    if changed:
        raise RepositoryError(
            f"model {name!r}",
            detail=f"version {versions[-1]} differs from its manifest: {', '.join(changed)}",
            fix="Someone changed it in place: remove that version folder and publish again",
        )
    notes = () if _judged(manifest.evidence) == _judged(evidence) else (_OTHER_EVIDENCE,)
    return Delivered(name, versions[-1], newest, notes=notes, is_new=False)


def _judged(evidence: Evidence | None) -> tuple[object, ...]:
    """Score and tolerance, without the times, which differ a little in every run."""
    if evidence is None:
        return ()
    tolerances = set(re.findall(r"tolerance of ([\d.e+-]*\d)", "; ".join(evidence.reasons)))
    return (evidence.metric, evidence.score, evidence.score_delta, evidence.score_delta_low, tolerances)


def _baseline_evidence(result: TargetResult) -> Evidence:
    baseline = result.baseline
    return Evidence(
        target=result.target,
        metric=result.metric,
        score=baseline.score,
        latency_ms=baseline.latency_ms,
        reasons=(BASELINE, *result.reasons),
    )


def _variant_evidence(variant: VariantResult, result: TargetResult) -> Evidence:
    return Evidence(
        target=result.target,
        metric=result.metric,
        score=variant.score,
        score_delta=variant.score_delta,
        score_delta_low=variant.score_delta_low,
        latency_ms=variant.latency_ms,
        speedup=variant.speedup,
        reasons=variant.reasons,
    )
