"""SparseGPT: two of each four weights removed, the others making up for what the removed ones did.

For a row w of weights and patches x of covariance H, the error that a corrected bias leaves is

    E[((w - v)(x - E[x]))^2] = e H e^T = |e U|^2        e = w - v,  v: the pruned row,  H = U U^T

with U upper triangular. Its term of column j, (e U)_j = e_j U_jj + sum over i < j of e_i U_ij, depends on
columns up to j only. A weight that is kept takes the value t_j that makes its term 0; one that is removed
leaves (t_j U_jj)^2, and of each four those two go for which that is least:

    t_j = w_j + sum over i < j of e_i U_ij / U_jj

That is SparseGPT without the inverse of H (there 1 / U_jj is the diagonal of its Cholesky factor). Columns
lie in the order (kernel..., input channel), so that four neighbours are four consecutive input channels at
one position of the kernel; groups along the flattened weight of a convolution, (input channel, kernel...),
would be zeros that no GPU takes for 2:4.
Source: Frantar and Alistarh 2023 (arXiv 2301.00774), sections 3.2 and 3.4.

In that order each weight makes up only for those before it. So in the end all kept weights are settled
together: e H e^T is made smaller over them by conjugate gradients, a few steps of which are enough.
Source: Hestenes and Stiefel 1952, with Jacobi's preconditioner; the aim is that of Hubara et al. 2021
(arXiv 2102.08124, AdaPrune).
"""

from __future__ import annotations

import numpy as np

from jettison.compress.quantization.covariance import Doubles
from jettison.compress.quantization.gptq import damped, factors
from jettison.graph.two_to_four import GROUP, LEAST_ZEROS

_BLOCK = 128
"""Columns after which errors are passed on together: speed only. Source: section 3.3, lazy batches."""
_MOST_WEIGHTS = 1 << 20
"""Pruned together. Rows do not know of each other, so it changes nothing."""
_STEPS = 5
"""Of conjugate gradients: on the Fashion-MNIST example none gave 16.0 dB, 3 gave 19.7, 5 19.9, 30 20.0."""


def pruned_with_feedback(rows: Doubles, covariances: Doubles) -> Doubles:
    """The rows with two zeros or more in each four columns, giving nearly the same outputs.

    Weights that are 0 already stay so.

    Args:
        rows: float64, (groups, channels, inner), inner a multiple of four in the kernel's order.
        covariances: float64, (groups, inner, inner), of the patches that each group meets, in any unit.
    """
    lower, fitted = factors(covariances), damped(covariances)
    groups, channels, inner = rows.shape
    step = max(_MOST_WEIGHTS // (groups * inner), 1)
    found = np.empty_like(rows)
    for start in range(0, channels, step):
        some = slice(start, start + step)
        found[:, some] = _settled(rows[:, some], _prune_columns(rows[:, some], lower), fitted)
    return found


def _prune_columns(rows: Doubles, lower: Doubles) -> Doubles:
    """The pruned rows, (groups, channels, inner); columns lie first while they are pruned."""
    wanted = np.ascontiguousarray(rows.transpose(0, 2, 1))
    values, errors, passed_on = (np.zeros_like(wanted) for _ in range(3))
    for start in range(0, wanted.shape[1], _BLOCK):
        stop = min(start + _BLOCK, wanted.shape[1])
        for column in range(start, stop, GROUP):
            four = slice(column, column + GROUP)
            carried = passed_on[:, four] + np.matmul(lower[:, four, start:column], errors[:, start:column])
            values[:, four] = _four_columns(wanted[:, four], carried, lower[:, four, four])
            errors[:, four] = wanted[:, four] - values[:, four]
        passed_on[:, stop:] += np.matmul(lower[:, stop:, start:stop], errors[:, start:stop])
    return np.asarray(values.transpose(0, 2, 1))


def _four_columns(wanted: Doubles, carried: Doubles, corner: Doubles) -> Doubles:
    """Four columns of v, two of them 0: (groups, 4, channels).

    Args:
        wanted: w, (groups, 4, channels).
        carried: What columns before have left, the sum of e_i U_ij: (groups, 4, channels).
        corner: The four columns' own part of U^T: (groups, 4, 4).
    """
    diagonal = np.einsum("gjj->gj", corner)[:, :, None]
    left = np.where(wanted == 0, 0.0, np.abs(wanted * diagonal + carried))
    ranks = np.argsort(left, axis=1, kind="stable")
    goes = np.asarray(wanted == 0)
    np.put_along_axis(goes, ranks[:, :LEAST_ZEROS], np.True_, axis=1)
    values, errors = np.zeros_like(wanted), np.zeros_like(wanted)
    for at in range(GROUP):
        own = np.einsum("gj,gjc->gc", corner[:, at, :at], errors[:, :at])
        free = wanted[:, at] + (carried[:, at] + own) / diagonal[:, at]
        values[:, at] = np.where(goes[:, at], 0.0, free)
        errors[:, at] = wanted[:, at] - values[:, at]
    return values


def _settled(rows: Doubles, pruned: Doubles, covariances: Doubles) -> Doubles:
    """The pruned rows with their kept weights nearer to the least of e H e^T: (groups, channels, inner).

    Every row is a problem of its own; those that are at their least do not change.
    """
    kept = np.asarray(pruned != 0)
    weights = 1.0 / np.einsum("gii->gi", covariances)[:, None]
    found: Doubles = pruned.copy()
    residual = np.matmul(rows - pruned, covariances) * kept
    direction = residual * weights
    energy = (residual * direction).sum(axis=2, keepdims=True)
    for _ in range(_STEPS):
        curved = np.matmul(direction, covariances) * kept
        step = _ratio(energy, (direction * curved).sum(axis=2, keepdims=True))
        found += step * direction
        residual -= step * curved
        before, scaled = energy, residual * weights
        energy = (residual * scaled).sum(axis=2, keepdims=True)
        direction = scaled + _ratio(energy, before) * direction
    return found


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """The quotient, 0 where there is nothing to divide by."""
    found: Doubles = np.zeros_like(above)
    np.divide(above, below, out=found, where=below > 0)
    return found
