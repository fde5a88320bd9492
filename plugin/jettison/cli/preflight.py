"""`jettison preflight`: TensorRT's compiler on this machine, without a GPU."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, progress_bars, table_console
from jettison.cli.tables import refusals_table
from jettison.core.errors import ExternalError, MissingError
from jettison.core.targets import GPU_TARGETS, parse_target
from jettison.engines.tensorrt.module import COMPILERS, how_to_install
from jettison.engines.tensorrt.preflight import preflight as ask
from jettison.engines.tensorrt.report import Bisection, PreflightReport
from jettison.engines.tensorrt.shapes import parse_shape_range
from jettison.pipeline.bisecting import with_audit, with_bisection
from jettison.pipeline.steps import macs_of


def preflight(
    model: Path = typer.Argument(..., help="The ONNX model."),
    target: str = typer.Option(
        "tensorrt", "--target", help="tensorrt, or a compute capability such as sm89."
    ),
    shapes: list[str] = typer.Option(
        [],
        "--shapes",
        help="NAME=MIN,OPT,MAX for inputs with open dimensions, as image=1x3x224x224,8x3x224x224,..., "
        "or NAME=SHAPE for one fixed shape.",
    ),
    timeout_s: float = typer.Option(
        600.0, "--timeout", min=1.0, help="Seconds after which the compiler is stopped."
    ),
    bisects: bool = typer.Option(
        False, "--bisect", help="Where it does not compile, find the smallest part that breaks it."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Compile for TensorRT without a GPU, and show what runs in INT8.

    It is NVIDIA's own compiler, not a simulation of it. `--bisect` compiles up to 60 smaller models.

    Example: `jettison preflight model.onnx --target sm89 --shapes image=1x3x224x224,8x3x224x224,16x3x224x224`
    """
    ranges = tuple(parse_shape_range(text) for text in shapes)
    place = parse_target(target, suggested=GPU_TARGETS)
    report = ask(model, place, shapes=ranges, macs=macs_of(model), timeout_s=timeout_s)
    if report.outcome == "unavailable":
        raise _missing(report)
    report = with_audit(report, model, place)
    if bisects:
        with progress_bars() as reporter:
            report = with_bisection(
                report, model, place, shapes=ranges, timeout_s=timeout_s, progress=reporter("bisect")
            )
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.compiles is None:
        raise typer.Exit(ExternalError.exit_code)
    if not report.compiles:
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _missing(report: PreflightReport) -> MissingError:
    """What is missing, as the report's last note tells it: the compiler, or what keeps it from loading."""
    install = how_to_install(COMPILERS[0])
    fix = install if report.module is None else "Bring what it names, or install the compiler again"
    return MissingError("preflight", detail=report.notes[-1].removesuffix(f". {install}"), fix=fix)


def _print_bisection(console: Console, found: Bisection) -> None:
    smallest = "the smallest part" if found.is_smallest else "the smallest part found, not yet the smallest"
    nodes = ", ".join(found.nodes)
    console.print(f"{smallest} that breaks it: {nodes} ({found.trials} trials)", highlight=False)
    if found.leave_out is not None:
        console.print(f"made by {found.leave_out}", highlight=False)


def _print(report: PreflightReport) -> None:
    console = table_console()
    stands_in = f" (compiled for {report.compiled_for}, the nearest)" if report.nearest else ""
    compiler = f"{report.module} {report.version}"
    console.print(f"{report.outcome}: {report.target}{stands_in}, {compiler}, {report.seconds:.1f} s")
    if report.refusals:
        console.print(refusals_table(report.refusals))
    if report.bisection is not None:
        _print_bisection(console, report.bisection)
    for layer in report.fallbacks:
        text = (
            f"in float though quantized: {layer.node} ({layer.operator}), {layer.computed_in}: {layer.reason}"
        )
        console.print(text, highlight=False)
    if report.mac_shares:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in sorted(report.mac_shares.items()))
        console.print(f"multiply-accumulates: {shares}")
    if report.memory and report.memory.activation_bytes is not None:
        weights = report.memory.weights_bytes or 0
        console.print(
            f"memory (estimate): activations {report.memory.activation_bytes / 2**20:.1f} MiB, "
            f"weights {weights / 2**20:.1f} MiB"
        )
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
