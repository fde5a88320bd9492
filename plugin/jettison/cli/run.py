"""`jettison run`: the whole road."""

from __future__ import annotations

from pathlib import Path

import typer

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, progress_bars
from jettison.cli.report import write_page
from jettison.cli.surroundings import command_line, machine, now, surroundings
from jettison.cli.tables import print_result
from jettison.core.files import write_bytes
from jettison.pipeline.delivery import publish_results
from jettison.pipeline.results import Delivered, Origin, RunResult
from jettison.pipeline.run import run as walk
from jettison.recipe_text import load_recipe
from jettison.report.run_file import REPORT_FILE


def run(
    recipe: Path = typer.Argument(..., help="The recipe, a YAML file."),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Where results and steps go; runs/NAME beside the recipe by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of tables."),
) -> None:
    """Walk the whole road: model, variants, evidence, repository.

    A second run skips what stands; a changed setting redoes only what depends on it.

    Example: `jettison run examples/fashion/recipe.yaml`
    """
    plan = load_recipe(recipe)
    folder = output or recipe.parent / "runs" / plan.model.name
    with progress_bars() as reporter:
        result = walk(plan, surroundings(folder, reporter))
    if plan.publish is not None:
        write_report(result, folder)  # the evidence stands, whatever the repository says
        result = publish_results(result, plan, created=now())
    finish(result, folder, as_json=as_json)


def write_report(result: RunResult, folder: Path) -> None:
    """Write the whole answer where `publish` and people look for it."""
    write_bytes(folder / REPORT_FILE, result.model_dump_json(indent=1).encode())


def finish(result: RunResult, folder: Path, *, as_json: bool) -> None:
    """Write the report and its page, print the answer, and end with 1 where no variant passed the gate."""
    origin = Origin(command=command_line(), at=now(), machine=machine())
    result = result.model_copy(update={"origin": origin})
    write_report(result, folder)
    page = write_page(folder)
    if as_json:
        print_json(result)
    else:
        for target in result.targets:
            print_result(target)
        for note in result.notes:
            if note not in result.targets[0].notes:
                typer.echo(f"note: {note}")
        for published in result.published:
            typer.echo(_told(published))
            if published.retired:
                typer.echo(f"retired versions {', '.join(str(version) for version in published.retired)}")
        typer.echo(f"report: {folder / REPORT_FILE}, as a page: {page}")
    if not any(variant.accepted for target in result.targets for variant in target.variants):
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _told(published: Delivered) -> str:
    how = "published {} version {}" if published.is_new else "{} is already published as version {}"
    return f"{how.format(published.model, published.version)}: {published.path}"
