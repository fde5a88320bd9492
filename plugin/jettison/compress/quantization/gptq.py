"""GPTQ: weights rounded one after another, each making up for what the rounding before it has done.

For a row w of weights, its integers q with the scale s, and patches x of covariance H, the error of the
output that a corrected bias leaves is

    E[((w - s q)(x - E[x]))^2] = s^2 |e U|^2        e = w / s - q,    H = U U^T,    U upper triangular

The term of column j, (e U)_j = e_j U_jj + sum over i < j of e_i U_ij, depends on columns up to j only, so
each is made as small as whole numbers allow:

    q_j = round(w_j / s + sum over i < j of e_i U_ij / U_jj)

This is GPTQ without the inverse of H. H is the covariance and not E[x x^T], since the bias correction takes
the mean error out; without one such weights may be worse than plainly rounded ones. Columns are taken in the
kernel's order. A weight of exactly 0 stays 0 and takes no part in making up for others: it was pruned, and in
a pattern such as 2:4 it has to stay so.
Source: Frantar et al. 2022 (arXiv 2210.17323); in this form: Chen et al. 2025 (arXiv 2507.18553).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jettison.compress.quantization.weights import LARGEST, PAIR_LIMIT, Floats

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_DAMPING = 0.01
"""Of the mean diagonal, added to the diagonal. Source: Frantar et al. 2022, section 3.3."""
_BLOCK = 128
"""Columns after which errors are passed on together: speed only. Source: Frantar et al. 2022, section 3.3."""
_MOST_WEIGHTS = 1 << 20
"""Rounded together; four float64 of each are held. Rows do not know of each other, so it changes nothing."""


def rounded_with_feedback(rows: Floats, scales: Floats, covariances: Doubles, *, pair_safe: bool) -> Floats:
    """Whole numbers q, -127 to 127, such that q * scales gives nearly the outputs of the rows.

    Columns whose patches never change are rounded plainly, and weights of 0 give 0.

    Args:
        rows: float32, (groups, channels, inner), inner in the kernel's order.
        scales: float32, (groups, channels).
        covariances: float64, (groups, inner, inner), of the patches that each group meets, in any unit.
        pair_safe: Keep each pair (2i, 2i+1) of a row as `weights.py` says; the second one gives way.
    """
    lower = factors(covariances)
    groups, channels, inner = rows.shape
    step = max(_MOST_WEIGHTS // (groups * inner), 1)
    found = np.empty_like(rows)
    for start in range(0, channels, step):
        some = slice(start, start + step)
        found[:, some] = _round_columns(rows[:, some] / scales[:, some, None], lower, pair_safe=pair_safe)
    return found


def _round_columns(scaled: Floats, lower: Doubles, *, pair_safe: bool) -> Doubles:
    """Whole numbers for w / s, (groups, channels, inner); columns lie first while they are rounded."""
    wanted = np.ascontiguousarray(scaled.transpose(0, 2, 1), np.float64)
    values, errors, passed_on = (np.zeros_like(wanted) for _ in range(3))
    for start in range(0, wanted.shape[1], _BLOCK):
        stop = min(start + _BLOCK, wanted.shape[1])
        for column in range(start, stop):
            near = np.matmul(lower[:, column, None, start:column], errors[:, start:column])[:, 0]
            feedback = (passed_on[:, column] + near) / lower[:, column, column, None]
            low, high = _bounds(values, column, pair_safe=pair_safe)
            rounded = np.clip(np.rint(wanted[:, column] + feedback), low, high)
            values[:, column] = np.where(wanted[:, column] == 0, 0, rounded)
            errors[:, column] = wanted[:, column] - values[:, column]
        passed_on[:, stop:] += np.matmul(lower[:, stop:, start:stop], errors[:, start:stop])
    return np.asarray(values.transpose(0, 2, 1))


def factors(covariances: Doubles) -> Doubles:
    """U^T of each damped covariance, so that what goes into one column lies in a row."""
    backwards = np.linalg.cholesky(damped(covariances)[:, ::-1, ::-1])[:, ::-1, ::-1]
    return np.ascontiguousarray(backwards.transpose(0, 2, 1))


def damped(covariances: Doubles) -> Doubles:
    """Covariances with a little on their diagonals, so that none is singular."""
    found: Doubles = covariances.copy()
    diagonals = np.einsum("gii->gi", found)
    mean = diagonals.mean(axis=1, keepdims=True)
    diagonals += np.where(mean > 0, _DAMPING * mean, 1.0)
    return found


def _bounds(values: Doubles, column: int, *, pair_safe: bool) -> tuple[Doubles | float, Doubles | float]:
    """The lowest and highest number that the column may take beside its pair's first one."""
    if not pair_safe or column % 2 == 0:
        return -LARGEST, LARGEST
    first = values[:, column - 1]
    low = np.maximum(-LARGEST, -PAIR_LIMIT - np.minimum(first, 0))
    return low, np.minimum(LARGEST, PAIR_LIMIT - np.maximum(first, 0))
