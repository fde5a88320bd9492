"""What follows from a preflight: the audit of what fell back to float, the search for what breaks it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from jettison.core.errors import InputError, ModelError
from jettison.core.progress import Progress, silent
from jettison.core.targets import Target
from jettison.engines.tensorrt.audit import fallbacks
from jettison.engines.tensorrt.bisect import bisect
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import PreflightReport
from jettison.engines.tensorrt.shapes import ShapeRange
from jettison.graph.inference import infer_symbolic
from jettison.graph.model import open_model
from jettison.graph.save import fits_one_message, model_bytes, save_model

MOST_TRIALS = 60
"""Smaller models that are compiled at most; where one node breaks it, about log2 of all nodes are enough."""


def with_audit(report: PreflightReport, path: Path, target: Target) -> PreflightReport:
    """The report with the quantized nodes that are computed in float."""
    if not report.layers:
        return report
    try:
        model = open_model(path)
    except ModelError:
        return report  # what this ONNX library does not read, the compiler may
    return report.model_copy(update={"fallbacks": fallbacks(model, report.layers, target)})


def with_bisection(
    report: PreflightReport,
    path: Path,
    target: Target,
    *,
    shapes: tuple[ShapeRange, ...] = (),
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> PreflightReport:
    """The report with the smallest part of the model that does not compile, where it does not.

    Raises:
        ModelError: This ONNX library cannot read the model.
    """
    if report.compiles or report.outcome == "unavailable":
        return report
    model = open_model(path)
    infer_symbolic(model)
    count = 0

    def ask(part: ir.Model) -> PreflightReport | None:
        nonlocal count
        count += 1
        (progress or silent("bisect"))(count, MOST_TRIALS)
        names = {value.name for value in part.graph.inputs}
        some = tuple(found for found in shapes if found.name in names)
        return _asked(part, target, some, timeout_s)

    found = bisect(model, report, ask, most_trials=MOST_TRIALS)
    return report.model_copy(update={"bisection": found})


def _asked(
    model: ir.Model, target: Target, shapes: tuple[ShapeRange, ...], timeout_s: float
) -> PreflightReport | None:
    """What the compiler says to a part; None where a part of that form cannot be asked about."""
    with tempfile.TemporaryDirectory(prefix="jettison-bisect-") as folder:
        path = Path(folder) / "part.onnx"
        try:
            if fits_one_message(model):
                path.write_bytes(model_bytes(model))  # unchecked: a part may have values of unknown shape
            else:
                save_model(model, path)
            return preflight(path, target, shapes=shapes, timeout_s=timeout_s)
        except InputError:
            return None
