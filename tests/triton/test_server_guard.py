"""A server ends with whoever started it, though that one was killed and could do nothing about it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import served_models as zoo

from jettison.triton import health
from jettison.triton.runtime import Installation
from jettison.triton.server_guard import MARK, Guard, end_left
from jettison.triton.shared_memory import SHARED_MEMORY

DEADLINE_S = 40.0
"""Longer than a server's exit timeout with the grace after it, on a machine that does other work too."""

GUARDED = """
import os, subprocess, sys
from jettison.triton.server_guard import MARK, Guard, end_left
program, mark, name = sys.argv[1:]
environment = {**os.environ, MARK: mark}
server = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
server.stdout.readline()
guard = Guard(server.pid, name=name, patience_s=0)
print(server.pid, flush=True)
sys.stdin.read()
"""

SERVED = """
import json, os, pathlib, sys, threading
from jettison.triton.runtime import Installation
from jettison.triton.server import TritonServer
program, backends, environment, repository, log = json.loads(sys.argv[1])
server = TritonServer(
    pathlib.Path(repository),
    Installation(pathlib.Path(program), pathlib.Path(backends), environment),
    environment=os.environ,
    log=pathlib.Path(log),
)
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, server.http_url, flush=True)
sys.stdin.read()
"""

WAITS = "print(flush=True); import sys, time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"

LEAVES = f"""
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", {DEAF!r}], stdout=subprocess.PIPE, start_new_session=True)
left.stdout.readline()
{WAITS}
"""
"""A server that leaves a deaf process behind, as stubs are that load when their server ends."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a starter; it and what it started are gone after the test."""
    starters: list[subprocess.Popen[str]] = []
    started: list[int] = []

    def run(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *arguments]
        starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        starters.append(starter)
        return starter

    yield run
    for starter in starters:
        started += children(starter.pid)
        starter.kill()
        starter.communicate()
    for pid in started:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a server that has one region of shared memory."""
    unique = f"jettison-test-{secrets.token_hex(6)}-"
    region = SHARED_MEMORY / f"{unique}region"
    region.write_bytes(b"tensor")
    yield unique
    region.unlink(missing_ok=True)


def children(pid: int) -> list[int]:
    """The processes that this one started and that run."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path) == pid]


def _parent(process: Path) -> int | None:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), None)


def still_running(pids: Sequence[int], handles: Sequence[int], deadline_s: float = DEADLINE_S) -> list[int]:
    """Which of the processes run at the deadline; the kernel tells of each end, nothing is asked again."""
    end = time.monotonic() + deadline_s
    left = []
    for pid, handle in zip(pids, handles, strict=True):
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            left.append(pid)
    return left


def first_line(starter: subprocess.Popen[str]) -> list[str]:
    assert starter.stdout is not None
    return starter.stdout.readline().split()


@pytest.mark.parametrize("program", [WAITS, DEAF], ids=["listens", "deaf"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGHUP, signal.SIGINT])
def test_a_server_ends_with_its_starter_and_its_shared_memory_goes(
    start: Start, name: str, program: str, death: signal.Signals
) -> None:
    starter = start(GUARDED, program, name, name)
    server = int(first_line(starter)[0])
    pids = children(starter.pid)
    assert server in pids
    handles = [os.pidfd_open(pid) for pid in pids]
    starter.send_signal(death)
    assert still_running(pids, handles) == []
    assert not list(SHARED_MEMORY.glob(f"{name}*"))


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT])
def test_what_a_server_leaves_behind_ends_with_its_starter_too(
    start: Start, name: str, death: signal.Signals
) -> None:
    starter = start(GUARDED, LEAVES, name, name)
    server = int(first_line(starter)[0])
    (left,) = children(server)
    handles = [os.pidfd_open(pid) for pid in (server, left)]
    starter.send_signal(death)
    try:
        assert still_running([server, left], handles) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handles[1], signal.SIGKILL)


def test_what_another_server_has_is_left_alone_when_one_ends(name: str) -> None:
    marks = (name, f"other-{name}")
    ours, another = (
        subprocess.Popen([sys.executable, "-c", WAITS], env={MARK: mark}, stdout=subprocess.PIPE)
        for mark in marks
    )
    try:
        end_left(name)
        assert ours.wait(DEADLINE_S) == -signal.SIGTERM
        assert another.poll() is None
    finally:
        for process in (ours, another):
            process.kill()
            process.communicate()


def test_a_starter_that_ends_in_order_but_forgets_its_server_takes_it_along(start: Start, name: str) -> None:
    starter = start(GUARDED, WAITS, name, name)
    first_line(starter)
    pids = children(starter.pid)
    handles = [os.pidfd_open(pid) for pid in pids]
    starter.communicate("")
    assert starter.returncode == 0
    assert still_running(pids, handles) == []


def test_another_process_that_got_the_servers_number_is_left_alone(start: Start, name: str) -> None:
    starter = start(GUARDED, WAITS, "jettison-another-", name)
    other = int(first_line(starter)[0])
    (guard,) = (pid for pid in children(starter.pid) if pid != other)
    handles = [os.pidfd_open(pid) for pid in (guard, other)]
    starter.kill()
    assert still_running([guard], handles[:1]) == []
    assert still_running([other], handles[1:], deadline_s=0) == [other]
    os.kill(other, signal.SIGKILL)


def test_a_dismissed_guard_leaves_the_server_and_its_memory(name: str) -> None:
    others = set(children(os.getpid()))
    server = subprocess.Popen([sys.executable, "-c", WAITS], env={MARK: name}, stdout=subprocess.PIPE)
    try:
        guard = Guard(server.pid, name=name, patience_s=0)
        guard.dismiss()
        assert set(children(os.getpid())) == others | {server.pid}
        assert server.poll() is None
        assert (SHARED_MEMORY / f"{name}region").exists()
    finally:
        server.kill()
        server.communicate()


@pytest.mark.server
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGHUP])
def test_tritonserver_and_its_stubs_end_with_a_starter_that_is_killed(
    start: Start, installation: Installation, tmp_path: Path, death: signal.Signals
) -> None:
    zoo.published(tmp_path / "repository", tmp_path, "affine", zoo.affine())
    paths = [str(path) for path in (installation.program, installation.backends)]
    places = [str(tmp_path / "repository"), str(tmp_path / "log")]
    starter = start(SERVED, json.dumps([*paths, dict(installation.environment), *places]))
    server, url = first_line(starter)
    assert health.is_server_ready(url), "the end of the thread that started it is no reason to end"
    pids = [*children(starter.pid), *children(int(server))]
    commands = " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
    assert int(server) in pids
    assert "triton_python_backend_stub" in commands
    environment = Path(f"/proc/{server}/environ").read_text().split("\0")
    name = next(entry.partition("=")[2] for entry in environment if entry.startswith(f"{MARK}="))
    assert list(SHARED_MEMORY.glob(f"{name}*"))
    handles = [os.pidfd_open(pid) for pid in pids]
    starter.send_signal(death)
    assert still_running(pids, handles) == []
    assert not list(SHARED_MEMORY.glob(f"{name}*"))
