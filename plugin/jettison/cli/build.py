"""`jettison build`: the engine, on the machine or in the image that will run it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, progress_bars, table_console
from jettison.cli.tables import refusals_table
from jettison.core.errors import ExternalError
from jettison.core.progress import Progress, Reporter
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.build import build as build_here
from jettison.engines.tensorrt.build_exchange import BuildStep
from jettison.engines.tensorrt.build_in_image import ImageOrder, build_in_image
from jettison.engines.tensorrt.build_report import BuildOptions, BuildReport, profiles_of
from jettison.engines.tensorrt.settings import BuildSettings, Compatibility
from jettison.engines.tensorrt.shapes import parse_shape_range


def build(
    model: Path = typer.Argument(..., help="The ONNX model."),
    target: str = typer.Option(..., "--target", help="A compute capability such as sm89."),
    output: Path = typer.Option(..., "-o", "--output", help="Gets a folder for each target."),
    shapes: list[str] = typer.Option(
        [],
        "--shapes",
        help="NAME=MIN,OPT,MAX for each input with open dimensions; given twice it makes two profiles.",
    ),
    level: int = typer.Option(3, "--level", min=0, max=5, help="0 builds fast, 5 makes the fastest engine."),
    workspace_mib: int | None = typer.Option(
        None, "--workspace", min=1, help="The most MiB that a layer may use while it runs."
    ),
    compatibility: Compatibility = typer.Option(
        "none", "--compatibility", help="Which other GPUs shall take the plan, at a price in speed."
    ),
    version_compatible: bool = typer.Option(
        False, "--version-compatible", help="Later versions of TensorRT take it; it runs code of its own."
    ),
    image: str | None = typer.Option(
        None,
        "--image",
        help="Build in a container of this image (Docker or Podman), which holds Jettison.",
    ),
    timeout_s: float = typer.Option(7200.0, "--timeout", min=1.0, help="Seconds until it is stopped."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Build the TensorRT engine of a model for one GPU.

    On a machine that has that GPU and the module `tensorrt`, at the version of the image that serves.

    Example: `jettison build m.onnx --target sm89 --shapes x=1x3x224x224,4x3x224x224,8x3x224x224 -o engines`
    """
    settings = BuildSettings(
        level=level,
        workspace_mib=workspace_mib,
        compatibility=compatibility,
        version_compatible=version_compatible,
    )
    profiles = profiles_of([parse_shape_range(text) for text in shapes])
    place = parse_target(target)
    with build_progress() as reporter:
        if image is not None:
            order = ImageOrder(
                image=image,
                arguments=_again(shapes, settings, timeout_s),
                user=f"{os.getuid()}:{os.getgid()}",
                limit_s=timeout_s,
                report=reporter,
            )
            report = build_in_image(model, place, output, order=order)
        else:
            options = BuildOptions(limit_s=timeout_s, report=reporter)
            report = build_here(model, place, output, profiles=profiles, settings=settings, options=options)
    tell(report, as_json=as_json)


def _again(shapes: list[str], settings: BuildSettings, timeout_s: float) -> tuple[str, ...]:
    """The options once more, for the `jettison build` in the container."""
    given = [part for text in shapes for part in ("--shapes", text)]
    given += ["--level", str(settings.level), "--compatibility", settings.compatibility]
    given += ["--timeout", f"{timeout_s:g}"]
    if settings.workspace_mib is not None:
        given += ["--workspace", str(settings.workspace_mib)]
    if settings.version_compatible:
        given.append("--version-compatible")
    return tuple(given)


@contextlib.contextmanager
def build_progress() -> Iterator[Reporter]:
    """Bars for a person; lines of JSON on stderr for the `jettison build` that started this one."""
    if os.environ.get("JETTISON_PROGRESS") != "lines":
        with progress_bars() as reporter:
            yield reporter
        return

    def report(title: str) -> Progress:
        def tell_step(done: int, total: int) -> None:
            sys.stderr.write(BuildStep(phase=title, done=done, total=total).model_dump_json() + "\n")
            sys.stderr.flush()

        return tell_step

    yield report


def tell(report: BuildReport, *, as_json: bool) -> None:
    """Print the report and leave with its exit code."""
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.outcome == "refused":
        raise typer.Exit(EVIDENCE_SAYS_NO)
    if report.engine is None:
        raise typer.Exit(ExternalError.exit_code)


def _print(report: BuildReport) -> None:
    console = table_console()
    if report.engine is None:
        console.print(f"{report.outcome}: {report.target}")
    else:
        engine = report.engine
        console.print(f"{report.outcome}: {report.path}, TensorRT {engine.tensorrt}, {engine.seconds:.1f} s")
        console.print(f"identity {report.identity}", highlight=False)
        if engine.memory_bytes is not None:
            console.print(f"activation memory at the largest shapes: {engine.memory_bytes / 2**20:.1f} MiB")
    if report.refusals:
        console.print(refusals_table(report.refusals))
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
