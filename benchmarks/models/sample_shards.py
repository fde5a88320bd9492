"""Sample sets written as folders of `.npz` shards, once and completely or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROWS_PER_SHARD = 64

Row = dict[str, np.ndarray[Any, Any]]


def write_once(folder: Path, rows: Iterable[Row]) -> int:
    """The number of rows written to `folder`; 0 if the folder is there already.

    The shards are written beside it and renamed at the end, so a folder of that name is always whole.
    Stored, not deflated: float images hardly shrink, and reading them should cost nothing.
    """
    if folder.exists():
        print(f"{folder.name}: there already")
        return 0
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = 0
    for number, shard in enumerate(_shards(rows)):
        np.savez(partial / f"{number:04}.npz", **_stacked(shard))
        count += len(shard)
    partial.rename(folder)
    print(f"{folder.name}: {count} samples")
    return count


def read_rows(folder: Path, name: str, rows: int) -> np.ndarray[Any, Any]:
    """The first `rows` rows of the array `name`."""
    pieces: list[np.ndarray[Any, Any]] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as shard:
            pieces.append(shard[name])
        if sum(len(piece) for piece in pieces) >= rows:
            break
    return np.concatenate(pieces)[:rows]


def _shards(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while shard := list(islice(remaining, ROWS_PER_SHARD)):
        yield shard


def _stacked(shard: list[Row]) -> dict[str, Any]:
    return {name: np.stack([row[name] for row in shard]) for name in shard[0]}
