"""Publishing broken off at every system call, at random moments, by a full disk and by a read-only one.

    python benchmarks/crash.py [--json] [--random 300] [--servers 24]

Each time the repository must serve the old or the new version, and the next publish must succeed. All ends
are judged by the rules by which Triton reads a repository; one of each kind of end is also served by a real
tritonserver. Linux on x86-64. Exit code 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crash_cells import CELLS, MODEL, Cell, check, fresh
from crash_rules import served, state_of
from crash_trace import FAILED, Fault, Run, random_seconds, run_for, run_traced
from jettison.core.environments import cache_folder
from jettison.core.errors import JettisonError
from jettison.triton.client import TritonRunner
from jettison.triton.interpreters import find_interpreter
from jettison.triton.runtime import make_runtime
from jettison.triton.server import TritonServer

_ERRORS = {"disk full": errno.ENOSPC, "read-only": errno.EROFS}


@dataclass
class Row:
    """One way to break one verb off: how often, what was served then, and what was wrong."""

    verb: str
    fault: str
    times: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, run: Run, end: str, wrong: str, where: str) -> None:
        """Count a run, with how it ended and what stands on disk."""
        self.times += 1
        self.ends[end or "broken"] += 1
        if run.status not in (0, FAILED, -signal.SIGKILL):
            wrong = f"{wrong} it raised what it should not".strip()
        if wrong:
            self.wrong.append(f"{where}: {wrong}")


class Breaker:
    """Breaks one verb off in all ways, and keeps a repository of each kind of end."""

    def __init__(self, cell: Cell, work: Path) -> None:
        self.cell, self._work = cell, work
        self._template = work / "template"
        cell.make(self._template / "repository")
        self.kinds: dict[str, Path] = {}

    def rows(self, random: int) -> Iterator[Row]:
        """Every call once; so many random moments; each error at each call that it can meet."""
        yield self._traced("killed at each system call", Fault(0))
        yield self._random(random)
        for name, error in _ERRORS.items():
            yield self._traced(f"{name} at each call once", Fault(0, error))
            yield self._traced(f"{name} from each call on", Fault(0, error, stays=True))

    def _traced(self, fault_name: str, fault: Fault) -> Row:
        row, at = Row(self.cell.name, fault_name), 0
        while True:
            at += 1
            root = fresh(self._template, self._work / "broken")
            run = run_traced(
                lambda root=root: self.cell.act(root),
                dataclasses.replace(fault, at=at),
                expected=JettisonError,
            )
            if not run.is_hit:
                return row
            self._judge(row, run, root, f"call {at}")

    def _random(self, count: int) -> Row:
        row = Row(self.cell.name, "killed at a random moment")
        root = fresh(self._template, self._work / "broken")
        draw = random_seconds(lambda: self.cell.act(root), seed=8)
        for _ in range(count):
            root = fresh(self._template, self._work / "broken")
            seconds = draw()
            run = run_for(lambda root=root: self.cell.act(root), seconds, expected=JettisonError)
            self._judge(row, run, root, f"{seconds * 1000:.2f} ms")
        return row

    def _judge(self, row: Row, run: Run, root: Path, where: str) -> None:
        self._keep(root)
        row.add(run, *check(root, self.cell), where)

    def _keep(self, root: Path) -> None:
        state = state_of(root)
        if state not in self.kinds:
            self.kinds[state] = self._work / f"kind-{len(self.kinds)}"
            shutil.copytree(root, self.kinds[state])


def serve(breakers: list[Breaker], most: int) -> Row:
    """Start a real tritonserver over one repository of each kind of end, and ask what it serves."""
    interpreter = find_interpreter(Path(sys.executable), which=shutil.which)
    installation = make_runtime(
        cache_folder(os.environ, Path.home()), interpreter, progress=lambda line: print(line, file=sys.stderr)
    )
    row = Row("all", "a real tritonserver over each kind of end")
    kinds = [(breaker.cell, root) for breaker in breakers for root in breaker.kinds.values()]
    for cell, root in kinds[:most]:
        try:
            wanted = served(root).get(MODEL)
            log = root.with_name(f"{root.name}.log")
            with TritonServer(root, installation, environment=os.environ, log=log) as server:
                found = _answer(server.http_url) if wanted else None
        except JettisonError as error:
            row.add(Run(0, 0, is_hit=True), "", str(error), cell.name)
            continue
        wrong = "" if found in (cell.before, cell.after) else f"answers as factor {found}"
        row.add(Run(0, 0, is_hit=True), "new" if found == cell.after else "old", wrong, cell.name)
    return row


def _answer(url: str) -> float:
    with TritonRunner(url, MODEL) as runner:
        return float(runner.run({"x": np.float32([[1, 1, 1]])})["y"][0, 0])


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| verb | broken off | times | old served | new served | wrong |", "|---|---|---|---|---|---|"]
    for row in rows:
        counts = f"{row.times} | {row.ends['old']} | {row.ends['new']} | {len(row.wrong)}"
        lines.append(f"| {row.verb} | {row.fault} | {counts} |")
    return "\n".join([*lines, "", *(f"{row.verb}, {row.fault}: {w}" for row in rows for w in row.wrong[:5])])


def main() -> int:
    """Break all off, print the table or JSON; 1 where something is wrong."""
    arguments, begin, rows = _arguments(), time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        breakers = [
            Breaker(cell, Path(folder) / str(number))
            for number, cell in enumerate(CELLS)
            if arguments.only in cell.name
        ]
        for breaker in breakers:
            rows += breaker.rows(-(-arguments.random // len(breakers)))
            print(f"{breaker.cell.name}: {len(breaker.kinds)} kinds of end", file=sys.stderr)
        if arguments.servers:
            rows.append(serve(breakers, arguments.servers))
    if arguments.json:
        print(json.dumps({"rows": [vars(row) for row in rows]}, indent=1))
    else:
        print(table(rows))
    print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return 1 if any(row.wrong for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--random", type=int, default=300, help="random moments, for all verbs together")
    parser.add_argument("--servers", type=int, default=24, help="most repositories for the real server")
    parser.add_argument("--only", default="", help="only the verbs whose name holds this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
