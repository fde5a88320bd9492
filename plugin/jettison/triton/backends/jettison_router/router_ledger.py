"""One ledger for all instances of a router on a node, since a unit's requests may reach several of them.

Every instance is a process. The one that holds the lock counts and writes; the others hand it what they saw,
by a datagram socket beside the counters. When it ends, another takes the lock, reads the file and goes on.
An event is counted where it was written; what a killed process had not handed on or written was never
counted anywhere. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_files import (
        CounterFile,
        NodeState,
        is_empty,
        read_key,
    )
    from jettison.triton.backends.jettison_router.router_settings import NAME, Settings
    from jettison.triton.backends.jettison_router.router_units import Event, Units
else:
    from router_files import CounterFile, NodeState, is_empty, read_key
    from router_settings import NAME, Settings
    from router_units import Event, Units

MOST_WAITING = 100_000
"""Chosen: events of some minutes at hundreds a second, about 30 MB; more are dropped and told."""
_PER_DATAGRAM = 200
"""Chosen: some 20 KB of JSON, well below Linux's default limit of a datagram, 208 KiB (net.core.wmem_max)."""
_LARGEST = 1 << 17
WRITE_S = 1.0
"""How often counts go to the file."""

Seen = tuple[str, Event]
"""An experiment's id, and what became of a request of it."""


class Ledger:
    """What one instance saw, on its way into the node's file.

    `add` may be called from any thread, all else from one.

    Args:
        settings: The router's.
        say: Where a sentence about what went wrong goes.
        clock: Seconds that only grow.
    """

    def __init__(
        self, settings: Settings, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._say, self._clock = settings, say, clock
        self._key = read_key(settings.key_path)
        self._waiting: deque[Seen] = deque()
        self._folder = Path(settings.counter_folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = None
        self._socket: socket.socket | None = None
        self._books: dict[str, Book] = {}
        self._written_s = clock()
        self._dropped = 0
        self._late = 0
        self._news: dict[str, dict[str, object]] = {}

    @property
    def is_writer(self) -> bool:
        """Whether this instance counts for all."""
        return self._lock is not None

    def add(self, experiment: str, event: Event) -> None:
        """Remember what became of a request."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
        else:
            self._waiting.append((experiment, event))

    def take_dropped(self) -> int:
        """Requests that found no room since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def take_late(self) -> int:
        """Requests of complete units since the last call."""
        late, self._late = self._late, 0
        return late

    def take_news(self) -> list[dict[str, object]]:
        """The states that were written since the last call, the latest of each experiment."""
        news, self._news = self._news, {}
        return list(news.values())

    def tick(self, experiment: str) -> None:
        """Hand on or count what waits; write where it is time. The experiment is the one that is on.

        Raises:
            OSError: The folder or a file in it cannot be used; what waits goes on waiting.
        """
        if not self._take_lock():
            self._send()
            return
        if experiment:
            self._book(experiment)  # a file that cannot be read is told of before anything is taken
        for name, event in (*self._received(), *self._own()):
            self._book(name).units.add(event, self._clock())
        now = self._clock()
        for name, book in list(self._books.items()):
            book.units.close_idle(now)
            if name != experiment:
                book.units.close_all()
        if now - self._written_s >= WRITE_S:
            self._write(experiment)
            self._written_s = now

    def close(self) -> None:
        """Count all that waits, complete every unit, write, and let another instance take over."""
        if not self._take_lock():
            self._send()
            return
        self._socket_path().unlink(missing_ok=True)  # from here on others keep what they have
        for name, event in (*self._received(), *self._own()):
            self._book(name).units.add(event, self._clock())
        for book in self._books.values():
            book.units.close_all()
        self._write("")
        if self._socket is not None:
            self._socket.close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._socket = None

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        handle = os.open(self._folder / f"{self._settings.node}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._lock = handle
        self._socket_path().unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with _short(self._folder) as short:
            self._socket.bind(f"{short}/{self._socket_path().name}")
        self._socket_path().chmod(0o600)
        return True

    def _socket_path(self) -> Path:
        return self._folder / f"{self._settings.node}.socket"

    def _own(self) -> Iterator[Seen]:
        for _ in range(len(self._waiting)):
            yield self._waiting.popleft()

    def _received(self) -> Iterator[Seen]:
        while self._socket is not None:
            try:
                text = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return
            try:
                yield from [(name, Event(*event)) for name, event in json.loads(text)]
            except (ValueError, TypeError) as error:
                self._say(f"a datagram that is no event: {error}")

    def _send(self) -> None:
        """Hand on what waits; what cannot be handed on waits on."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _PER_DATAGRAM))]
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door, _short(self._folder) as short:
                    door.settimeout(WRITE_S)
                    door.sendto(json.dumps(batch).encode(), f"{short}/{self._socket_path().name}")
            except OSError:
                self._waiting.extendleft(reversed(batch))
                return

    def _book(self, experiment: str) -> Book:
        if experiment not in self._books:
            self._books[experiment] = Book(self._settings, experiment, self._key)
        return self._books[experiment]

    def _write(self, experiment: str) -> None:
        for name, book in list(self._books.items()):
            try:
                book.write()
            except OSError as error:
                self._say(f"counters of {name}: {error}; counting on, and trying again")
                continue
            self._late += book.take_late()
            if (news := book.take_news()) is not None:
                self._news[name] = news
            if name != experiment and not len(book.units):
                del self._books[name]


class Book:
    """One experiment's counts, and its file.

    Raises:
        ValueError: The experiment's id cannot be a file's name.
        OSError: Its file cannot be read.
    """

    def __init__(self, settings: Settings, experiment: str, key: bytes = b"") -> None:
        if not NAME.fullmatch(experiment):
            raise ValueError(f"experiment {experiment!r} cannot be a file's name")
        self._file = CounterFile(settings.counter_folder, experiment, settings.node, key=key)
        self.state: NodeState = self._file.load()
        self.units = Units(
            idle_s=settings.unit_idle_s,
            max_requests=settings.unit_max_requests,
            most_open=settings.most_open_units,
            counts=self.state.counts,
        )
        self.units.remember(self._file.closed(self.units.most_closed))
        self._written = self._file.document(self.state, 0)
        self._most_bytes = settings.disagreement_bytes
        self._news = None if is_empty(self.state) else self._file.document(self.state, self.state.sequence)

    def write(self) -> None:
        """Write what has changed.

        Raises:
            OSError: It cannot be written; it is kept for the next time.
        """
        document = self._file.document(self.state, 0)
        if document != self._written and not is_empty(self.state):
            self._file.write(self.state, self.units.newly_closed, self.units.remembered)
            self.units.newly_closed.clear()
            self._written = document
            self._news = self._file.document(self.state, self.state.sequence)
        if self.units.newly_differing:
            self._file.note_differing(self.units.newly_differing, self._most_bytes)
            self.units.newly_differing.clear()

    def take_news(self) -> dict[str, object] | None:
        """The state as the file has it, once after each change of it; None where there was none."""
        news, self._news = self._news, None
        return news

    def take_late(self) -> int:
        """Requests of complete units since the last call."""
        late, self.units.late = self.units.late, 0
        return late


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of some letters to the folder, since a socket's may have 107 only (unix(7))."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
