"""Lint of one file: what TensorRT will say to it, a mended copy, and what mending did to the answers."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.core.errors import InputError, JettisonError
from jettison.core.samples import Samples, draw, open_samples
from jettison.core.targets import Target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.engines.tensorrt.lint.finding import Finding
from jettison.engines.tensorrt.lint.lint import lint, mend
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import Outcome
from jettison.engines.tensorrt.shapes import ShapeRange
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.model import input_specs, open_model
from jettison.graph.save import save_model
from jettison.graph.shapes import example_inputs

COMPARED = 8
"""Samples on which the answers before and after are compared."""
EXPECTED_DB = 25.0
"""Two files of one model in 8 bits agree so far at least, as a rule; below it the report says why not."""


class LintReport(BaseModel):
    """What was found in one file, and what became of it.

    Args:
        model: The file.
        target: Where it shall run.
        findings: Of the file as it is, hard ones first.
        fixed: The mended file; None where none was asked for.
        mended: The checks that changed it.
        remaining: What the mended file still breaks.
        sqnr_db: Answers of the mended file against those of the file before, both in exact arithmetic.
        compared_on: What the answers were compared on.
        outcome: What TensorRT's compiler says to the file, to the mended one where there is one.
        refusals: Its reasons.
        notes: What else one must know.
    """

    model_config = ConfigDict(frozen=True)

    model: Path
    target: str
    findings: tuple[Finding, ...]
    fixed: Path | None = None
    mended: tuple[str, ...] = ()
    remaining: tuple[Finding, ...] = ()
    sqnr_db: float | None = None
    compared_on: str | None = None
    outcome: Outcome | None = None
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_accepted(self) -> bool:
        """Whether nothing hard is left, and the compiler, where it answered, does not refuse."""
        left = self.findings if self.fixed is None else self.remaining
        return self.outcome != "refused" and not any(finding.severity == "hard" for finding in left)


def lint_file(
    path: Path,
    target: Target,
    *,
    fix: Path | None = None,
    samples: str | None = None,
    shapes: tuple[ShapeRange, ...] = (),
    compiles: bool = True,
) -> LintReport:
    """What TensorRT will say to that file, and a mended copy in `fix`.

    Args:
        path: An ONNX file of any tool.
        target: A GPU, or `tensorrt` for any.
        fix: Where to write the mended copy.
        samples: Inputs on which both are compared; random ones where there are none.
        shapes: Ranges of open inputs, for the compiler.
        compiles: Whether to ask the compiler, where it is installed.

    Raises:
        ModelError: There is no such file, or it holds no ONNX graph.
        InputError: `fix` is the file itself, or no place to write to.
        TargetError: TensorRT does not run on that target.
    """
    model = open_model(path)
    report = LintReport(model=path.absolute(), target=target.name, findings=lint(model, target))
    given = None if samples is None else open_samples(samples, input_specs(model))
    if fix is not None:
        _check_place(path, fix)
        report = _mended(report, model, target, fix.absolute(), given)
    return _asked(report, target, shapes) if compiles else report


def _check_place(path: Path, fix: Path) -> None:
    if fix.exists() and fix.samefile(path):
        detail = "expected another path than the model's own"
        raise InputError(f"--fix {fix}", detail=detail, fix="Give the path of a new file")
    if fix.suffix != ".onnx" or fix.is_dir() or not fix.absolute().parent.is_dir():
        detail = "expected an .onnx file in a folder that exists"
        raise InputError(f"--fix {fix}", detail=detail, fix="Make the folder first, and name a file in it")


def _mended(
    report: LintReport, model: ir.Model, target: Target, fix: Path, samples: Samples | None
) -> LintReport:
    found = mend(model, target)
    if not found.codes and any(finding.severity == "hard" for finding in found.findings):
        note = "nothing that is left can be mended by --fix, so no file was written"
        return report.model_copy(update={"notes": (note,)})
    save_model(found.model, fix)
    update: dict[str, object] = {"fixed": fix, "mended": found.codes, "remaining": found.findings}
    inputs = example_inputs(input_specs(model)) if samples is None else _inputs(model, samples)
    compared = "random inputs" if samples is None else _share(inputs, samples)
    try:
        answers = [runner_of(each, optimize=False).run(inputs) for each in (model, found.model)]
    except JettisonError as error:
        note = f"what mending did to the answers is not known: {error.what}: {error.detail}"
        return report.model_copy(update={**update, "notes": (note,)})
    figure = sqnr_db(answers[0], answers[1])
    notes = _cost(figure, found.costs)
    return report.model_copy(update={**update, "sqnr_db": figure, "compared_on": compared, "notes": notes})


def _cost(figure: float | None, costs: tuple[str, ...]) -> tuple[str, ...]:
    """The reason where mending changed the answers by more than a bit is worth."""
    if figure is None or figure >= EXPECTED_DB or not costs:
        return ()
    why = "; ".join(costs)
    return (f"the answers moved by more than {EXPECTED_DB:g} dB allow: {why}. {_ANEW}",)


_ANEW = "Where the float model is at hand, quantize that: jettison compress --target tensorrt"


def _share(inputs: Arrays, samples: Samples) -> str:
    count = len(next(iter(inputs.values())))
    return f"{count} of {samples.count} samples" if count < samples.count else f"{count} samples"


def _inputs(model: ir.Model, samples: Samples) -> Arrays:
    """The first samples, as many as the model's batch where that is fixed."""
    first = next(iter(input_specs(model)), None)
    fixed = first.shape[0] if first is not None and first.shape else None
    count = fixed if isinstance(fixed, int) else COMPARED
    return next(draw(samples, count).batches(count)).inputs


def _asked(report: LintReport, target: Target, shapes: tuple[ShapeRange, ...]) -> LintReport:
    answer = preflight(report.fixed or report.model, target, shapes=shapes)
    refusals = tuple(
        f"{refused.operator or ''} {refused.node or ''}: {refused.description}".strip(" :")
        for refused in answer.refusals
    )
    notes = (*report.notes, *answer.notes)
    return report.model_copy(update={"outcome": answer.outcome, "refusals": refusals, "notes": notes})
