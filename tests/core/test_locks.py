"""A lock between processes: others wait, and a death lets go of it."""

from __future__ import annotations

import subprocess
import sys

from jettison.core.locks import locked

HOLD = """
import pathlib, sys
from jettison.core.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_another_process_waits_until_the_holder_is_done(tmp_path):
    first, said = holder(tmp_path / "registry.json")
    assert said == "held"
    second = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "registry.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert second.stdout is not None
    order = []
    first.communicate("")
    order.append("first ended")
    order.append(second.stdout.readline().strip())
    second.communicate("")
    assert order == ["first ended", "held"]


def test_a_death_lets_go(tmp_path):
    process, said = holder(tmp_path / "registry.json")
    assert said == "held"
    process.kill()
    process.communicate()
    with locked(tmp_path / "registry.json"):
        assert [path.name for path in tmp_path.iterdir()] == ["registry.json.lock"]
