"""The verbs of the command `jettison`, in the order in which its help lists them."""

from __future__ import annotations

import typer

from jettison._version import __version__
from jettison.cli.ab import ab
from jettison.cli.build import build
from jettison.cli.check import check
from jettison.cli.compress import compress
from jettison.cli.doctor import doctor
from jettison.cli.evaluate import evaluate
from jettison.cli.explain import explain
from jettison.cli.keys import keys
from jettison.cli.lint import lint
from jettison.cli.preflight import preflight
from jettison.cli.publish import publish
from jettison.cli.report import report
from jettison.cli.rollback import rollback
from jettison.cli.rollout import rollout
from jettison.cli.run import run
from jettison.cli.serve import serve

VERBS = (
    run, compress, evaluate, report, lint, preflight, build,
    publish, rollback, check, keys, serve, explain, doctor,
)  # fmt: skip

app = typer.Typer(
    name="jettison",
    help="Makes models light, proves it, and puts them to sea on NVIDIA Triton.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in VERBS:
    app.command()(_verb)
app.add_typer(ab)
app.add_typer(rollout)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jettison {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    del version
