"""The command `jettison`: one verb a file, errors as sentences, exit codes that scripts can rely on.

0 done; 1 the evidence says no; 2 wrong input; 3 something is missing on this machine; 4 an external
program failed; 70 a defect of ours, with its traceback.
"""

from __future__ import annotations

import errno
import sys
import traceback

import typer

from jettison._version import __version__
from jettison.cli.compress import compress
from jettison.cli.console import print_error
from jettison.cli.doctor import doctor
from jettison.cli.evaluate import evaluate
from jettison.cli.preflight import preflight
from jettison.cli.publish import publish
from jettison.cli.run import run
from jettison.cli.serve import serve
from jettison.core.errors import InputError, JettisonError

INTERRUPTED = 130
DEFECT = 70
"""A defect of Jettison itself. Source: sysexits.h, EX_SOFTWARE."""

app = typer.Typer(
    name="jettison",
    help="Makes models light, proves it, and puts them to sea on NVIDIA Triton.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (run, compress, evaluate, preflight, publish, serve, doctor):
    app.command()(_verb)


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


def main() -> None:
    """Run the command line; the exit code tells what happened."""
    try:
        app()
    except JettisonError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(INTERRUPTED)
    except OSError as error:
        refused = file_error(error)
        print_error(refused, as_json="--json" in sys.argv)
        sys.exit(refused.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:  # noqa: BLE001 - the outermost border: a defect must not look like "the evidence says no"
        traceback.print_exc()
        sys.exit(DEFECT)


def file_error(error: OSError) -> InputError:
    """What the file system refused, in words: a full disk, a read-only folder, a file in the way."""
    place = error.filename or "a file"
    fixes = {
        errno.ENOSPC: "Free some space, or write elsewhere with -o",
        errno.EROFS: "Write elsewhere with -o",
    }
    fix = fixes.get(error.errno or 0, "Check the path and its permissions")
    return InputError(str(place), detail=error.strerror or str(error), fix=fix)


if __name__ == "__main__":
    main()
