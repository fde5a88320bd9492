"""What works before anything large is loaded: signals, and the one document of a command that was stopped."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from types import FrameType

from jettison.core.errors import JettisonError

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells give it."""
SIGNALLED = 128
"""With the number of a signal, the exit code that shells give for an end by it."""


class Terminated(KeyboardInterrupt):
    """A supervisor asked the process to end, or its terminal was closed: like Ctrl-C, with another exit code.

    Args:
        number: The signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.exit_code = SIGNALLED + number


def listen() -> None:
    """End in order on SIGTERM, and on SIGHUP unless under nohup: temporary folders go, one answer comes."""
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise Terminated(number)


def interrupted(error: BaseException, *, as_json: bool) -> int:
    """Tell a script that the command was stopped, and its log which signal did it; the exit code.

    Whoever pressed Ctrl-C knows, and of a reader that went away nobody is left to be told.

    Args:
        error: A KeyboardInterrupt, or the BrokenPipeError of a reader that went away.
        as_json: Whether stdout is still owed a document.
    """
    if as_json:
        print_error_document(_INTERRUPTION)
    if not isinstance(error, Terminated):
        return INTERRUPTED
    if not as_json:
        name = signal.Signals(error.exit_code - SIGNALLED).name
        with contextlib.suppress(OSError):
            print(f"interrupted: stopped by {name}. {_INTERRUPTION.fix}", file=sys.stderr)
    return error.exit_code


_INTERRUPTION = JettisonError(
    "interrupted",
    detail="stopped before there was an answer",
    fix="Run it again: run and compress go on after the last finished step",
)


def print_error_document(error: JettisonError) -> None:
    """The error as JSON, alone on stdout, unless stdout itself is what failed."""
    document = {"error": {"what": error.what, "detail": error.detail, "fix": error.fix}}
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        sys.stdout.flush()
