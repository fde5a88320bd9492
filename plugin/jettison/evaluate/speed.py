"""Speed-ups from turns: ratios of neighbours in time, their median and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of all counted calls, for whoever wants to see the whole distribution."""

CONFIDENCE = 0.95
"""Of each bound of a speed-up by itself, like the bounds of scores."""

SESSION_SHARE = 0.03
"""By how much the bounds of a speed-up are widened: what another load of the same file may change.

Where weights and threads happen to lie moves a session's time for its whole life, which no repetition in
that session shows. Measured: 40 pairs of sessions of one file (four products of 1024 x 1024, ONNX Runtime
1.32, two cores under a load of 5 to 7) differed by 2.8 % (root mean square) in the median over pairs of
rounds; medians over all calls by 3.9 %, means by 3.1 %, and minima, in a run before, by 14 %."""

_FEWEST_PAIRS = 5
"""0.5^5 = 0.031: with fewer pairs not even the smallest bounds the median at 0.95."""


@dataclass(frozen=True)
class Latency:
    """Latency of one variant, and how many times as fast as the baseline it is.

    Args:
        name: Of the variant.
        median_ms: Over all counted calls.
        p99_ms: The same; of fewer than 100 calls it is the slowest one.
        speedup: Baseline's time divided by the variant's: the median over pairs of rounds.
        speedup_low: Its one-sided lower bound at `CONFIDENCE`, `SESSION_SHARE` included.
        speedup_high: Its one-sided upper bound, the same.
        calls: How many calls were counted.
        quantiles_ms: Of all counted calls, at `QUANTILES`; none where an older version measured.
    """

    name: str
    median_ms: float
    p99_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    calls: int
    quantiles_ms: tuple[float, ...] = ()


@dataclass
class Turns:
    """All counted calls in nanoseconds: one list a round for every name."""

    baseline: str
    names: tuple[str, ...]
    spent: dict[str, list[list[int]]] = field(default_factory=dict)

    def add(self, measured: dict[str, list[int]]) -> None:
        """Take in one round."""
        for name, calls in measured.items():
            self.spent.setdefault(name, []).append(calls)

    @property
    def rounds(self) -> int:
        """How many rounds were taken in."""
        return len(self.spent.get(self.baseline, []))

    def log_ratios(self, name: str) -> np.ndarray[Any, Any]:
        """log(baseline's turn / this one's), one a round: float64 (rounds,)."""
        logs: np.ndarray[Any, Any] = np.log(self._turns(self.baseline) / self._turns(name))
        return logs

    def _turns(self, name: str) -> np.ndarray[Any, Any]:
        return np.maximum(np.median(np.asarray(self.spent[name], np.float64), axis=1), 1.0)


def latency_of(turns: Turns, name: str) -> Latency:
    """The latency of that variant and its speed-up over the baseline."""
    calls = np.concatenate([np.asarray(some, np.float64) for some in turns.spent[name]]) / 1e6
    low, middle, high = median_interval(turns.log_ratios(name))
    margin = 0.0 if name == turns.baseline else SESSION_SHARE
    return Latency(
        name=name,
        median_ms=float(np.median(calls)),
        p99_ms=float(np.quantile(calls, 0.99, method="higher")),
        speedup=math.exp(middle),
        speedup_low=math.exp(low - margin),
        speedup_high=math.exp(high + margin),
        calls=calls.size,
        quantiles_ms=tuple(np.quantile(calls, QUANTILES).tolist()),
    )


def is_stable(turns: Turns, share: float) -> bool:
    """Whether every speed-up of these sessions is known to that share, and equal to it in both halves."""
    return all(_is_stable(turns.log_ratios(name), share) for name in turns.names if name != turns.baseline)


def _is_stable(ratios: np.ndarray[Any, Any], share: float) -> bool:
    low, _, high = median_interval(ratios)
    half = len(ratios) // 4 * 2
    moved = np.median(_pairs(ratios[:half])) - np.median(_pairs(ratios[half:])) if half else math.inf
    return (high - low) / 2 <= share and abs(float(moved)) <= share


def _pairs(ratios: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of every round and its mirror image, in which a linear drift cancels."""
    means: np.ndarray[Any, Any] = ratios.reshape(-1, 2).mean(axis=1)
    return means


def median_interval(ratios: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Lower bound, median and upper bound over pairs of rounds, from order statistics.

    Args:
        ratios: float64 (rounds,), an even number of them: what a round and its mirror image gave, in turns.

    The k-th smallest of n bounds the median from below at 1 - P(Binomial(n, 1/2) < k). With fewer than
    five pairs no order statistic does; then the smallest and largest single round stand in.
    Source: G. Hahn and W. Meeker, Statistical Intervals (1991), section 5.2.
    """
    pairs = np.sort(_pairs(ratios))
    middle = float(np.median(pairs))
    if len(pairs) < _FEWEST_PAIRS:
        return float(ratios.min()), middle, float(ratios.max())
    rank = _rank(len(pairs))
    return float(pairs[rank]), middle, float(pairs[-1 - rank])


def _rank(count: int) -> int:
    """The largest index whose order statistic bounds the median at `CONFIDENCE`."""
    tail = 0.0
    for rank in range(count):
        log_choose = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        tail += math.exp(log_choose - count * math.log(2))
        if tail > 1 - CONFIDENCE:
            return rank - 1
    return count - 1
