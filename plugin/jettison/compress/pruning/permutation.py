"""An order of input channels in which 2:4 sparsity keeps more: those that are large in the same rows apart.

The kept magnitude of an order is the sum over rows of the two largest of each four neighbours. Finding the
best order is a hard partition problem, so it is made better step by step: the stripes of four channels are
drawn into random pairs, and of the 35 ways to divide the eight channels of a pair into two stripes the best
is taken. A round never loses, and the search ends when rounds bring nothing any more. Deterministic by its
seed.
Source: Pool and Yu 2021, "Channel Permutations for N:M Sparsity", section 4 (stripe groups).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from jettison.compress.pruning.masks import Floats
from jettison.graph.reorder import Order
from jettison.graph.two_to_four import GROUP

_PAIR = 2 * GROUP
_PAIRS = tuple(itertools.combinations(range(_PAIR), 2))
_DIVISIONS = tuple(
    (first, tuple(at for at in range(_PAIR) if at not in first))
    for first in itertools.combinations(range(_PAIR), GROUP)
    if first[0] == 0
)
"""The 35 divisions of eight into two fours, the first four being that with channel 0."""
_ROUNDS = 150
"""Rounds at most: on random weights with uneven channels they found 99 % of what 200 rounds found."""
_PATIENCE = 12
"""Rounds without a gain after which the search ends; with two stripes one round finds the best."""
_HELD_NUMBERS = 1 << 16
"""Magnitudes of pairs that are weighed together: speed only, as many as a processor's cache holds."""
_MOST_NUMBERS = 1 << 21
"""Magnitudes looked at in a round, so that none takes longer than 0.2 s: of more rows evenly spread ones
stand for all while searching."""


def kept_magnitude(rows: Floats, order: Order | None = None) -> float:
    """The share of the sum of all magnitudes that 2:4 keeps in that order, 0 to 1.

    Args:
        rows: float32, 0 or more, (rows, channels), channels a multiple of four.
        order: None for the order that they have.
    """
    ordered = rows if order is None else rows[:, order]
    kept = _two_largest(ordered.reshape(len(rows), -1, GROUP).transpose(2, 0, 1))
    return float(kept.sum(dtype=np.float64)) / max(float(rows.sum(dtype=np.float64)), 1e-30)


def better_order(rows: Floats, *, seed: int = 0) -> Order | None:
    """An order of the channels that keeps more, or None where none was found.

    Args:
        rows: float32, 0 or more, (rows, channels), channels a multiple of four: the magnitudes of all weights
            that read the channels.
        seed: Of the pairs drawn.
    """
    channels = rows.shape[1]
    stripes = channels // GROUP
    order = np.arange(channels).reshape(stripes, GROUP)
    if stripes < 2:
        return None
    some = np.ascontiguousarray(_spread(rows).T)
    rng, idle = np.random.default_rng(seed), 0
    for _ in range(_ROUNDS):
        drawn = rng.permutation(stripes)[: stripes // 2 * 2].reshape(-1, 2)
        gained = _improve(some, order, drawn)
        idle = 0 if gained else idle + 1
        if idle >= _PATIENCE:
            break
    found = order.reshape(-1)
    return found if kept_magnitude(rows, found) > kept_magnitude(rows) else None


def stacked(weights: Sequence[tuple[Floats, int]]) -> Floats:
    """The magnitudes of weights that read the same channels, one upon another: float32, (rows, channels).

    Each weight counts alike, whatever its scale.

    Args:
        weights: Each with the axis along which the channels lie.
    """
    parts = []
    for weight, axis in weights:
        moved = np.abs(np.moveaxis(weight, axis, -1)).reshape(-1, weight.shape[axis])
        parts.append(moved / max(float(moved.sum(dtype=np.float64)), 1e-30))
    return np.concatenate(parts).astype(np.float32)


def _spread(rows: Floats) -> Floats:
    stride = -(-rows.size // _MOST_NUMBERS)
    return rows[::stride]


def _improve(columns: Floats, order: Order, pairs: Order) -> bool:
    """Divide the channels of each pair of stripes anew, in place; whether any pair has gained.

    Args:
        columns: float32, (channels, rows).
        order: (stripes, 4).
        pairs: (pairs, 2) of stripes, none of them twice.
    """
    gained = False
    step = max(_HELD_NUMBERS // (_PAIR * columns.shape[1]), 1)
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        eights = order[some].reshape(len(some), _PAIR)
        kept = _divisions(np.ascontiguousarray(columns[eights].transpose(1, 0, 2)))
        best = kept.argmax(axis=0)
        for at in np.flatnonzero(kept[best, np.arange(len(some))] > kept[0] * (1 + 1e-6)):
            for stripe, division in zip(some[at], _DIVISIONS[best[at]], strict=True):
                order[stripe] = eights[at, list(division)]
            gained = True
    return gained


def _divisions(eights: Floats) -> Floats:
    """What each of the 35 divisions keeps in each pair: (35, pairs). The first is the division as it is.

    Args:
        eights: float32, (8, pairs, rows).
    """
    larger = {pair: np.maximum(eights[pair[0]], eights[pair[1]]) for pair in _PAIRS}
    sums = {pair: eights[pair[0]] + eights[pair[1]] for pair in _PAIRS}

    def kept(four: tuple[int, ...]) -> Floats:
        front, back = (four[0], four[1]), (four[2], four[3])
        best = np.maximum(sums[front], sums[back])
        return np.asarray(np.maximum(best, larger[front] + larger[back], out=best).sum(axis=1))

    return np.stack([kept(first) + kept(second) for first, second in _DIVISIONS])


def _two_largest(four: Floats) -> Floats:
    """The sum of the two largest of four along the first axis."""
    best = np.maximum(four[0] + four[1], four[2] + four[3])
    return np.asarray(np.maximum(best, np.maximum(four[0], four[1]) + np.maximum(four[2], four[3])))
