"""What compression changed in a variant: layer by layer, decision by decision, and in what it looks at.

Layers and decisions of every variant are told. What the models look at takes some hundred runs of both, so
it is asked for the chosen variant alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.layer_report import Known, LayerReport, report_layers
from jettison.core.artifacts import lineage_of
from jettison.core.files import write_bytes
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.decisions import explain_decisions
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.saliency import SaliencyReport, explain_saliency
from jettison.graph.model import open_model
from jettison.pipeline.proof import Court
from jettison.pipeline.records import VariantRecord
from jettison.pipeline.results import Explanation
from jettison.pipeline.steps import ModelFile

_DECIDING = frozenset({"top1", "top5", "agreement"})
"""Metrics that take the first output for class scores."""
_LIBRARIES = ("numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True)
class Subject:
    """A variant to explain, what its passes said of it, and the calibration samples where it used them."""

    name: str
    file: ModelFile
    record: VariantRecord
    target: Target
    calibration: Samples


def explain(court: Court, subject: Subject, *, looks: bool) -> Explanation:
    """The explanation of a variant against the court's baseline, kept on disk.

    Args:
        court: Its samples, metric and baseline.
        subject: The variant.
        looks: Whether to compare what both models look at, too.
    """
    steps, file = court.steps, subject.file
    settings = f"{subject.target.name} {court.metric.identity} looks={looks} {steps.machine} {steps.threads}"
    decided = subject.record.model_dump_json(include={"layers"})
    parents = (file.digest, court.baseline.digest, court.samples.sha256, subject.calibration.sha256)
    lineage = lineage_of("explain", f"{settings} {decided}", parents=parents, libraries=_LIBRARIES)
    kept = steps.store.once(
        lineage, lambda stage: _write(_explanation(court, subject, looks=looks), stage / "explanation.json")
    )
    return Explanation.model_validate_json((kept / "explanation.json").read_bytes())


def _write(found: Explanation, path: Path) -> None:
    write_bytes(path, found.model_dump_json().encode())


def _explanation(court: Court, subject: Subject, *, looks: bool) -> Explanation:
    decides = True if court.metric.name in _DECIDING else None
    reporter, threads = court.steps.reporter, court.steps.threads
    variant = subject.file.runner(threads=threads, optimize=not subject.target.is_gpu)
    decisions = explain_decisions(
        variant,
        court.samples,
        reference=court.reference.get(),
        decides_classes=decides,
        progress=reporter(f"comparing decisions of {subject.name}"),
    )
    saliency: SaliencyReport | NotApplicable | None = None
    if looks:
        saliency = explain_saliency(
            OnnxRuntimeRunner(court.baseline.path, threads=threads),
            variant,
            court.samples,
            decides_classes=decides,
            progress=reporter(f"comparing what {subject.name} looks at"),
        )
    return Explanation(layers=_layers(court, subject), decisions=decisions, saliency=saliency)


def _layers(court: Court, subject: Subject) -> tuple[LayerReport, ...]:
    file = subject.file
    known = Known(
        decisions=subject.record.layers,
        calibration=_calibration(court, subject),
        simulation=None if file.simulation is None else open_model(file.simulation),
        inputs=None if subject.target.is_gpu else court.inputs,
    )
    return report_layers(
        open_model(court.baseline.path),
        open_model(file.path),
        court.samples,
        known=known,
        threads=court.steps.threads,
        progress=court.steps.reporter(f"comparing layers of {subject.name}"),
    )


def _calibration(court: Court, subject: Subject) -> Calibration | None:
    """The baseline's histograms, where the variant's passes have made them."""
    if not any(layer.quantized for layer in subject.record.layers):
        return None
    model = open_model(court.baseline.path)
    return court.steps.calibration(court.baseline, model, subject.calibration)
