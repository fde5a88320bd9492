"""Signal to quantization noise: how far a variant's outputs are from the baseline's, in dB.

With y0 the baseline's output and y the variant's: SQNR = 10 log10(|y0|^2 / |y - y0|^2). A model with
several outputs gets the figure of its worst one, since boxes in pixels would drown class scores in one
common sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jettison.core import dtypes
from jettison.core.tensors import Arrays

CAP_DB = 144.5
"""What outputs without any difference get, since JSON knows no infinity: 20 log10(2^24).

Source: IEEE 754 binary32 has a significand of 24 bits, so no float32 output can come nearer."""

_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class RowEnergies:
    """Energy of each row of one output: float64 (rows,), and where the row is not made of numbers.

    A broken row holds NaN or infinity where the baseline holds a number; its noise equals its signal,
    as if it carried no information.
    """

    signal: np.ndarray[Any, Any]
    noise: np.ndarray[Any, Any]
    broken: np.ndarray[Any, Any]


def is_float(array: np.ndarray[Any, Any]) -> bool:
    """Whether the array holds floating point numbers, bfloat16 and FP8 included."""
    row = dtypes.of_numpy(array.dtype)
    return row is not None and row.is_float


def row_energies(reference: np.ndarray[Any, Any], output: np.ndarray[Any, Any]) -> RowEnergies:
    """Energies of the reference and of the difference to it, row by row, summed in float64.

    Equal infinities (masked logits) count as agreement and carry no energy.
    """
    count = len(reference)
    signal, noise, broken = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    step = max(1, _CHUNK_ELEMENTS // max(1, reference[:1].size))
    for start in range(0, count, step):
        part = slice(start, start + step)
        expected = _rows(reference[part])
        found = _rows(output[part])
        known, finite = np.isfinite(expected), np.isfinite(found)
        broken[part] = np.where(known, ~finite, found != expected).any(axis=1)
        signal[part] = np.square(expected, where=known, out=np.zeros_like(expected)).sum(axis=1)
        error = np.subtract(found, expected, where=known & finite, out=np.zeros_like(expected))
        noise[part] = np.square(error).sum(axis=1)
    noise[broken] = signal[broken]
    return RowEnergies(signal, noise, broken)


@dataclass
class SqnrMeter:
    """Adds up signal and noise of all float outputs over batches, one output beside the other."""

    _signal: dict[str, float] = field(default_factory=dict)
    _noise: dict[str, float] = field(default_factory=dict)

    def add(self, reference: Arrays, outputs: Arrays) -> np.ndarray[Any, Any]:
        """Take in one batch; gives which of its rows are broken (bool, one a sample)."""
        broken = np.zeros(len(next(iter(outputs.values()))), bool)
        for name, expected in reference.items():
            if is_float(expected):
                broken |= self._take(name, row_energies(expected, outputs[name]))
        return broken

    def add_whole(self, reference: Arrays, outputs: Arrays) -> None:
        """Take in outputs that need not have a row for each sample; one of another shape is all noise."""
        for name, expected in reference.items():
            if is_float(expected):
                is_alike = expected.shape == outputs[name].shape
                found = outputs[name] if is_alike else np.full_like(expected, np.nan)
                self._take(name, row_energies(np.atleast_1d(expected), np.atleast_1d(found)))

    def _take(self, name: str, energies: RowEnergies) -> np.ndarray[Any, Any]:
        self._signal[name] = self._signal.get(name, 0.0) + float(energies.signal.sum())
        self._noise[name] = self._noise.get(name, 0.0) + float(energies.noise.sum())
        return energies.broken

    @property
    def db(self) -> float | None:
        """SQNR of the worst float output, at most `CAP_DB`; None where no float output carries a signal."""
        figures = [_db(signal, self._noise[name]) for name, signal in self._signal.items() if signal > 0]
        return min(figures, default=None)

    @property
    def noise_share(self) -> float:
        """Noise over signal of the worst float output; 0 where no float output carries a signal."""
        shares = [self._noise[name] / signal for name, signal in self._signal.items() if signal > 0]
        return max(shares, default=0.0)


def sqnr_db(reference: Arrays, outputs: Arrays) -> float | None:
    """SQNR in dB of outputs against a reference, as `SqnrMeter.db` gives it."""
    meter = SqnrMeter()
    meter.add(reference, outputs)
    return meter.db


def _rows(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.reshape(len(array), -1).astype(np.float64)


def _db(signal: float, noise: float) -> float:
    return CAP_DB if noise <= 0 else min(CAP_DB, 10 * math.log10(signal / noise))
