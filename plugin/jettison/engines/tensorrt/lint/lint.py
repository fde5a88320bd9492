"""Runs the table of checks over a model, and mends what it can."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from jettison.core.errors import TargetError
from jettison.core.targets import Target
from jettison.engines.tensorrt.lint.finding import Finding, Subject
from jettison.engines.tensorrt.lint.table import CHECKS


@dataclass(frozen=True)
class Mended:
    """A model that was mended, and what it still breaks; `codes` are the checks that changed it.

    `costs` says what that may change of its answers, each reason once.
    """

    model: ir.Model
    findings: tuple[Finding, ...]
    codes: tuple[str, ...]
    costs: tuple[str, ...] = ()


def lint(model: ir.Model, target: Target) -> tuple[Finding, ...]:
    """What keeps TensorRT from taking the model, or from its fast path; hard findings first.

    Args:
        model: As its file has it; it is not changed.
        target: A GPU, or `tensorrt` for any.

    Raises:
        TargetError: TensorRT does not run on that target.
    """
    subject = _subject(model, target)
    found = [finding for check in CHECKS for finding in check.findings(subject)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "hard"))


def mend(model: ir.Model, target: Target) -> Mended:
    """A copy in which each rule is kept that a check knows how to keep.

    Raises:
        TargetError: TensorRT does not run on that target.
    """
    subject, codes = _subject(model.clone(), target), []
    for check in CHECKS:
        before = len(check.findings(subject))
        if check.mend is None or not before:
            continue
        subject = Subject(check.mend(subject) or subject.model, target)
        if len(check.findings(subject)) < before:
            codes.append(check.code)
    subject.graph.sort()
    costs = dict.fromkeys(check.cost for check in CHECKS if check.code in codes and check.cost)
    return Mended(subject.model, lint(subject.model, target), tuple(codes), tuple(costs))


def _subject(model: ir.Model, target: Target) -> Subject:
    if not target.is_gpu:
        raise TargetError(
            f"lint for target {target.name!r}",
            detail="expected a GPU, found a target without TensorRT",
            fix="Use --target tensorrt, or a compute capability such as sm89",
        )
    return Subject(model, target)
