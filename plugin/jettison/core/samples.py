"""Samples: named arrays, one row a sample, read in one pass in bounded memory and checked before any work.

A source is an `.npz` file, a folder of such shards, or `"package.module:function"` yielding dicts of
arrays. Arrays bear the model's input names; `labels` is optional.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jettison.core import dtypes, shards
from jettison.core.errors import SamplesError
from jettison.core.tensors import Arrays, TensorSpec

LABELS = "labels"
_CHECK_ROWS = 64
USER_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What a user's function raises when it is wrong or meets arrays that it did not expect."""


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

    `sha256` identifies the content: equal however the samples are split into shards or batches.
    """

    source: str
    count: int
    has_labels: bool
    sha256: str
    read: Callable[[], Iterator[Batch]]

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
    return checked(_reader(source), source=str(source), specs=specs)


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
        raise _bad(samples.source, f"{samples.count} samples are too few to split", "Give more samples")
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
    source = f"{samples.source} ({title})"
    return Samples(source, int(chosen.sum()), samples.has_labels, sha256, read)


def samples_of(
    arrays: Arrays, *, labels: np.ndarray[Any, Any] | None = None, specs: Sequence[TensorSpec]
) -> Samples:
    """Samples from arrays in memory, checked like all others."""
    return checked(lambda: iter([Batch(arrays, labels)]), source="arrays in memory", specs=specs)


def checked(read: Callable[[], Iterator[Batch]], *, source: str, specs: Sequence[TensorSpec]) -> Samples:
    """Samples whose every batch was read and checked once."""
    digests = {name: hashlib.sha256() for name in [*(spec.name for spec in specs), LABELS]}
    count, labelled = 0, 0
    for batch in read():
        _check_batch(batch, source, specs)
        for start in range(0, len(batch), _CHECK_ROWS):
            _check_values(_slice(batch, start, start + _CHECK_ROWS), source, digests)
        count += len(batch)
        labelled += 0 if batch.labels is None else len(batch)
    if count == 0:
        raise _bad(source, "it holds no sample", "Give at least one sample")
    if labelled not in (0, count):
        raise _bad(
            source, f"{labelled} of {count} samples have labels", "Give labels for all samples or none"
        )
    sha256 = hashlib.sha256(
        "".join(f"{name}:{d.hexdigest()}" for name, d in digests.items()).encode()
    ).hexdigest()
    return Samples(source=source, count=count, has_labels=labelled > 0, sha256=sha256, read=read)


def _bad(source: str, detail: str, fix: str) -> SamplesError:
    return SamplesError(f"samples {source}", detail=detail, fix=fix)


def _check_batch(batch: Batch, source: str, specs: Sequence[TensorSpec]) -> None:
    expected = [spec.name for spec in specs]
    if sorted(batch.inputs) != sorted(expected):
        raise _bad(
            source,
            f"expected arrays {sorted(expected)}, found {sorted(batch.inputs)}",
            "Name the arrays after the model's inputs (and `labels`)",
        )
    for spec in specs:
        _check_array(batch.inputs[spec.name], source, spec)
    counts = {name: len(array) for name, array in batch.inputs.items()}
    if batch.labels is not None:
        counts[LABELS] = len(batch.labels)
    if len(set(counts.values())) > 1:
        raise _bad(
            source, f"the arrays differ in their number of samples: {counts}", "Give one row per sample"
        )


def _check_array(array: np.ndarray[Any, Any], source: str, spec: TensorSpec) -> None:
    if array.dtype != spec.dtype.numpy:
        raise _bad(
            source,
            f"{spec.name!r} is expected as {spec.dtype.name}, found {array.dtype}",
            f"Convert it with .astype({spec.dtype.name!r})",
        )
    rows = spec.model_copy(update={"shape": (None, *spec.shape[1:])})
    if (problem := rows.mismatch(array.shape)) is not None:
        raise _bad(
            source,
            f"{spec.name!r}: {problem}",
            "Give samples in the model's shape, samples on the first axis",
        )


def _check_values(batch: Batch, source: str, digests: dict[str, Any]) -> None:
    """Refuse what is not finite, and take the rest into the digests."""
    for name, array in batch.inputs.items():
        row = dtypes.of_numpy(array.dtype)
        if row is not None and row.is_float and not np.isfinite(array).all():
            raise _bad(source, f"{name!r} holds NaN or infinity", "Remove or repair those samples")
        digests[name].update(_content(array))
    if batch.labels is not None:
        digests[LABELS].update(_content(batch.labels))


def _content(array: np.ndarray[Any, Any]) -> bytes:
    """What identifies the values: their bytes, or the words of text, whose bytes are addresses."""
    return repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def _reader(source: str | Path) -> Callable[[], Iterator[Batch]]:
    path = Path(source)
    if path.exists():
        paths = shards.shard_paths(path)
        return lambda: (batch_of(arrays) for arrays in shards.read_shards(paths))
    text = str(source)
    if ":" in text and not text.endswith(".npz"):
        function = load_function(text)
        return lambda: _from_function(function, text)
    raise _bad(
        text,
        "there is no such file or folder",
        "Give an .npz file, a folder of them, or package.module:function",
    )


def _from_function(function: Callable[..., Any], source: str) -> Iterator[Batch]:
    try:
        for arrays in function():
            yield batch_of(dict(arrays))
    except USER_ERRORS as error:
        raise _bad(
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


def load_function(text: str) -> Callable[..., Any]:
    """The function named by `package.module:function`.

    Raises:
        SamplesError: No such module or function.
    """
    module, _, name = text.partition(":")
    what, fix = f"function {text!r}", "Install its package, or correct package.module:function"
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise SamplesError(what, detail=str(error), fix=fix) from error
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
