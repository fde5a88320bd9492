"""The command `jettison`: one border, at which everything ends that a verb raised.

What is large is imported inside it: that takes a second or more, in which Ctrl-C may come.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jettison.cli.interrupts import interrupted, listen
from jettison.core.errors import InputError

if TYPE_CHECKING:
    from typer import Typer


def _all_verbs() -> Typer:
    from jettison.cli.verbs import app

    return app


def main(app: Callable[[], Typer] = _all_verbs) -> None:
    """Run the command line; the exit code tells what happened."""
    arguments = tuple(sys.argv[1:])
    try:
        listen()
        _run(app, arguments)
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - the border: nothing escapes
        sys.exit(_exit_code(_ended_by(error), arguments))


def _run(app: Callable[[], Typer], arguments: Sequence[str]) -> None:
    """Run the verb; without arguments the help is shown.

    Called without `app()`, by which typer would print usage errors and end the process itself, without a
    document.
    """
    from typer.main import get_command

    from jettison.cli.console import stdout_named

    with get_command(app()).make_context("jettison", [*arguments] or ["--help"]) as context:
        context.command.invoke(context)
    with stdout_named():
        sys.stdout.flush()


def _exit_code(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell what ended the verb, and give its exit code."""
    as_json = "--json" in arguments
    if isinstance(error, KeyboardInterrupt | BrokenPipeError):
        return interrupted(error, as_json=as_json)
    import typer

    from jettison.cli.endings import end

    if isinstance(error, typer.Exit):
        return int(error.exit_code) if arguments else InputError.exit_code
    return end(error, as_json=as_json, command=_command(arguments))


def _ended_by(error: BaseException) -> BaseException:
    """The error, or the closed pipe for which rich, which prints typer's help, ends the process by itself."""
    cause = error.__context__
    return cause if isinstance(error, SystemExit) and isinstance(cause, BrokenPipeError) else error


def _command(arguments: Sequence[str]) -> str:
    """What an error is told of: `jettison`, and the verb where one was named first."""
    verb = arguments[0] if arguments and arguments[0].isalpha() else ""
    return f"jettison {verb}".rstrip()


if __name__ == "__main__":
    main()
