"""Child processes that hold TensorRT: how they are started, and what their deaths mean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jettison

_TICK_S = 0.2
"""How often a caller that listens is told; a choice for the eye."""


def environment_of_child() -> dict[str, str]:
    """This process's environment, with this very Jettison first among the modules."""
    root = str(Path(jettison.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, inherited] if inherited else [root])}


def run_and_listen(
    program: str, request: Path, *, limit_s: float, listen: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    """Run a program of ours to its end, calling `listen` now and then; it dies with the caller's interrupt.

    Raises:
        subprocess.TimeoutExpired: It was stopped after the limit.
    """
    command = [sys.executable, "-m", program, str(request)]
    complaints = request.with_suffix(".stderr")
    with complaints.open("w") as errors:
        child = subprocess.Popen(
            command,
            cwd=request.parent,
            env=environment_of_child(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            _wait(child, command, limit_s=limit_s, listen=listen)
        finally:
            child.kill()
            child.wait()
            listen()
    text = complaints.read_text(encoding="utf-8", errors="replace")
    return subprocess.CompletedProcess(command, child.returncode, stderr=text)


def _wait(
    child: subprocess.Popen[bytes], command: list[str], *, limit_s: float, listen: Callable[[], None]
) -> None:
    ends = time.monotonic() + limit_s
    while child.poll() is None:
        if time.monotonic() > ends:
            raise subprocess.TimeoutExpired(command, limit_s)
        try:
            child.wait(_TICK_S)
        except subprocess.TimeoutExpired:
            listen()


def signal_name(number: int) -> str:
    """The name of the signal that ended a child, and what it may mean."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
