"""Reads a log of Triton or TensorRT, and tells the known messages in it: cause and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict

from jettison.pipeline.known_messages import KNOWN, Known, Speaker

LONGEST_LINE = 16_384
"""Bytes of a line that are looked at: Triton puts whole stacks into one line, and causes come first."""
MOST_BYTES = 1 << 30
"""Bytes of a log that are read; a server that logs each request writes so much in a day."""
_SHOWN = 400


class Cause(BaseModel):
    """One known message of a log.

    Args:
        name: Of the message in the table.
        speaker: Whose message it is.
        cause: What is wrong.
        fix: What to do.
        source: Where message and cause were seen before.
        line: Number of the first line that has it, from 1.
        text: That line, cut where it is long.
        count: Lines that have it.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    speaker: Speaker
    cause: str
    fix: str
    source: str
    line: int
    text: str
    count: int


class LogExplanation(BaseModel):
    """What is known of a log. `is_whole` says whether all of it was read."""

    model_config = ConfigDict(frozen=True)

    log: str
    lines: int
    is_whole: bool
    causes: tuple[Cause, ...]


def explain_log(stream: BinaryIO, name: str, *, most_bytes: int = MOST_BYTES) -> LogExplanation:
    """The known messages of a log, in the order in which they first appear, each cause once.

    Messages that only follow from others are told where they stand alone.
    """
    reader = _Reader(stream, most_bytes)
    found: dict[str, Cause] = {}
    for number, text in enumerate(reader, 1):
        matched = _match(text)
        if matched is None:
            continue
        cause = _cause(*matched, number, text)
        key = f"{cause.name} {cause.cause}"
        before = found.get(key)
        found[key] = cause if before is None else before.model_copy(update={"count": before.count + 1})
    echoes = {known.name for known in KNOWN if known.is_echo}
    causes = [cause for cause in found.values() if cause.name not in echoes] or list(found.values())
    return LogExplanation(log=name, lines=reader.lines, is_whole=reader.is_whole, causes=tuple(causes))


class _Reader:
    """Lines of a stream, each cut to a bounded length, until the stream or the allowance ends."""

    def __init__(self, stream: BinaryIO, most_bytes: int) -> None:
        self._stream, self._left = stream, most_bytes
        self.lines = 0
        self.is_whole = True

    def __iter__(self) -> Iterator[str]:
        begins = True
        while self._left > 0:
            part = self._stream.readline(min(LONGEST_LINE, self._left))
            if not part:
                return
            self._left -= len(part)
            if begins:
                self.lines += 1
                yield part.decode("utf-8", errors="replace").rstrip("\r\n")
            begins = part.endswith(b"\n")
        self.is_whole = not self._stream.read(1)


_PATTERNS = tuple((known, re.compile(known.pattern)) for known in KNOWN)


def _match(text: str) -> tuple[Known, re.Match[str]] | None:
    """The first known message that the line holds."""
    for known, pattern in _PATTERNS:
        if (match := pattern.search(text)) is not None:
            return known, match
    return None


def _cause(known: Known, match: re.Match[str], number: int, text: str) -> Cause:
    groups = {name: value or "?" for name, value in match.groupdict().items()}
    shown = text.strip()
    return Cause(
        name=known.name,
        speaker=known.speaker,
        cause=known.cause.format(**groups),
        fix=known.fix.format(**groups),
        source=known.source,
        line=number,
        text=shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...",
        count=1,
    )
