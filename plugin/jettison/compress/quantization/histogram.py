"""A histogram that does not depend on how the samples were split or ordered.

Its range is a power of two, so that growing it merges bins in pairs exactly: the bin of a number under
a range R is the half of its bin under R / 2, whichever of the two was counted first. Lowest and highest
value are exact; counts may come from a strided part of the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

HALF_BINS = 2048
"""Bins on each side of zero: an 8-bit step then spans at least four of them at full range."""
_SMALLEST_EXPONENT = -100


@dataclass(frozen=True)
class Histogram:
    """Counts over [-2**exponent, 2**exponent) in 4096 equal bins, with the exact extremes.

    `counts`: int64, (4096,). `zeros` is how many of the counted values were exactly zero, which no
    symmetric or zero-aligned quantization rounds.
    """

    counts: np.ndarray[Any, np.dtype[np.int64]]
    exponent: int
    low: float
    high: float
    zeros: int

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def bin_width(self) -> float:
        """The width of one bin."""
        return math.ldexp(1.0, self.exponent) / HALF_BINS

    @property
    def centers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The middle of each bin: float64, (4096,)."""
        return np.asarray((np.arange(-HALF_BINS, HALF_BINS) + 0.5) * self.bin_width, np.float64)

    @property
    def magnitudes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Counts of |x| over [0, 2**exponent): int64, (2048,)."""
        return self.counts[HALF_BINS:] + self.counts[:HALF_BINS][::-1]

    def widened(self, exponent: int) -> Histogram:
        """The same counts under a larger range."""
        counts = self.counts
        for _ in range(min(exponent - self.exponent, HALF_BINS.bit_length())):
            halves = counts.reshape(-1, 2).sum(axis=1)
            counts = np.zeros_like(counts)
            counts[HALF_BINS // 2 : HALF_BINS // 2 + HALF_BINS] = halves
        return Histogram(counts, max(exponent, self.exponent), self.low, self.high, self.zeros)

    def merged(self, other: Histogram) -> Histogram:
        """Both together; commutative and associative to the bit."""
        exponent = max(self.exponent, other.exponent)
        counts = self.widened(exponent).counts + other.widened(exponent).counts
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Histogram(counts, exponent, low, high, self.zeros + other.zeros)


def histogram_of(values: np.ndarray[Any, Any], *, low: float, high: float) -> Histogram:
    """The histogram of values (floats, any shape) whose extremes `low` and `high` are known.

    The extremes may reach beyond the values, where these are only a part of a tensor.
    """
    exponent = range_exponent(low, high)
    flat = values.reshape(-1)
    bins_per_unit = math.ldexp(HALF_BINS, -exponent)
    # Scaled down in float32, a tiny negative number would become zero and change its bin.
    scaled = flat * (np.float32(bins_per_unit) if bins_per_unit >= 1 else np.float64(bins_per_unit))
    np.floor(scaled, out=scaled)
    bins = np.clip(scaled, -HALF_BINS, HALF_BINS - 1).astype(np.int64) + HALF_BINS
    counts = np.bincount(bins, minlength=2 * HALF_BINS)
    return Histogram(counts, exponent, low, high, flat.size - int(np.count_nonzero(flat)))


def range_exponent(low: float, high: float) -> int:
    """The smallest exponent with |x| < 2**exponent for every x in [low, high]."""
    largest = max(abs(low), abs(high))
    return max(math.frexp(largest)[1], _SMALLEST_EXPONENT) if largest > 0 else _SMALLEST_EXPONENT
