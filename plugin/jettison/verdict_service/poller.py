"""Looks at all sources again and again, and gives what they have to the desk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jettison.core.errors import JettisonError
from jettison.experiment.settings_file import load_settings
from jettison.verdict_service.desk import Desk
from jettison.verdict_service.options import settings_files
from jettison.verdict_service.sources import Source, look_at

logger = logging.getLogger(__name__)

_STALE_ROUNDS = 10
"""Chosen: a thread that has not come round in so many intervals hangs."""


class Poller:
    """A thread that reads sources, from `start` to `stop`.

    Args:
        desk: Who takes what is found.
        sources: Where counters come from.
        experiments: Files and folders of settings; new ones in a folder are opened.
        poll_s: Seconds between two rounds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        desk: Desk,
        sources: Sequence[Source],
        experiments: Sequence[Path],
        *,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._sources, self._experiments = desk, tuple(sources), tuple(experiments)
        self._poll_s, self._clock = poll_s, clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verdict sources", daemon=True)
        self._came_round: float | None = None
        self._told: frozenset[str] = frozenset()
        self.good_looks: dict[str, float] = {}
        self.failed_looks: dict[str, int] = dict.fromkeys((source.name for source in sources), 0)
        self.problems: tuple[str, ...] = ()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way, and wait for it a while."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._poll_s)

    @property
    def is_ready(self) -> bool:
        """Whether every source was looked at once; also where some failed."""
        return self._came_round is not None

    @property
    def is_alive(self) -> bool:
        """Whether it still comes round."""
        if self._came_round is None:
            return self._thread.is_alive() or not self._stopping.is_set()
        return self._clock() - self._came_round < _STALE_ROUNDS * max(self._poll_s, 1.0) + 60

    def look(self) -> None:
        """One round."""
        problems = self._open_new()
        experiments = frozenset(self._desk.standings)
        found = look_at(self._sources, experiments)
        for source, one in zip(self._sources, found, strict=True):
            problems += one.problems
            if one.problems:
                self.failed_looks[source.name] += 1
            else:
                self.good_looks[source.name] = time.time()
        try:
            self._desk.take(state for one in found for state in one.states)
        except OSError as error:
            problems.append(f"state: {error}; what is told stays as it was")
        self._tell(problems)
        self._came_round = self._clock()

    def _open_new(self) -> list[str]:
        folders = (path for path in self._experiments if path.is_dir())
        opened = (self._open(file) for folder in folders for file in settings_files(folder))
        return [problem for problem in opened if problem]

    def _open(self, file: Path) -> str:
        """Nothing, or what is wrong with it."""
        try:
            self._desk.open(load_settings(file))
        except (JettisonError, OSError) as error:
            return str(error)
        return ""

    def _tell(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        for text in problems:
            if text not in self._told:
                logger.warning("%s", text)
        self._told = frozenset(problems)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(self._poll_s)
