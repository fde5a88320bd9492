"""Ends a server whose starter has died, in whatever way: killed, hung up, crashed; and what a server left.

A shell waits at the reading end of a pipe whose writing end only the starter holds. When the starter is gone,
the kernel closes that end, and the shell asks the server to end, kills it when it does not, ends what it left
behind, and removes its shared memory.

The kernel's own way, `prctl(PR_SET_PDEATHSIG)`, was ruled out: its signal comes when the *thread* that
started the server ends, not the process, and it must be set between fork and exec, where Python code can
hang in a process with threads. It cannot kill a server that hangs either, nor remove what that one leaves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from jettison.triton.shared_memory import SHARED_MEMORY

MARK = "JETTISON_SERVER"
"""Environment variable with the server's name, which the processes that it starts have too: stubs of the
Python backend outlive a server that ends while they load. Numbers of processes are reused: only what has the
mark is signalled."""
_LEFT_GRACE_S = 2
"""Chosen: what a process without its server may take to end before it is killed; stubs do not listen."""
_POLL_S = 0.05

_SCRIPT = f"""
pid=$1 mark={MARK}=$2 patience_s=$3 grace_s={_LEFT_GRACE_S} regions={SHARED_MEMORY}/$2
read -r dismissed && exit 0
runs() {{ grep -qsF "$mark" "/proc/$pid/environ"; }}
left() {{ grep -lsF "$mark" /proc/[0-9]*/environ | cut -d/ -f3; }}
end_left() {{ for each in $(left); do kill "$1" "$each"; done; }}
runs && kill -TERM "$pid"
while runs && [ "$patience_s" -gt 0 ]; do sleep 1; patience_s=$((patience_s - 1)); done
runs && kill -KILL "$pid"
end_left -TERM
while [ -n "$(left)" ] && [ "$grace_s" -gt 0 ]; do sleep 1; grace_s=$((grace_s - 1)); done
end_left -KILL
rm -f "$regions"*
"""


def marked(mark: str) -> Iterator[Path]:
    """The folders in /proc of all processes that have `NAME=value` in their environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                yield process


def end_left(name: str) -> None:
    """End all that a server of that name left behind: asked first, killed after a grace."""
    mark = f"{MARK}={name}"
    _signal(mark, signal.SIGTERM)
    deadline = time.monotonic() + _LEFT_GRACE_S
    while any(marked(mark)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    _signal(mark, signal.SIGKILL)


def _signal(mark: str, number: signal.Signals) -> None:
    for process in marked(mark):
        with contextlib.suppress(ProcessLookupError):  # gone meanwhile
            os.kill(int(process.name), number)


class Guard:
    """Watches over one server until it is dismissed.

    A process that was forked from the starter, without exec, holds the pipe too: the guard then waits for
    the end of both. A starter that dies in the instant before the guard stands leaves its server behind.

    Args:
        pid: The server's process, which has `MARK` set to `name` in its environment.
        name: Its name, which is also the prefix of its regions of shared memory.
        patience_s: Seconds from asking the server to end to killing it.
    """

    def __init__(self, pid: int, *, name: str, patience_s: int) -> None:
        # a session of its own: Ctrl-C and a hang-up of the terminal are for the starter
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "guard", str(pid), name, str(patience_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the guard and leave the server as it is."""
        self._process.communicate(b"\n")
