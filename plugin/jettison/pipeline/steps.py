"""Each step of the road, done once for equal inputs and settings, and read back from disk after that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from pydantic import ValidationError

from jettison.compress.passes import Figures, Measurement, Modules, Workpiece
from jettison.compress.pruning.finished import finished
from jettison.compress.pruning.removed import compressed_bytes
from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.histogram_file import load_calibration, save_calibration
from jettison.core.artifacts import Lineage, Store, arrays_digest, lineage_of
from jettison.core.errors import ModelError
from jettison.core.files import write_bytes
from jettison.core.progress import Reporter
from jettison.core.runner import Runner
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner, shapes_of
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import PreflightReport
from jettison.engines.tensorrt.shapes import ShapeRange
from jettison.evaluate.latency import LatencyReport, compare_latency
from jettison.evaluate.metrics import Metric
from jettison.evaluate.reference import Reference, reference_of
from jettison.evaluate.scoring import Scores, score, score_reference
from jettison.graph.clean import clean
from jettison.graph.macs import macs_by_node
from jettison.graph.model import model_digest, open_model
from jettison.graph.save import save_model
from jettison.pipeline.records import (
    VariantRecord,
    read_latency,
    read_scores,
    write_latency,
    write_scores,
)
from jettison.recipe import Variant

_GRAPH = ("onnx", "onnx-ir", "onnxscript")
_NUMERIC = ("numpy", "onnxruntime")
_AFTER_PRUNING = (
    "channels were equalized after pruning: the SQNR of single layers tells what was lost since pruning"
)
MODEL_FILE = "model.onnx"
_RECORD_FILE = "record.json"
SIMULATION_FILE = "simulation.onnx"
COUNTERPART_FILE = "counterpart.onnx"


@dataclass(frozen=True)
class ModelFile:
    """A model on disk and its identity.

    `simulation` stands in for it where a GPU's arithmetic is scored; `counterpart` is the float model that
    its layers are to be compared with, where that is not the baseline.
    """

    path: Path
    digest: str
    lineage: Lineage
    simulation: Path | None = None
    counterpart: Path | None = None

    def runner(self, *, threads: int, optimize: bool) -> OnnxRuntimeRunner:
        """What the model is scored by: this machine's kernels, or exact arithmetic (unoptimized)."""
        path = self.scored_path(optimize=optimize)
        return OnnxRuntimeRunner(path, threads=threads, optimize=optimize, thrift="unplanned")

    def scored_path(self, *, optimize: bool) -> Path:
        """The file that is scored: in exact arithmetic the simulation, where there is one."""
        return self.path if optimize or self.simulation is None else self.simulation


@dataclass(frozen=True)
class VariantFile:
    """A variant on disk: the model, or only a record that says why there is none."""

    record: VariantRecord
    file: ModelFile | None


@dataclass(frozen=True)
class Bench:
    """What passes that search may judge by, and how long.

    `digest` identifies all of it but the tolerance and the time, which changes no figure: what a search that
    ran out of time left behind is made again.

    `training` is what passes that train learn from, `modules` opens the torch modules that they name.
    """

    measure: Callable[[ir.Model], Measurement]
    tolerance: float
    digest: str
    time_left_s: Callable[[], float] | None = None
    training: Samples | None = None
    modules: Modules | None = None


@dataclass(frozen=True)
class Making:
    """One variant in the making; `settings` are its passes and target as text.

    `checkpoints` is where its trainings leave where they stand, and is gone when it is made.
    """

    source: ModelFile
    variant: Variant
    target: Target
    samples: Samples
    bench: Bench
    settings: str
    checkpoints: Path


@dataclass(frozen=True)
class Steps:
    """The steps, bound to a store and to the machine that measures.

    `machine` identifies the processor and core count: latencies of another machine are not reused.
    """

    store: Store
    reporter: Reporter
    machine: str
    threads: int = 0

    def clean(self, path: Path) -> ModelFile:
        """The clean float form of the user's model."""
        lineage = lineage_of("clean", "", parents=(model_digest(path),), libraries=_GRAPH)
        folder = self.store.once(
            lineage, lambda stage: save_model(clean(open_model(path)), stage / MODEL_FILE)
        )
        return _model_file(folder, lineage)

    def calibration(self, source: ModelFile, model: ir.Model, samples: Samples) -> Calibration:
        """The histograms of a model's activations."""
        parents = (source.digest, samples.sha256)
        lineage = lineage_of("calibrate", "", parents=parents, libraries=_NUMERIC)
        report = self.reporter("calibrating")

        def build(stage: Path) -> None:
            found = calibrate(model, samples, threads=self.threads, progress=report)
            save_calibration(found, stage / "calibration.npz")

        return load_calibration(self.store.once(lineage, build) / "calibration.npz")

    def variant(
        self, source: ModelFile, variant: Variant, target: Target, samples: Samples, *, bench: Bench
    ) -> VariantFile:
        """The model that the variant's passes make, for the target's dialect.

        One that a search out of time left behind is made again: the search goes on where it stopped.
        """
        settings = "; ".join(
            [f"{target.dialect} {target.compute_capability}", *(p.model_dump_json() for p in variant.passes)]
        )
        judged = f"; {bench.digest} {bench.tolerance} {self._measured}" if variant.searches else ""
        learned = (bench.training.sha256,) if variant.trains and bench.training is not None else ()
        lineage = lineage_of(
            "variant",
            settings + judged,
            parents=(source.digest, samples.sha256, *learned),
            libraries=_GRAPH + _NUMERIC + variant.libraries,
        )
        checkpoints = self.store.root / f"checkpoints-{lineage.digest[:16]}"
        made = Making(source, variant, target, samples, bench, settings, checkpoints)
        if (before := _record_in(self.store.folder_of(lineage))) is not None and before.is_cut_short:
            self.store.forget(lineage)
        folder = self.store.once(lineage, lambda stage: self._apply(made, stage))
        shutil.rmtree(checkpoints, ignore_errors=True)
        record = VariantRecord.model_validate_json((folder / _RECORD_FILE).read_bytes())
        return VariantFile(record, None if record.refusal else _model_file(folder, lineage))

    @property
    def _measured(self) -> str:
        """What times depend on beside the model."""
        return f"{self.machine} threads={self.threads}"

    def _apply(self, made: Making, stage: Path) -> None:
        model = open_model(made.source.path)
        record, simulation, counterpart = VariantRecord(), None, None
        for index, step in enumerate(made.variant.passes):
            piece = self._workpiece(made, model, index)
            refusal = step.check(piece)
            if refusal is not None:
                record = VariantRecord(refusal=refusal)
                break
            result = step(piece, made.samples)
            model, simulation = result.model, result.simulation
            notes = result.notes
            if record.pruned and result.counterpart is not None:
                notes += (_AFTER_PRUNING,)
            counterpart = result.counterpart or counterpart
            record = VariantRecord(
                layers=record.layers or result.layers,
                notes=record.notes + notes + result.warnings,
                warnings=record.warnings + result.warnings,
                evaluations=record.evaluations + result.evaluations,
                pruned=record.pruned + result.pruned,
                is_cut_short=record.is_cut_short or result.is_cut_short,
            )
        if record.refusal is None:
            record = _finished(record, model)
            save_model(model, stage / MODEL_FILE)
            if simulation is not None:
                save_model(simulation, stage / SIMULATION_FILE)
            if counterpart is not None:
                save_model(counterpart, stage / COUNTERPART_FILE)
        (stage / _RECORD_FILE).write_text(record.model_dump_json())

    def _workpiece(self, made: Making, model: ir.Model, index: int) -> Workpiece:
        """What the pass of that number gets; only the first works on the model that others calibrate too."""
        mark = f"{index} " if index else ""
        return Workpiece(
            model=model,
            target=made.target,
            threads=self.threads,
            progress=self.reporter(f"making {made.variant.name}"),
            calibrate=None if index else self._calibrator(made, model),
            measure=made.bench.measure,
            remember=lambda key, compute: self._figures(made, f"{mark}{key}", compute),
            tolerance=made.bench.tolerance,
            time_left_s=made.bench.time_left_s if made.variant.searches else None,
            training=made.bench.training,
            baseline=open_model(made.source.path) if made.variant.trains else None,
            checkpoints=made.checkpoints / str(index),
            modules=made.bench.modules,
        )

    def _calibrator(self, made: Making, model: ir.Model) -> Callable[[ir.Model, Samples], Calibration]:
        def calibration(found: ir.Model, some: Samples) -> Calibration:
            if found is model:
                return self.calibration(made.source, found, some)
            return calibrate(found, some, threads=self.threads)  # changed by the pass: nothing to share

        return calibration

    def _figures(self, made: Making, key: str, compute: Callable[[], Figures]) -> Figures:
        parents = (made.source.digest, made.samples.sha256, made.bench.digest)
        lineage = lineage_of(
            "figures", f"{self._measured} {made.settings} {key}", parents=parents, libraries=_NUMERIC
        )
        folder = self.store.once(
            lineage, lambda stage: write_bytes(stage / "figures.json", json.dumps(compute()).encode())
        )
        return {
            name: float(value) for name, value in json.loads((folder / "figures.json").read_text()).items()
        }

    def scores(
        self, file: ModelFile, samples: Samples, metric: Metric, *, reference: LazyReference, optimize: bool
    ) -> Scores:
        """A variant's scores against the baseline, by the kernels or (unoptimized) in exact arithmetic."""
        path = file.scored_path(optimize=optimize)
        scored = file.digest if path == file.path else model_digest(path)
        parents = (scored, reference.file.digest, samples.sha256)
        settings = f"{metric.identity} {f'kernel {self.machine}' if optimize else 'simulation'}"
        lineage = lineage_of("score", settings, parents=parents, libraries=_NUMERIC)
        report = self.reporter("evaluating")

        def build(stage: Path) -> None:
            runner = file.runner(threads=self.threads, optimize=optimize)
            found = score(runner, samples, metric=metric, reference=reference.get(), progress=report)
            write_scores(found, stage / "scores.npz")

        return read_scores(self.store.once(lineage, build) / "scores.npz")

    def baseline_scores(self, samples: Samples, metric: Metric, *, reference: LazyReference) -> Scores:
        """The baseline's own scores."""
        parents = (reference.file.digest, samples.sha256)
        lineage = lineage_of("score", f"{metric.identity} baseline", parents=parents, libraries=_NUMERIC)

        def build(stage: Path) -> None:
            write_scores(score_reference(reference.get(), samples, metric=metric), stage / "scores.npz")

        return read_scores(self.store.once(lineage, build) / "scores.npz")

    def latency(self, files: Mapping[str, ModelFile], inputs: Arrays, *, baseline: str) -> LatencyReport:
        """Latencies of all files in one run on this machine."""
        names = sorted(files)
        settings = f"{self._measured} {','.join(names)}"
        parents = (*(files[name].digest for name in names), arrays_digest(inputs))
        lineage = lineage_of("latency", settings, parents=parents, libraries=_NUMERIC)
        report = self.reporter("measuring latency")

        def build(stage: Path) -> None:
            runners: dict[str, Runner] = {
                name: OnnxRuntimeRunner(file.path, threads=self.threads) for name, file in files.items()
            }
            write_latency(
                compare_latency(runners, inputs, baseline=baseline, progress=report), stage / "latency.json"
            )

        return read_latency(self.store.once(lineage, build) / "latency.json")

    def preflight(
        self, file: ModelFile, target: Target, shapes: tuple[ShapeRange, ...] = ()
    ) -> PreflightReport:
        """TensorRT's answer; asked again where there was none: no compiler, a crash, no answer in time."""
        module = find_module()
        settings = f"{target.name} {module} {[shape.model_dump_json() for shape in shapes]}"
        libraries = (*_GRAPH, *_NUMERIC, *([module] if module else []))
        lineage = lineage_of("preflight", settings, parents=(file.digest,), libraries=libraries)
        kept = self.store.folder_of(lineage) / "report.json"
        if kept.is_file():
            return PreflightReport.model_validate_json(kept.read_bytes())
        report = preflight(file.path, target, shapes=shapes, macs=macs_of(file.path))
        if report.compiles is not None:
            self.store.once(lineage, lambda stage: write_bytes(stage / kept.name, _json(report)))
        return report


def _record_in(folder: Path) -> VariantRecord | None:
    """The record of that step's result, None where none stands there that can be read."""
    try:
        return VariantRecord.model_validate_json((folder / _RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _finished(record: VariantRecord, model: ir.Model) -> VariantRecord:
    """The record with what is left of the zeros of pruning in the finished model."""
    if not record.pruned:
        return record
    pruned, notes = finished(record.pruned, model)
    update = {"pruned": pruned, "notes": record.notes + notes, "compressed_bytes": compressed_bytes(model)}
    return record.model_copy(update=update)


class LazyReference:
    """The baseline's answers, computed only where some score is not on disk yet."""

    def __init__(self, file: ModelFile, samples: Samples, steps: Steps) -> None:
        self.file = file
        self._samples, self._steps = samples, steps
        self._found: Reference | None = None

    def get(self) -> Reference:
        """The answers, once computed."""
        if self._found is None:
            runner = OnnxRuntimeRunner(self.file.path, threads=self._steps.threads, thrift="unplanned")
            progress = self._steps.reporter("running the baseline")
            self._found = reference_of(runner, self._samples, progress=progress)
        return self._found


def macs_of(path: Path) -> dict[str, int]:
    """Multiply-accumulates by node at example shapes, where inference needs it by one real run.

    Empty where ONNX Runtime cannot run a model here that TensorRT may take (FP8, plugins).
    """
    model = open_model(path)
    try:
        return macs_by_node(model, shapes_of(model))
    except ModelError:
        return {}


def _json(report: PreflightReport) -> bytes:
    return report.model_dump_json().encode()


def _model_file(folder: Path, lineage: Lineage) -> ModelFile:
    path = folder / MODEL_FILE
    others = (folder / name for name in (SIMULATION_FILE, COUNTERPART_FILE))
    return ModelFile(
        path, model_digest(path), lineage, *(found if found.is_file() else None for found in others)
    )
