"""What compression changed in a variant: layer by layer, decision by decision, and in what it looks at.

Layers and decisions of every variant are told. What the models look at takes some hundred runs of both, so
it is asked for the chosen variant alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.layer_report import Known, LayerReport, report_layers
from jettison.core.artifacts import lineage_of
from jettison.core.files import write_bytes
from jettison.core.memory import release
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.decisions import DecisionPlan, DecisionReport, explain_decisions
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.saliency import SaliencyPlan, SaliencyReport, explain_saliency
from jettison.graph.model import open_model
from jettison.pipeline.proof import Court
from jettison.pipeline.records import VariantRecord
from jettison.pipeline.results import Explanation
from jettison.pipeline.steps import ModelFile

_DECIDING = frozenset({"top1", "top5", "agreement"})
"""Metrics that take the first output for class scores."""
_FORM = 2
"""Of what is kept: an older run's explanations are made again where they lack something."""
_CHANGED = 8
"""Changed decisions of which to compare what both models look at: a row of the report."""
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
    settings = (
        f"{_FORM} {subject.target.name} {court.metric.identity} looks={looks} {steps.machine} {steps.threads}"
    )
    decided = subject.record.model_dump_json(include={"layers", "pruned"})
    parents = (file.digest, court.baseline.digest, court.samples.sha256, subject.calibration.sha256)
    lineage = lineage_of("explain", f"{settings} {decided}", parents=parents, libraries=_LIBRARIES)
    kept = steps.store.once(
        lineage, lambda stage: _write(_explanation(court, subject, looks=looks), stage / "explanation.json")
    )
    return Explanation.model_validate_json((kept / "explanation.json").read_bytes())


def _write(found: Explanation, path: Path) -> None:
    write_bytes(path, found.model_dump_json().encode())


def _explanation(court: Court, subject: Subject, *, looks: bool) -> Explanation:
    decisions = _decisions(court, subject)
    release()
    saliency = _saliency(court, subject) if looks else None
    changed = _changed(decisions)
    changed_saliency = _saliency(court, subject, changed) if looks and changed else None
    release()
    layers = _layers(court, subject)
    return Explanation(
        layers=layers, decisions=decisions, saliency=saliency, changed_saliency=changed_saliency
    )


def _changed(decisions: DecisionReport | NotApplicable) -> tuple[int, ...]:
    """Numbers of the changed samples to look at: those first of which the baseline was surest."""
    if isinstance(decisions, NotApplicable):
        return ()
    return tuple(decision.sample for decision in decisions.decisions[:_CHANGED])


def _decisions(court: Court, subject: Subject) -> DecisionReport | NotApplicable:
    return explain_decisions(
        _runner(court, subject),
        court.samples,
        reference=court.reference.get(),
        decides_classes=_decides(court),
        plan=DecisionPlan(top=5 if court.metric.name == "top5" else 1),
        progress=court.steps.reporter(f"comparing decisions of {subject.name}"),
    )


def _saliency(
    court: Court, subject: Subject, numbers: tuple[int, ...] = ()
) -> SaliencyReport | NotApplicable:
    return explain_saliency(
        court.baseline.runner(threads=court.steps.threads, optimize=True),
        _runner(court, subject),
        court.samples,
        plan=SaliencyPlan(numbers=numbers),
        decides_classes=_decides(court),
        progress=court.steps.reporter(f"comparing what {subject.name} looks at"),
    )


def _runner(court: Court, subject: Subject) -> OnnxRuntimeRunner:
    """The variant anew for each part: what a session has taken for one batch it never gives back."""
    return subject.file.runner(threads=court.steps.threads, optimize=not subject.target.is_gpu)


def _decides(court: Court) -> bool | None:
    return True if court.metric.name in _DECIDING else None


def _layers(court: Court, subject: Subject) -> tuple[LayerReport, ...]:
    file, baseline = subject.file, open_model(court.baseline.path)
    counterpart = None if file.counterpart is None else open_model(file.counterpart)
    known = Known(
        decisions=subject.record.layers,
        calibration=_calibration(court, subject, counterpart or baseline),
        simulation=None if file.simulation is None else open_model(file.simulation),
        inputs=None if subject.target.is_gpu else court.inputs,
        counterpart=counterpart,
    )
    return report_layers(
        baseline,
        open_model(file.path),
        court.samples,
        known=known,
        threads=court.steps.threads,
        progress=court.steps.reporter(f"comparing layers of {subject.name}"),
    )


def _calibration(court: Court, subject: Subject, model: ir.Model) -> Calibration | None:
    """The histograms of the float model that the layers stand for, where any was quantized by them."""
    if not any(layer.quantized for layer in subject.record.layers):
        return None
    if subject.file.counterpart is not None:
        return calibrate(model, subject.calibration, threads=court.steps.threads)
    return court.steps.calibration(court.baseline, model, subject.calibration)
