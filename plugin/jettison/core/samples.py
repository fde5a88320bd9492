"""Samples: named arrays, one row a sample, read in one pass in bounded memory and checked before any work.

A source is an `.npz` file, a folder of such shards, or `"package.module:function"` yielding dicts of
arrays. Arrays bear the model's input names; `labels` is optional.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jettison.core import shards
from jettison.core.errors import JettisonError, SamplesError
from jettison.core.sample_audit import (
    LABELS,
    ROW_BYTES,
    LabelFacts,
    SampleAudit,
    bad_samples,
    sample_number,
)
from jettison.core.tensors import Arrays, TensorSpec

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
USER_ERRORS = (Exception, SystemExit)
"""What a user's function can raise: anything at all, since its code is foreign. So at this door alone all is
caught and told as an error of that function; `sys.exit` too, which would pass for an end of the command."""


@dataclass(frozen=True)
class Batch:
    """Some samples: inputs by name, each with the samples on the first axis, and their labels."""

    inputs: Arrays
    labels: np.ndarray[Any, Any] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Samples:
    """Checked samples that can be read again and again, one pass at a time.

    Args:
        source: Where they come from, for people.
        count: How many there are.
        has_labels: Whether all have labels, or none.
        sha256: Identifies the content: equal however the samples are split into shards or batches.
        read: Reads them once more, in the source's own batches.
        rows: What identifies each sample by its inputs, `ROW_BYTES` each.
        labels: What is known of the labels, of a part as of the whole source.
        place: Names a sample by its number in the whole source, with its shard where there are several.
    """

    source: str
    count: int
    has_labels: bool
    sha256: str
    read: Callable[[], Iterator[Batch]]
    rows: bytes = b""
    labels: LabelFacts | None = None
    place: Callable[[int], str] = sample_number

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples, whatever the source's own split.

        Shorter at the end, and where rows of another shape follow: an open dimension may differ.
        """
        return _rebatch(self.read(), size)


def open_samples(source: str | Path, specs: Sequence[TensorSpec]) -> Samples:
    """Samples from a file, a folder of shards or a function, checked in one pass against the inputs.

    Raises:
        SamplesError: No such source; wrong names, shapes or dtypes; NaN or infinity; no sample at all.
    """
    read, place = _reader(source)
    return checked(read, source=str(source), specs=specs, place=place)


def read_source(source: str | Path) -> Iterator[Batch]:
    """The batches of a source as they come and unchecked, for a model whose inputs are not known yet.

    Raises:
        SamplesError: No such source, or it cannot be read.
    """
    return _reader(source)[0]()


def split(samples: Samples, share: float, *, seed: int) -> tuple[Samples, Samples]:
    """Two disjoint parts, the first with about that share of the samples, drawn by seed.

    Raises:
        SamplesError: A part would be empty.
    """
    chosen = np.zeros(samples.count, bool)
    chosen[np.random.default_rng(seed).permutation(samples.count)[: round(samples.count * share)]] = True
    return _part(samples, chosen, f"first part, seed {seed}"), _part(
        samples, ~chosen, f"second part, seed {seed}"
    )


def first(samples: Samples, count: int) -> Samples:
    """The first `count` samples, or all where there are fewer."""
    if samples.count <= count:
        return samples
    return _part(samples, np.arange(samples.count) < count, f"first {count}")


def draw(samples: Samples, most: int, *, seed: int = 0) -> Samples:
    """About `most` samples drawn by seed, or all where there are no more."""
    return samples if samples.count <= most else split(samples, most / samples.count, seed=seed)[0]


def _part(samples: Samples, chosen: np.ndarray[Any, Any], title: str) -> Samples:
    if not chosen.any():
        raise bad_samples(
            samples.source, f"{samples.count} samples are too few to split", "Give more samples"
        )
    last = int(np.flatnonzero(chosen)[-1])

    def read() -> Iterator[Batch]:
        start = 0
        for batch in samples.read():
            rows = chosen[start : start + len(batch)]
            labels = None if batch.labels is None else batch.labels[rows]
            if rows.any():
                yield Batch({name: array[rows] for name, array in batch.inputs.items()}, labels)
            start += len(batch)
            if start > last:
                return

    sha256 = hashlib.sha256(samples.sha256.encode() + np.packbits(chosen).tobytes()).hexdigest()
    rows = np.frombuffer(samples.rows, np.uint8).reshape(-1, ROW_BYTES)
    return dataclasses.replace(
        samples,
        source=f"{samples.source} ({title})",
        count=int(chosen.sum()),
        sha256=sha256,
        read=read,
        rows=rows[chosen].tobytes(),
    )


def samples_of(
    arrays: Arrays, *, labels: np.ndarray[Any, Any] | None = None, specs: Sequence[TensorSpec]
) -> Samples:
    """Samples from arrays in memory, checked like all others."""
    return checked(lambda: iter([Batch(arrays, labels)]), source="arrays in memory", specs=specs)


def checked(
    read: Callable[[], Iterator[Batch]],
    *,
    source: str,
    specs: Sequence[TensorSpec],
    place: Callable[[int], str] = sample_number,
) -> Samples:
    """Samples whose every batch was read and checked once; `place` names a sample by its number."""
    audit = SampleAudit(source, specs, place)
    for batch in read():
        audit.add(batch.inputs, batch.labels)
    return Samples(
        source=source,
        sha256=audit.sha256(),
        count=audit.count,
        has_labels=audit.labels is not None,
        read=read,
        rows=audit.rows,
        labels=audit.labels,
        place=place,
    )


def shared(samples: Samples, others: Samples) -> int:
    """How many of the samples are among the others, equal in every input."""
    kept, known = (np.frombuffer(some.rows, f"u{ROW_BYTES}") for some in (samples, others))
    return int(np.isin(kept, known).sum())


def _reader(source: str | Path) -> tuple[Callable[[], Iterator[Batch]], Callable[[int], str]]:
    """How the source is read, and how errors name a sample of it."""
    path = Path(source)
    if path.exists():
        paths = shards.shard_paths(path)
        return lambda: map(batch_of, shards.read_shards(paths)), lambda number: _place(paths, number)
    text = str(source)
    if names_function(text):
        function = load_function(text)
        return lambda: _from_function(function, text), sample_number
    raise bad_samples(
        text,
        "there is no such file or folder",
        "Give an .npz file, a folder of them, or package.module:function",
    )


def _place(paths: Sequence[Path], number: int) -> str:
    if len(paths) == 1:
        return sample_number(number)
    path, row = shards.place_of(paths, number)
    return f"sample {number} (row {row} of {path.name}), counted from 0"


def _from_function(function: Callable[..., Any], source: str) -> Iterator[Batch]:
    try:
        for arrays in function():
            yield batch_of(dict(arrays))
    except JettisonError:
        raise
    except USER_ERRORS as error:
        raise bad_samples(
            source, f"the function failed with {type(error).__name__}: {error}", "Correct it"
        ) from error


def batch_of(arrays: Arrays) -> Batch:
    """A batch from named arrays, `labels` set apart."""
    inputs = {name: np.asarray(array) for name, array in arrays.items() if name != LABELS}
    if not inputs:
        raise SamplesError(
            "samples", detail=f"found only {sorted(arrays)}", fix="Add the model's inputs by name"
        )
    return Batch(inputs, np.asarray(arrays[LABELS]) if LABELS in arrays else None)


def names_function(source: str) -> bool:
    """Whether that is the form `package.module:function`, and no path."""
    return _FUNCTION.fullmatch(source) is not None


def load_function(text: str) -> Callable[..., Any]:
    """The function named by `package.module:function`.

    Raises:
        SamplesError: No such module or function, or its module fails as it is imported.
    """
    module, _, name = text.partition(":")
    what, fix = f"function {text!r}", "Install its package, set PYTHONPATH to its folder, or correct the name"
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise SamplesError(what, detail=str(error), fix=fix) from error
    except USER_ERRORS as error:
        problem = f"its module failed with {type(error).__name__}: {error}"
        raise SamplesError(what, detail=problem, fix="Correct it") from error
    if not callable(function):
        raise SamplesError(what, detail=f"{name!r} is no function", fix=fix)
    return function  # type: ignore[no-any-return]


def _rebatch(source: Iterator[Batch], size: int) -> Iterator[Batch]:
    held: list[Batch] = []
    count = 0
    for batch in source:
        for start in range(0, len(batch), size):
            piece = _slice(batch, start, start + size)
            if held and _row_shapes(held[-1]) != _row_shapes(piece):
                yield _join(held)
                held, count = [], 0
            held.append(piece)
            count += len(piece)
            while count >= size:
                joined = _join(held)
                yield _slice(joined, 0, size)
                rest = _slice(joined, size, count)
                held, count = ([rest], len(rest)) if count > size else ([], 0)
    if held:
        yield _join(held)


def _row_shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in batch.inputs.items()}


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[start:stop]
    return Batch({name: array[start:stop] for name, array in batch.inputs.items()}, labels)


def _join(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    inputs = {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(inputs, np.concatenate(labels) if len(labels) == len(batches) else None)
