"""The verbs that write a repository, broken off by the crash benchmark at some of their system calls."""

from __future__ import annotations

import errno
import platform
import sys
from pathlib import Path

import pytest

from jettison.core.errors import JettisonError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="ptrace as on Linux, x86-64"
)


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> tuple:
    """The benchmark's modules, which are no part of the package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import crash_cells
    import crash_trace

    return crash_cells, crash_trace


def broken_off(crash: tuple, work: Path, cell, fault) -> tuple:
    """How the verb ended under that fault, and what is wrong with what it left."""
    cells, trace = crash
    root = cells.fresh(work / "template", work / "broken")
    run = trace.run_traced(lambda: cell.act(root), fault, expected=JettisonError)
    return run, cells.check(root, cell)


@pytest.mark.parametrize("number", range(7))
def test_a_verb_killed_at_a_system_call_leaves_the_old_or_the_new_served(
    crash: tuple, tmp_path: Path, number: int
) -> None:
    """At about twenty calls of each verb; benchmarks/crash.py does it at all of them."""
    cells, trace = crash
    cell = cells.CELLS[number]
    cell.make(tmp_path / "template" / "repository")
    whole, (end, wrong) = broken_off(crash, tmp_path, cell, trace.Fault(1 << 30))
    assert wrong == ""
    ends, killed = {end}, 0
    for at in range(1, whole.calls, max(1, whole.calls // 20)):
        run, (end, wrong) = broken_off(crash, tmp_path, cell, trace.Fault(at))
        assert wrong == "", f"killed at call {at}"
        assert run.status == (-9 if run.is_hit else whole.status)
        killed += run.is_hit
        ends.add(end)
    assert ends >= {"old"}
    assert killed >= 18  # calls for memory differ from run to run, so that the last may lie behind the end


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_from_some_call_on_is_told(
    crash: tuple, tmp_path: Path, number: int, error: int
) -> None:
    cells, trace = crash
    cell = cells.CELLS[number]
    cell.make(tmp_path / "template" / "repository")
    statuses = []
    for at in range(1, 200, 4):
        run, (_, wrong) = broken_off(crash, tmp_path, cell, trace.Fault(at, error, stays=True))
        if not run.is_hit:
            break
        statuses.append(run.status)
        assert wrong == "", f"from call {at} on"
    assert set(statuses) <= {0, trace.FAILED}, "it raises an error of ours, or gets to the end"
    assert trace.FAILED in statuses
