"""`jettison lint`: will TensorRT take this ONNX, and on its fast path."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, table_console
from jettison.core.targets import GPU_TARGETS, parse_target
from jettison.engines.tensorrt.lint.finding import Finding
from jettison.engines.tensorrt.shapes import parse_shape_range
from jettison.pipeline.linting import LintReport, lint_file

_MOST_PLACES = 3
"""Places of one check that a table names; the document has them all."""


def lint(
    model: Path = typer.Argument(..., help="An ONNX model, quantized by any tool or not at all."),
    target: str = typer.Option(
        "tensorrt", "--target", help="tensorrt, or a compute capability such as sm89."
    ),
    fix: Path | None = typer.Option(None, "--fix", help="Write a mended copy there."),
    samples: str | None = typer.Option(
        None, "--samples", help="Inputs on which the copy is compared with the model; else random ones."
    ),
    shapes: list[str] = typer.Option(
        [], "--shapes", help="NAME=MIN,OPT,MAX for inputs with open dimensions."
    ),
    compiles: bool = typer.Option(
        True, "--compile/--no-compile", help="Also ask TensorRT's compiler, where it is installed."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Find what TensorRT would refuse or run slowly, and mend it.

    Works on the files of any tool. All checks are in docs/lint.md. Exit code 1 says that something hard is
    left.

    Example: `jettison lint quantized.onnx --target sm89 --fix mended.onnx`
    """
    ranges = tuple(parse_shape_range(text) for text in shapes)
    report = lint_file(
        model,
        parse_target(target, suggested=GPU_TARGETS),
        fix=fix,
        samples=samples,
        shapes=ranges,
        compiles=compiles,
    )
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.is_accepted:
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _print(report: LintReport) -> None:
    console = table_console()
    left = report.remaining if report.fixed is not None else report.findings
    if report.fixed is not None and report.mended:
        console.print(f"mended: {', '.join(report.mended)}; written to {report.fixed}", soft_wrap=True)
    elif report.fixed is not None:
        console.print(f"nothing to mend; written to {report.fixed}", soft_wrap=True)
    if left:
        _print_findings(console, left)
    else:
        console.print("no findings")
    if report.sqnr_db is not None:
        console.print(f"answers against the file before: {report.sqnr_db:.1f} dB on {report.compared_on}")
    if report.outcome is not None:
        console.print(f"TensorRT's compiler: {report.outcome} for {report.target}")
    for refusal in report.refusals[:_MOST_PLACES]:
        console.print(f"refused: {refusal}", highlight=False)
    if len(report.refusals) > _MOST_PLACES:
        console.print(f"refused: {len(report.refusals) - _MOST_PLACES} more, see --json")
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)


def _print_findings(console: Console, findings: tuple[Finding, ...]) -> None:
    """One row for each check, with the first places."""
    table = Table("code", "", "places", "found", "what to do")
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, found in by_code.items():
        names = [finding.node or "the model" for finding in found]
        more = f" and {len(names) - _MOST_PLACES} more" if len(names) > _MOST_PLACES else ""
        places = ", ".join(names[:_MOST_PLACES]) + more
        table.add_row(code, found[0].severity, places, found[0].message, found[0].fix)
    console.print(table)
