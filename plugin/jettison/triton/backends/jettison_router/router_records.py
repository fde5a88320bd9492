"""Units on which the two models differed, kept for whoever labels them: one line of JSON each.

Standard library only. Instances write to one file, a line in one write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path


class Records:
    """An append-only file with a cap, one for each experiment.

    Args:
        folder: Where it is.
        node: This node's name.
        most_bytes: At so many it is full, and told of once.
        say: Where that sentence goes.
    """

    def __init__(self, folder: str, node: str, *, most_bytes: int, say: Callable[[str], None]) -> None:
        self._folder, self._node, self._most_bytes, self._say = folder, node, most_bytes, say
        self._told: set[str] = set()

    def path(self, experiment: str) -> Path:
        """The file of an experiment."""
        return Path(self._folder, f"{experiment}.{self._node}.disagreements.jsonl")

    def add(self, experiment: str, record: Mapping[str, object]) -> bool:
        """Whether the line was written whole; a file that is full or cannot be written is told of once."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False, default=str).encode() + b"\n"
        try:
            with self.path(experiment).open("a+b", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    line = b"\n" + line  # a full disk took a part of the last one
                if size + len(line) <= self._most_bytes:
                    return file.write(line) == len(line)
            self._tell(experiment, f"it has its {self._most_bytes} bytes: further disagreements count only")
        except OSError as error:
            self._tell(experiment, str(error))
        return False

    def _tell(self, experiment: str, why: str) -> None:
        if experiment not in self._told:
            self._told.add(experiment)
            self._say(f"disagreements {self.path(experiment)}: {why}")
