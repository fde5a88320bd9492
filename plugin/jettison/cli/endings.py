"""How a verb ends: every outcome as an exit code, words on stderr and, with --json, one document on stdout.

0 done; 1 the evidence says no; 2 wrong input; 3 something is missing on this machine; 4 an external
program failed; 70 a defect of ours, with its traceback; 130 interrupted, 143 by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import errno
import re
import traceback
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from jettison.cli.console import print_error
from jettison.cli.interrupts import interrupted
from jettison.core.errors import InputError, JettisonError
from jettison.core.validation import problem_of

DEFECT = 70
"""A defect of Jettison itself. Source: sysexits.h, EX_SOFTWARE."""


@runtime_checkable
class UsageProblem(Protocol):
    """What typer raises for an option or argument: click's class, which newer typers carry in themselves."""

    ctx: Any
    __cause__: BaseException | None

    def format_message(self) -> str:
        """The problem in click's words."""
        ...


def end(error: BaseException, *, as_json: bool, command: str = "jettison") -> int:
    """Tell what ended the verb; its exit code.

    Args:
        error: What was raised.
        as_json: Whether stdout is still owed a document.
        command: What was run as far as the caller knows, `jettison` or `jettison VERB`.
    """
    if isinstance(error, KeyboardInterrupt | BrokenPipeError):
        return interrupted(error, as_json=as_json)
    told, code = _told(error, command)
    if code == DEFECT:
        traceback.print_exception(type(error), error, error.__traceback__)
    print_error(told, as_json=as_json)
    return code


def _told(error: BaseException, command: str) -> tuple[JettisonError, int]:
    if isinstance(error, JettisonError):
        return error, error.exit_code
    if isinstance(error, UsageProblem):
        return usage_error(error, command), InputError.exit_code
    if isinstance(error, OSError):
        return file_error(error), InputError.exit_code
    fix = "Report it with the traceback on stderr"
    return JettisonError("a defect of Jettison", detail=f"{type(error).__name__}: {error}", fix=fix), DEFECT


def usage_error(problem: UsageProblem, command: str) -> InputError:
    """What is wrong with the options, in click's words, and where their list stands.

    Newer typers check values by pydantic and pass its words on; those are put plainly.
    """
    if problem.ctx is not None:  # the parser's own errors know of none
        command = problem.ctx.command_path
    words = problem.format_message().strip().rstrip(".")
    cause = problem.__cause__
    if isinstance(cause, ValidationError):
        words = words.replace(cause.errors()[0]["msg"], problem_of(cause).detail)
    words = words.replace("Value error, ", "")
    words = re.sub(r"[.]? Did you mean (.*)[?]$", r" (did you mean \1?)", words)
    return InputError(command, detail=words, fix=f"Run: {command} --help")


def file_error(error: OSError) -> InputError:
    """What the file system refused, in words: a full disk, a read-only folder, a file in the way."""
    place = error.filename or "a file"
    fixes = {
        errno.ENOSPC: "Free some space, or write elsewhere",
        errno.EROFS: "Write elsewhere",
    }
    fix = fixes.get(error.errno or 0, "Check the path and its permissions")
    return InputError(str(place), detail=error.strerror or str(error), fix=fix)
