"""Where counters come from: folders of counter files, and the metrics of Tritons.

A source that fails is a sentence and no error: the others go on, and the verdict stays what it was.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from jettison.core.errors import InputError, JettisonError
from jettison.experiment.counter_file import FORMAT, counters_of, verify
from jettison.experiment.counters import Counters
from jettison.verdict_service.metric_counters import counters_shown

LARGEST_FILE_BYTES = 8 << 20
"""Chosen: a node's file has some kilobytes, so that this holds the merged counters of a thousand nodes."""
LARGEST_SCRAPE_BYTES = 32 << 20
"""Chosen: a Triton with a hundred models shows about 1 MB."""
_TRIES, _PAUSE_S = 5, 0.05
"""Chosen: an update takes some milliseconds, once a second: five scrapes in a row never met one in tests."""
_AT_A_TIME = 8


class Found(NamedTuple):
    """What one look at a source gave.

    Args:
        states: The states of nodes.
        problems: What could not be read, in words.
    """

    states: tuple[Counters, ...]
    problems: tuple[str, ...] = ()


class Source(Protocol):
    """Something that has counters."""

    @property
    def name(self) -> str:
        """What it is called in metrics and problems."""
        ...

    def look(self, experiments: Collection[str]) -> Found:
        """What it has of these experiments now."""
        ...


class CounterFolder:
    """A folder in which nodes leave their files; one whose size and times are as before is not read again.

    Args:
        folder: Its path; files of other folders below it count as well.
        key: With it, every state must be signed.
    """

    def __init__(self, folder: Path, *, key: bytes | None = None) -> None:
        self._folder, self._key = folder, key
        self._read: dict[Path, tuple[tuple[int, int, int], Found]] = {}

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    def look(self, experiments: Collection[str]) -> Found:
        """The states in all files; a folder that is away is a problem."""
        if not self._folder.is_dir():
            return Found((), (f"{self._folder}: there is no such folder",))
        paths = sorted(path for path in self._folder.rglob("*.json") if not path.name.startswith("."))
        self._read = {path: entry for path, entry in self._read.items() if path in set(paths)}
        looked = [self._file(path) for path in paths]
        states = (state for found in looked for state in found.states if state.experiment in experiments)
        return Found(tuple(states), tuple(problem for found in looked for problem in found.problems))

    def _file(self, path: Path) -> Found:
        try:
            status = path.stat()
            times = status.st_mtime_ns, status.st_size, status.st_ino
            known = self._read.get(path)
            if known is not None and known[0] == times:
                return known[1]
            found = self._states(path, status.st_size)
        except JettisonError as error:
            found = Found((), (str(error),))
        except OSError as error:  # not remembered: the disk may be back at the next look
            return Found((), (f"counters {path}: {error.strerror}",))
        self._read[path] = times, found
        return found

    def _states(self, path: Path, size: int) -> Found:
        what = f"counters {path}"
        if size > LARGEST_FILE_BYTES:
            raise InputError(what, detail=f"larger than {LARGEST_FILE_BYTES} bytes", fix="Give counter files")
        document = document_of(path.read_bytes(), what)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            return Found(())  # other JSON lies beside them: plans, verdicts
        states = counters_of(document, what=what).states
        for state in states if self._key is not None else ():
            verify(state, self._key or b"")
        return Found(states)


class MetricsEndpoint:
    """A Triton whose router shows its counters.

    Args:
        url: Of its metrics, such as `http://node:8002/metrics`.
        timeout_s: How long it may take.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def look(self, experiments: Collection[str]) -> Found:
        """The states that it shows; read again where an update was under way."""
        what = f"metrics {self._url}"
        try:
            for _ in range(_TRIES):
                shown = counters_shown(self._text(), experiments, what=what)
                if not shown.torn:
                    return Found(shown.states)
                time.sleep(_PAUSE_S)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return Found((), (f"{what}: {getattr(error, 'reason', None) or error}",))
        except JettisonError as error:
            return Found((), (str(error),))
        return Found(shown.states, (f"{what}: half a state of {', '.join(shown.torn)}, {_TRIES} times",))

    def _text(self) -> str:
        with urllib.request.urlopen(self._url, timeout=self._timeout_s) as answer:  # noqa: S310 (checked)
            content: bytes = answer.read(LARGEST_SCRAPE_BYTES + 1)
        if len(content) > LARGEST_SCRAPE_BYTES:
            raise ValueError(f"larger than {LARGEST_SCRAPE_BYTES} bytes")
        return content.decode(errors="replace")


def document_of(content: bytes, what: str) -> object:
    """JSON out of bytes.

    Raises:
        InputError: It is none.
    """
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(what, detail=f"not JSON: {error}", fix="Fetch it from the node again") from error
    return document


def look_at(sources: Sequence[Source], experiments: Collection[str]) -> list[Found]:
    """What all sources have, several asked at a time."""
    if not sources:
        return []
    with ThreadPoolExecutor(min(_AT_A_TIME, len(sources))) as pool:
        return list(pool.map(lambda source: source.look(experiments), sources))
