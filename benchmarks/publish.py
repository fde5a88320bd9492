"""Publishing to a real tritonserver under load, and what the server passes over in silence.

    python benchmarks/publish.py [--json] [--rounds 10]

Each round is five publishes and two rollbacks under sixteen gRPC clients. No request may fail, and none that
is sent after a version is proven may be answered by another. Each trap must happen without our protocol
and be caught with it. Exit code 1 where that is not so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

from jettison.core.environments import cache_folder
from jettison.triton import live as living
from jettison.triton.interpreters import find_interpreter
from jettison.triton.live import Live, publish_live, roll_back
from jettison.triton.publish import Release, publish
from jettison.triton.repository import ModelFolder
from jettison.triton.runtime import Installation, make_runtime
from jettison.triton.server import ServerOptions, TritonServer
from publish_load import CLIENTS, History, load
from publish_traps import MODEL, TRAPS, Bench, Trap, golden_release

_DEADLINE_S = 60.0
_KEPT = 3
_NOW = "2026-01-01T00:00:00Z"


class Publisher:
    """Publishes and rolls back one model, and tells the history what may be served when."""

    def __init__(self, work: Path, history: History) -> None:
        self._work, self.root, self._history = work, work / "repository", history
        self._factors: dict[int, float] = {}
        self.seconds: dict[str, list[float]] = {"publish": [], "rollback": []}
        self._next(lambda release: publish(release, self.root).version)

    def publish(self, live: Live) -> None:
        """The next version, proven."""
        self._next(lambda release: self._timed("publish", live, release))

    def _next(self, act: Callable[[Release], int]) -> None:
        factor = float(len(self._factors) + 2)
        self._history.begin(factor)
        version = act(golden_release(self._work, factor))
        self._factors[version] = factor

    def _timed(self, verb: str, live: Live, release: Release) -> int:
        begin = time.perf_counter()
        with self._marks():
            done = publish_live(release, self.root, live, keep_versions=_KEPT)
        self.seconds[verb].append(time.perf_counter() - begin)
        return done.version

    def roll_back(self, live: Live) -> None:
        """The version before, proven."""
        folder = ModelFolder(self.root / MODEL)
        older = [v for v in folder.versions() if v < folder.listed_versions()[-1]][-1]
        self._history.begin(self._factors[older])
        begin = time.perf_counter()
        with self._marks():
            roll_back(self.root, MODEL, now=_NOW, live=live)
        self.seconds["rollback"].append(time.perf_counter() - begin)

    def _marks(self) -> AbstractContextManager[object]:
        prove = living.prove

        def marked(folder: ModelFolder, version: int, live: Live) -> bool:
            is_proven = prove(folder, version, live)
            self._history.prove()
            return is_proven

        return mock.patch.object(living, "prove", marked)


def under_load(work: Path, installation: Installation, rounds: int) -> dict[str, object]:
    """What sixteen clients got during so many rounds."""
    history = History()
    publisher = Publisher(work, history)
    options = ServerOptions(control_mode="explicit", load_models=(MODEL,))
    log = work / "server.log"
    with TritonServer(
        publisher.root, installation, environment=os.environ, options=options, log=log
    ) as server:
        live = Live(server.http_url, _DEADLINE_S)
        with load(server.grpc_url, MODEL, history):
            for _ in range(rounds):
                for _ in range(5):
                    publisher.publish(live)
                for _ in range(2):
                    publisher.roll_back(live)
    failed, wrong = history.failed(), history.wrong()
    slowest = max((a.received - a.sent for a in history.answers), default=0.0)
    return {
        "publishes": len(publisher.seconds["publish"]),
        "rollbacks": len(publisher.seconds["rollback"]),
        "clients": CLIENTS,
        "requests": len(history.answers),
        "failed": len(failed),
        "wrong": len(wrong),
        "slowest_ms": round(slowest * 1000, 1),
        "median_publish_s": round(statistics.median(publisher.seconds["publish"]), 3),
        "median_rollback_s": round(statistics.median(publisher.seconds["rollback"]), 3),
        "examples": [dataclasses.asdict(answer) for answer in [*failed, *wrong][:5]],
    }


def traps(work: Path, installation: Installation, names: list[str]) -> list[Trap]:
    """Each trap in a folder of its own."""
    found = []
    for trap in TRAPS:
        if names and trap.__name__ not in names:
            continue
        place = work / trap.__name__
        place.mkdir()
        found.append(trap(Bench(place, installation)))
        print(found[-1], file=sys.stderr)
    return found


def table(loaded: dict[str, object], found: list[Trap]) -> str:
    """Both as Markdown."""
    lines = ["| what | found |", "|---|---|", *(f"| {key} | {value} |" for key, value in loaded.items())]
    lines += ["", "| done by hand | the server | the trap | caught by |", "|---|---|---|---|"]
    lines += [
        f"| {t.name} | {t.without} | {'yes' if t.happened else 'no'} | {t.caught_by or 'NOTHING'} |"
        for t in found
    ]
    return "\n".join(lines)


def main() -> int:
    """Run both parts, print tables or JSON; 1 where a target is missed."""
    arguments = _arguments()
    interpreter = find_interpreter(Path(sys.executable), which=shutil.which)
    installation = make_runtime(
        cache_folder(os.environ, Path.home()), interpreter, progress=lambda line: print(line, file=sys.stderr)
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = [] if arguments.no_traps else traps(work, installation, arguments.traps)
        loaded = under_load(work / "load", installation, arguments.rounds) if arguments.rounds else {}
    if arguments.json:
        print(json.dumps({"load": loaded, "traps": [dataclasses.asdict(trap) for trap in found]}, indent=1))
    else:
        print(table(loaded, found))
    is_well = not (loaded.get("failed") or loaded.get("wrong")) and all(
        trap.happened and trap.caught_by for trap in found
    )
    return 0 if is_well else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=10, help="five publishes and two rollbacks each")
    parser.add_argument("--no-traps", action="store_true", help="only the load")
    parser.add_argument("--traps", nargs="*", default=[], help="only some of them, by function name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
