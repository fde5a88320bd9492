"""How alike two saliency maps are: rank correlation of all parts, and what they have in common at the top."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Map = np.ndarray[Any, np.dtype[np.float64]]
"""Fall of a score by hidden part, (rows, columns)."""

TOP_SHARE = 0.1
"""Share of the parts that count as the most important ones."""

_RESOLUTION = 2.0**-20
"""Falls are known to that share of the scores: eight units in the last place of float32, for sums of products
whose order depends on the place in a batch. Without it, parts that do nothing would have ranks by chance."""


def is_whole(found: Map) -> bool:
    """Whether every fall is a number."""
    return bool(np.isfinite(found).all())


def falls(unhidden: float, hidden: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far a score falls from `unhidden`, as multiples of what float32 resolves; NaN stays NaN.

    Args:
        unhidden: The score of the whole sample.
        hidden: float64, any shape: the score with each part hidden.
    """
    scores = np.append(hidden, unhidden)
    unit = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0)) * _RESOLUTION
    with np.errstate(invalid="ignore"):
        found = unhidden - hidden
    return np.asarray(np.rint(found / unit) * unit if unit > 0 else found)


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman's rank correlation, -1 to 1, equal values sharing their mean rank.

    Pearson's r of the ranks. Where a map is the same everywhere it has no order: 1 if both are, else 0. 0 as
    well where a map is not whole.
    Source: Spearman 1904, The Proof and Measurement of Association between Two Things.
    """
    if not (is_whole(first) and is_whole(second)):
        return 0.0
    x, y = (_centred_ranks(found) for found in (first, second))
    if np.array_equal(x, y):
        return 1.0
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale > 0 else 0.0


def top_overlap(first: Map, second: Map) -> float:
    """Share of the top tenth that both maps have in common: |A and B| / max(|A|, |B|), 0 to 1.

    A map's top are the parts with the largest falls, a tenth of them rounded up, all that equal the last one
    included, and none that does not lower the score. 1 where neither has any, 0 where a map is not whole.
    """
    if not (is_whole(first) and is_whole(second)):
        return 0.0
    tops = [_top(found.reshape(-1)) for found in (first, second)]
    larger = max(int(top.sum()) for top in tops)
    return float((tops[0] & tops[1]).sum() / larger) if larger else 1.0


def _centred_ranks(found: Map) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, group, counts = np.unique(found.reshape(-1), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group.reshape(-1)]
    return np.asarray(ranks - (ranks.size + 1) / 2)


def _top(falls: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    count = math.ceil(falls.size * TOP_SHARE)
    least = np.sort(falls)[-count] if count else np.inf
    return (falls >= least) & (falls > 0)
