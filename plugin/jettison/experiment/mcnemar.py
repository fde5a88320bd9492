"""McNemar's exact test of paired answers, with its exact interval: for one look, beside the verdict.

Readers know it from papers, so the report has it. It is valid for a single look at a size that was fixed
beforehand, and decides nothing here. Standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jettison.core.bisection import last_that_holds

_HALVINGS = 60
"""Of an interval of length 1: down to the resolution of float64."""
_TINY = 1e-300
_CLOSE = 1e-15
_MOST_TERMS = 400_000
"""The fraction takes about sqrt(n) terms: enough for counts of 1e9 by far."""


@dataclass(frozen=True)
class McNemar:
    """The table, and what one look at it says.

    Args:
        better: Units on which only the candidate was right.
        worse: Units on which only the baseline was right.
        same: All others.
        p_value: Two-sided, of "where they differ, either is right equally often".
        share: Of `better` among those that differ; None where none does.
        share_low: Exact lower bound of that share.
        share_high: Exact upper bound; both at `confidence`.
    """

    better: int
    worse: int
    same: int
    p_value: float
    share: float | None
    share_low: float
    share_high: float
    confidence: float


def mcnemar(better: int, same: int, worse: int, *, confidence: float = 0.95) -> McNemar:
    """The exact test and interval of the units on which the two differ.

    Under "equally often", `better` is binomial with 1/2: p = min(1, 2 P(X <= min(better, worse))). The
    interval is that of C. Clopper and E. Pearson, Biometrika 26 (1934), 404-413.
    """
    total, tail = better + worse, (1 - confidence) / 2
    fewer = min(better, worse)
    return McNemar(
        better=better,
        worse=worse,
        same=same,
        p_value=min(1.0, 2 * binomial_at_most(fewer, total, 0.5)),
        share=better / total if total else None,
        share_low=1 - _upper(worse, total, tail),
        share_high=_upper(better, total, tail),
        confidence=confidence,
    )


def binomial_at_most(events: int, total: int, share: float) -> float:
    """P(X <= events) for a binomial X: I_{1-share}(total - events, events + 1)."""
    if events >= total:
        return 1.0
    return incomplete_beta(total - events, events + 1, 1 - share)


def _upper(events: int, total: int, tail: float) -> float:
    """The share at which at most so many events have the probability `tail`."""
    if events >= total:
        return 1.0
    return last_that_holds(
        lambda share: binomial_at_most(events, total, share) >= tail, 0.0, 1.0, halvings=_HALVINGS
    )


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    value = numerator = 1.0
    denominator = 0.0
    for term in range(_MOST_TERMS):
        step = 1.0 if term == 0 else _coefficient(a, b, x, term)
        denominator = 1 / _away_from_zero(1 + step * denominator)
        numerator = _away_from_zero(1 + step / numerator)
        factor = numerator * denominator
        value *= factor
        if abs(factor - 1) < _CLOSE:
            break
    return value - 1


def _coefficient(a: float, b: float, x: float, term: int) -> float:
    half = term // 2
    if term % 2 == 0:
        return half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
    return -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
