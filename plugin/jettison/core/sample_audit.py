"""The one check of all samples: what makes them unusable, and what is known of them after it.

Batches are taken in one by one, in bounded memory; eight bytes of each sample stay, so that two sets can be
asked for the samples that they share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jettison.core import dtypes
from jettison.core.errors import SamplesError
from jettison.core.tensors import Arrays, TensorSpec, format_shape

LABELS = "labels"
_ROWS_AT_ONCE = 64
ROW_BYTES = 8
"""Kept of the SHA-256 of each sample: of a million samples and a million others, any two different ones agree
with a probability of 1e12 / 2^64 = 5e-8, and it would put a note wrong by one."""

Array = np.ndarray[Any, Any]


def bad_samples(source: str, detail: str, fix: str) -> SamplesError:
    """The error that names the samples."""
    return SamplesError(f"samples {source}", detail=detail, fix=fix)


def sample_number(number: int) -> str:
    """How an error names a sample of a source that has no shards."""
    return f"sample {number}, counted from 0"


@dataclass(frozen=True)
class LabelFacts:
    """What is known of all labels. Samples are given by their number in the whole source.

    Args:
        dtype: Element type.
        row_shape: Shape of one sample's label.
        example: The first label as text; empty where it is more than one value.
        lowest: Smallest value and its first sample, of whole numbers, one a sample; else None.
        highest: Largest value and its first sample, the same.
        not_finite: First sample whose label holds NaN or infinity, or None.
    """

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    example: str
    lowest: tuple[int, int] | None = None
    highest: tuple[int, int] | None = None
    not_finite: int | None = None


@dataclass
class SampleAudit:
    """Checks batches against the inputs of a model, and gathers what identifies them.

    `place` names a sample by its number, for errors.
    """

    source: str
    specs: Sequence[TensorSpec]
    place: Callable[[int], str] = sample_number
    count: int = 0
    labels: LabelFacts | None = None
    _labelled: int = 0
    _label_shapes: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = field(default_factory=dict)
    _rows: bytearray = field(default_factory=bytearray)
    _inputs: Any = field(default_factory=hashlib.sha256)
    _labels: Any = field(default_factory=hashlib.sha256)

    def add(self, inputs: Arrays, labels: Array | None) -> None:
        """Take in one batch.

        Raises:
            SamplesError: Wrong names, shapes, types or numbers of rows; NaN or infinity.
        """
        self._check_names(inputs)
        for spec in self.specs:
            self._check_array(inputs[spec.name], spec)
        size = self._check_counts(inputs, labels)
        if labels is not None:
            self._check_label_shape(inputs, labels)
        for start in range(0, size, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            piece = {name: array[part] for name, array in inputs.items()}
            self._check_numbers(piece, self.count + start)
            for digest in _row_digests(piece):
                self._inputs.update(digest)
                self._rows += digest[:ROW_BYTES]
            if labels is not None:
                self._add_labels(labels[part], self.count + start)
        self.count += size
        self._labelled += 0 if labels is None else size

    @property
    def rows(self) -> bytes:
        """`ROW_BYTES` of each sample's digest, one after the other; labels take no part in it."""
        return bytes(self._rows)

    def sha256(self) -> str:
        """What identifies all that was taken in, however it was split.

        Raises:
            SamplesError: There is no sample, or only some have labels.
        """
        if self.count == 0:
            raise bad_samples(self.source, "it holds no sample", "Give at least one sample")
        if self._labelled not in (0, self.count):
            raise bad_samples(
                self.source,
                f"{self._labelled} of {self.count} samples have labels",
                "Give labels for all samples or none",
            )
        return hashlib.sha256(f"{self._inputs.hexdigest()} {self._labels.hexdigest()}".encode()).hexdigest()

    def _check_names(self, inputs: Arrays) -> None:
        expected = sorted(spec.name for spec in self.specs)
        if sorted(inputs) != expected:
            raise bad_samples(
                self.source,
                f"expected arrays {expected}, found {sorted(inputs)}",
                "Name the arrays after the model's inputs (and `labels`)",
            )

    def _check_array(self, array: Array, spec: TensorSpec) -> None:
        if array.dtype != spec.dtype.numpy:
            raise bad_samples(
                self.source,
                f"{spec.name!r} is expected as {spec.dtype.name}, found {array.dtype}",
                f"Convert it with .astype({spec.dtype.name!r})",
            )
        rows = spec.model_copy(update={"shape": (None, *spec.shape[1:])})
        if (problem := rows.mismatch(array.shape)) is not None:
            raise bad_samples(
                self.source,
                f"{spec.name!r}: {problem}",
                "Give samples in the model's shape, samples on the first axis",
            )

    def _check_counts(self, inputs: Arrays, labels: Array | None) -> int:
        counts = {name: len(array) for name, array in inputs.items()}
        if labels is not None:
            if not labels.ndim:
                raise bad_samples(
                    self.source, f"labels are a single value, {labels}", "Give one row per sample"
                )
            counts[LABELS] = len(labels)
        if len(set(counts.values())) > 1:
            raise bad_samples(
                self.source,
                f"the arrays differ in their number of samples: {counts}",
                "Give one row per sample",
            )
        return next(iter(counts.values()))

    def _check_label_shape(self, inputs: Arrays, labels: Array) -> None:
        """Samples of one shape share a batch, so their labels have to be of one shape too."""
        shapes = tuple(inputs[spec.name].shape[1:] for spec in self.specs)
        first = self._label_shapes.setdefault(shapes, labels.shape[1:])
        if labels.shape[1:] != first:
            raise bad_samples(
                self.source,
                f"labels are of shape {format_shape(first)} at first and of shape "
                f"{format_shape(labels.shape[1:])} from {self.place(self.count)}",
                "Give all labels in one shape",
            )

    def _check_numbers(self, inputs: Arrays, first: int) -> None:
        for name, array in inputs.items():
            bad = _first_not_finite(array)
            if bad is not None:
                row, value = bad
                raise bad_samples(
                    self.source,
                    f"{name!r} holds NaN or infinity: expected finite numbers, found {value} in "
                    f"{self.place(first + row)}",
                    "Remove or repair those samples",
                )

    def _add_labels(self, labels: Array, first: int) -> None:
        self._labels.update(_content(labels))
        known = self.labels
        if known is not None and known.dtype.kind != labels.dtype.kind:
            raise bad_samples(
                self.source,
                f"labels are {known.dtype} at first and {labels.dtype} from {self.place(first)}",
                "Give all labels as one element type",
            )
        self.labels = _label_facts(labels, first) if known is None else _joined(known, labels, first)


def _label_facts(labels: Array, first: int) -> LabelFacts:
    is_single = labels[:1].size == 1
    lowest = highest = None
    if is_single and labels.dtype.kind in "iub":
        flat = labels.reshape(-1)
        low, high = int(np.argmin(flat)), int(np.argmax(flat))
        lowest, highest = (int(flat[low]), first + low), (int(flat[high]), first + high)
    bad = _first_not_finite(labels)
    return LabelFacts(
        dtype=labels.dtype,
        row_shape=labels.shape[1:],
        example=repr(labels.reshape(-1)[:1].tolist()[0]) if is_single else "",
        lowest=lowest,
        highest=highest,
        not_finite=None if bad is None else first + bad[0],
    )


def _joined(known: LabelFacts, labels: Array, first: int) -> LabelFacts:
    more = _label_facts(labels, first)
    lowest, highest = known.lowest, known.highest
    if lowest is not None and highest is not None and more.lowest is not None and more.highest is not None:
        lowest = lowest if lowest[0] <= more.lowest[0] else more.lowest
        highest = highest if highest[0] >= more.highest[0] else more.highest
    not_finite = more.not_finite if known.not_finite is None else known.not_finite
    return LabelFacts(known.dtype, known.row_shape, known.example, lowest, highest, not_finite)


def _first_not_finite(array: Array) -> tuple[int, float] | None:
    """Row and value of the first NaN or infinity, or None."""
    row = dtypes.of_numpy(array.dtype)
    if row is None or not row.is_float:
        return None
    finite = np.isfinite(array)
    if finite.all():
        return None
    place = np.unravel_index(int(np.argmin(finite)), array.shape)
    return int(place[0]), float(array[place])


def _row_digests(inputs: Arrays) -> Iterator[bytes]:
    """SHA-256 of each sample: of names, shapes and values of its inputs."""
    names = sorted(inputs)
    heads = {name: f"\n{name} {inputs[name].shape[1:]}\n".encode() for name in names}
    rows = [_row_contents(inputs[name]) for name in names]
    for contents in zip(*rows, strict=True):
        digest = hashlib.sha256()
        for name, content in zip(names, contents, strict=True):
            digest.update(heads[name])
            digest.update(content)
        yield digest.digest()


def _row_contents(array: Array) -> Iterator[bytes | memoryview]:
    if array.dtype.hasobject:
        return (_content(array[row : row + 1]) for row in range(len(array)))
    content, size = memoryview(array.tobytes()), array[:1].nbytes
    return (content[row * size : (row + 1) * size] for row in range(len(array)))


def _content(array: Array) -> bytes:
    """What identifies the values: their bytes, or the words of text, whose bytes are addresses."""
    if array.dtype.hasobject:
        return "".join(f"{row!r}\n" for row in array.tolist()).encode()
    return array.tobytes()
