"""From a histogram to the range that 8 bits shall cover: four methods over the same counts.

Clipping trades rounding noise inside the range against cut-off outside it. `max` cuts nothing;
`percentile` cuts a fixed share; `mse` minimizes the expected squared error; `kl` keeps the
distribution's information, as TensorRT's entropy calibrator does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from jettison.compress.quantization.histogram import HALF_BINS, Histogram

RangeMethod = Literal["max", "percentile", "mse", "kl"]

_CLIP_CANDIDATES = np.linspace(0.2, 1.0, 81)
_LEVELS = 255
_KL_LEVELS = 128
_KL_STEP = 16


class Range(BaseModel):
    """The lowest and highest value that the integers shall cover; zero lies inside."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float

    def union(self, other: Range) -> Range:
        """The range that covers both."""
        return Range(low=min(self.low, other.low), high=max(self.high, other.high))


@dataclass(frozen=True)
class _Setting:
    """What the methods are told beside the counts."""

    percentile: float
    symmetric: bool


def range_of(
    histogram: Histogram, method: RangeMethod, *, percentile: float = 99.99, symmetric: bool = False
) -> Range:
    """The range that the method chooses, never beyond the extremes that were seen.

    Args:
        histogram: What was counted.
        method: How to choose.
        percentile: The share that `percentile` keeps, 50 to 100.
        symmetric: The integers will reach equally far to both sides of zero, whatever the range: behind a
            Relu their step is then twice as long, and clipping pays more.
    """
    clip = _METHODS[method](histogram, _Setting(percentile, symmetric))
    low, high = max(histogram.low, -clip), min(histogram.high, clip)
    return Range(low=min(low, 0.0), high=max(high, 0.0))


def _max_clip(histogram: Histogram, setting: _Setting) -> float:
    del setting
    return max(abs(histogram.low), abs(histogram.high))


def _percentile_clip(histogram: Histogram, setting: _Setting) -> float:
    """The smallest bin edge below which that percentage of |x| lies."""
    cumulative = np.cumsum(histogram.magnitudes)
    index = int(np.searchsorted(cumulative, cumulative[-1] * setting.percentile / 100.0))
    return (index + 1) * histogram.bin_width


def _mse_clip(histogram: Histogram, setting: _Setting) -> float:
    """The clip c that minimizes E[(x - Q(x))^2] = s(c)^2 / 12 * P(x != 0) + E[(|x| - c)^2 ; |x| > c].

    s(c) is the step of 8 bits over the clipped range, over [-c, c] where it is symmetric.
    Source: Banner et al. 2019 (arXiv 1810.05723), with the measured distribution in place of a Laplacian.
    """
    largest = _max_clip(histogram, setting)
    centers = np.minimum((np.arange(HALF_BINS) + 0.5) * histogram.bin_width, largest)
    counts = histogram.magnitudes.astype(np.float64)
    clips = _CLIP_CANDIDATES * largest
    beyond = np.maximum(centers[None, :] - clips[:, None], 0.0)
    cut_off = (beyond**2 @ counts) / max(counts.sum(), 1.0)
    spans = np.minimum(max(histogram.high, 0.0), clips) - np.maximum(min(histogram.low, 0.0), -clips)
    if setting.symmetric:
        spans = 2.0 * clips
    rounded = 1.0 - histogram.zeros / max(histogram.total, 1)
    return float(clips[np.argmin((spans / _LEVELS) ** 2 / 12.0 * rounded + cut_off)])


def _kl_clip(histogram: Histogram, setting: _Setting) -> float:
    """The clip whose 128-level distribution diverges least from the clipped original.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    counts = histogram.magnitudes.astype(np.float64)
    counts[0] = max(counts[0] - histogram.zeros, 0.0)
    occupied = np.flatnonzero(counts)
    if occupied.size == 0 or occupied[-1] < _KL_LEVELS:
        return _max_clip(histogram, setting)
    stops = range(_KL_LEVELS, int(occupied[-1]) + 1 + _KL_STEP, _KL_STEP)
    best = min(stops, key=lambda stop: _divergence(counts, min(stop, HALF_BINS)))
    return min(best, HALF_BINS) * histogram.bin_width


def _divergence(counts: np.ndarray[Any, np.dtype[np.float64]], stop: int) -> float:
    """KL(P || Q): P the counts up to `stop` with the rest in the last bin, Q its 128-level form."""
    kept = counts[:stop]
    original = kept.copy()
    original[-1] += counts[stop:].sum()
    edges = np.floor(np.arange(_KL_LEVELS) * (stop / _KL_LEVELS)).astype(np.int64)
    level = np.searchsorted(edges, np.arange(stop), side="right") - 1
    filled = (kept > 0).astype(np.float64)
    mass = np.bincount(level, kept, _KL_LEVELS) / np.maximum(np.bincount(level, filled, _KL_LEVELS), 1.0)
    quantized = np.where(kept > 0, mass[level], 0.0)
    support = original > 0
    p = original[support] / original.sum()
    q = np.maximum(quantized[support] / max(quantized.sum(), 1e-12), 1e-12)
    return float(np.sum(p * np.log(p / q)))


_METHODS: dict[RangeMethod, Callable[[Histogram, _Setting], float]] = {
    "max": _max_clip,
    "percentile": _percentile_clip,
    "mse": _mse_clip,
    "kl": _kl_clip,
}
