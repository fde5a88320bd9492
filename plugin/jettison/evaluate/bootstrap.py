"""The lower bound of a mean by the studentized bootstrap, with a guard for differences that hardly vary.

The studentized bootstrap was chosen by simulation against BCa, Hall's transformation and the normal
bound (n = 10 to 200, seven shapes): it missed least on all skewed shapes, for instance 0.945 of a nominal
0.95 on an exponential loss with n = 20, where BCa held 0.92 and the normal bound 0.88.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jettison.evaluate.proportions import exact_upper

RARE_COUNT = 10
"""Fewer samples that differ from the commonest difference than that are judged as rare events.

From ten on, a resample without any of them has a chance below exp(-10)."""

_DIGITS = 12
"""Decimals of the scale that count: differences of equal size differ in the last bits of float64."""

_ROUNDING = 1e-12
"""A variance below that share of the mean square is the rounding error of a resample of equal values."""

_DRAWS_AT_ONCE = 1 << 20
_DRAWS = 40_000_000
_RESAMPLES = (1000, 4000)
"""At least and at most; 1000 put the 5 % tail within 0.7 points, one standard error."""


def lower_bound(differences: np.ndarray[Any, Any], *, scale: float, confidence: float, seed: int) -> float:
    """The one-sided lower bound of the mean of the differences the samples came from.

    Where fewer than `RARE_COUNT` differences deviate from the commonest one, the bound also allows for
    the largest share of downward deviations that the samples do not exclude, each as large as the largest
    seen, or as `scale` where none was seen: with nothing but equal differences that is scale * 3/n below.
    No bound can know of losses rarer than 3/n that were never seen where most differences vary.

    Args:
        differences: float64 (samples,), in any order: the result does not depend on it.
        scale: How far a score can fall, for deviations that were never seen.
        confidence: Share of repetitions in which the bound shall lie below the true mean.
        seed: Of the resampling.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), section 12.5.
    """
    values = np.sort(np.round(differences / scale, _DIGITS) * scale) if scale > 0 else np.sort(differences)
    candidates = [float(values.mean())]
    commonest = _commonest(values)
    if np.count_nonzero(values != commonest) < RARE_COUNT:
        below = commonest - values[values < commonest]
        size = float(np.max(below)) if below.size else scale
        candidates.append(commonest - size * exact_upper(below.size, values.size, confidence=confidence))
    if values[0] != values[-1]:
        candidates.append(_studentized(values, confidence, seed))
    return min(value for value in candidates if np.isfinite(value))


def _studentized(values: np.ndarray[Any, Any], confidence: float, seed: int) -> float:
    mean, spread = values.mean(), values.std()
    scores = np.concatenate([_scores(drawn) for drawn in _resamples(values - mean, seed)])
    quantile = np.quantile(scores, confidence, method="higher")
    return float(mean - quantile * spread)


def _scores(drawn: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Student's ratio, mean / spread, of each resample of centred values; infinite without any spread."""
    gap = drawn.mean(axis=1)
    square = np.einsum("ij,ij->i", drawn, drawn) / drawn.shape[1]
    variance = square - np.square(gap)
    scores: np.ndarray[Any, Any] = np.where(gap == 0, 0.0, np.copysign(np.inf, gap))
    np.divide(gap, np.sqrt(np.abs(variance)), where=variance > _ROUNDING * square, out=scores)
    return scores


def _resamples(values: np.ndarray[Any, Any], seed: int) -> Iterator[np.ndarray[Any, Any]]:
    """Resamples (some, samples), as many at once as memory of about 16 MiB allows."""
    size = values.size
    wanted = int(np.clip(_DRAWS // size, *_RESAMPLES))
    at_once = max(1, _DRAWS_AT_ONCE // size)
    generator = np.random.default_rng(seed)
    for start in range(0, wanted, at_once):
        rows = min(at_once, wanted - start)
        yield values[generator.integers(0, size, (rows, size), dtype=np.int32)]


def _commonest(values: np.ndarray[Any, Any]) -> float:
    """The most frequent value, the largest of them on a tie, so that the bound is the lower one."""
    unique, counts = np.unique(values, return_counts=True)
    return float(unique[::-1][np.argmax(counts[::-1])])
