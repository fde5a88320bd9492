"""A verdict service in a process of its own, and the little that its tests say to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jettison.experiment.counter_file import write_counters
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.settings import Settings
from jettison.experiment.tally import Tally

TOKEN = "0123456789abcdef" * 2
SETTINGS = f"""
name: gate
baseline: {"a" * 64}
candidate: {"b" * 64}
data_source: shadow:gate-cameras
unit: clip
margin: 0.01
planned_disagreement: 0.04
"""


def gate() -> Settings:
    """The settings in `SETTINGS`."""
    return Settings(
        name="gate", baseline="a" * 64, candidate="b" * 64, data_source="shadow:gate-cameras", unit="clip",
        margin=0.01, planned_disagreement=0.04,
    )  # fmt: skip


def state(node: str = "n1", *, sequence: int = 1, epoch: int = 0, **counts: int) -> Counters:
    return Counters(gate().id, node, epoch, sequence, ((WHOLE, Tally(**counts)),))


def leave(folder: Path, *states: Counters) -> None:
    """Nodes leave their files, as the router does: a whole file by a rename."""
    folder.mkdir(exist_ok=True)
    for one in states:
        write_counters(folder / f"{one.experiment}.{one.node}.json", CounterSet(one.experiment, (one,)))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


class Service:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.address = urlsplit(url).hostname or "", urlsplit(url).port or 0

    def ask(
        self, path: str, body: bytes | None = None, *, token: str = "", headers: dict[str, Any] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        given = {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body, given | (headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers), answer.read().decode())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(work: Path, *options: str, poll: float = 0.1) -> Iterator[Service]:
    """The service over `work`, with the settings written and counters read from `work/counters`."""
    (work / "ab.yaml").write_text(SETTINGS)
    (work / "counters").mkdir(exist_ok=True)
    (work / "token").write_text(TOKEN)
    given = (
        "--experiment", str(work / "ab.yaml"), "--counters", str(work / "counters"), "--state",
        str(work / "verdicts"), "--port", "0", "--poll", str(poll), "--json", *options,
    )  # fmt: skip
    command = (sys.executable, "-m", "jettison", "ab", "serve", *given)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            assert lines[0] == "{\n", process.communicate()[1]
            yield Service(process, json.loads("".join(lines))["url"])
        finally:
            process.send_signal(signal.SIGKILL)
