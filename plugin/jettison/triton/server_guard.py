"""Ends a server whose starter has died, in whatever way: killed, hung up, crashed.

A shell waits at the reading end of a pipe whose writing end only the starter holds. When the starter is gone,
the kernel closes that end, and the shell asks the server to end, kills it when it does not, and removes its
shared memory.

The kernel's own way, `prctl(PR_SET_PDEATHSIG)`, was ruled out: its signal comes when the *thread* that
started the server ends, not the process, and it must be set between fork and exec, where Python code can
hang in a process with threads. It cannot kill a server that hangs either, nor remove what that one leaves.
"""

from __future__ import annotations

import os
import subprocess

from jettison.triton.shared_memory import SHARED_MEMORY

MARK = "JETTISON_SERVER"
"""Environment variable with the server's name. Numbers of processes are reused: the guard signals what has
the server's number only while that has the mark too. It knows no stubs: those end with their server."""

_SCRIPT = f"""
pid=$1 mark={MARK}=$2 patience_s=$3 regions={SHARED_MEMORY}/$2
read -r dismissed && exit 0
runs() {{ grep -qsF "$mark" "/proc/$pid/environ"; }}
runs && kill -TERM "$pid"
while runs && [ "$patience_s" -gt 0 ]; do sleep 1; patience_s=$((patience_s - 1)); done
runs && kill -KILL "$pid"
rm -f "$regions"*
"""


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
