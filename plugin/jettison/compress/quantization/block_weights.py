"""Weights in 4 bits, a scale for each block of inputs: round-to-nearest, and clipped as AWQ does.

    W_q = clip(round(W / s), -8, 7)        s = r * max|W| / 7 over the block of one output channel

With r = 1 nothing is cut off. A smaller r cuts off the largest weights of a block and makes the steps of all
others finer; AWQ takes the r whose block adds least to the error of the output over the samples,

    E[(x_g . (w_q - w))^2] = (w_q - w)^T H_g (w_q - w)        H_g = E[x_g x_g^T]

so weights that meet large activations are rounded better.
Source: Lin et al. 2023 (arXiv 2306.00978), section 3.2, and `auto_clip` of its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

INT4 = np.dtype(ml_dtypes.int4)
_LOWEST, _HIGHEST = -8.0, 7.0
_SMALLEST_SCALE = 1e-8
"""A dead block gets this scale at least: TensorRT refuses zero."""

_RATIOS = 1.0 - np.arange(10) / 20
"""Shares of a block's largest weight that are tried. Source: AWQ's code, `n_grid=20`, `max_shrink=0.5`.

Twice as many gave 0.1 dB more on MiniLM, on samples outside the calibration; shrinking H_g toward its
diagonal or its mean gave nothing."""


@dataclass(frozen=True)
class BlockWeight:
    """4-bit integers and the scales that give them back: w = values * scales, block by block.

    `values`: int4, (inputs, outputs). `scales`: float32, (inputs / block, outputs).
    """

    values: np.ndarray[Any, Any]
    scales: Floats
    block: int

    def dequantized(self) -> Floats:
        """The weight that the integers stand for: float32, (inputs, outputs)."""
        return self.values.astype(np.float32) * np.repeat(self.scales, self.block, axis=0)


def quantize_blocks(weight: Floats, block: int, moments: Floats | None = None) -> BlockWeight:
    """The weight in blocks, by the nearest integers; clipped for the least error where moments are given.

    Args:
        weight: float32, (inputs, outputs); `block` divides the inputs.
        block: Inputs that share a scale.
        moments: H_g times any factor: float32, (inputs / block, block, block).
    """
    blocks = weight.reshape(-1, block, weight.shape[1])
    scales = _least(np.abs(blocks).max(axis=1) / _HIGHEST)
    if moments is not None:
        # Block by block, as one of them fits a processor's cache and a weight does not.
        found = [_clipped(*parts) for parts in zip(blocks, scales, moments, strict=True)]
        scales = np.stack(found)
    values = _rounded(blocks, scales[:, None]).reshape(weight.shape).astype(INT4)
    return BlockWeight(values, scales, block)


def output_error(weight: Floats, scales: Floats, moment: Floats) -> Floats:
    """(w_q - w)^T H_g (w_q - w) for each output of one block: float32, (outputs,)."""
    difference = _rounded(weight, scales)
    difference *= scales
    difference -= weight
    product = moment @ difference
    product *= difference
    return np.asarray(product.sum(axis=0))


def _clipped(weight: Floats, whole: Floats, moment: Floats) -> Floats:
    """For each output of one block the scale, of smaller ones too, with the least error: (outputs,)."""
    best: Floats = whole.copy()
    least = output_error(weight, whole, moment)
    for ratio in _RATIOS[1:]:
        tried = _least(whole * np.float32(ratio))
        errors = output_error(weight, tried, moment)
        better = errors < least
        best[better], least[better] = tried[better], errors[better]
    return best


def _least(scales: np.ndarray[Any, np.dtype[Any]]) -> Floats:
    return np.asarray(np.maximum(scales, _SMALLEST_SCALE), np.float32)


def _rounded(weight: Floats, scales: Floats) -> Floats:
    scaled = weight / scales
    np.rint(scaled, out=scaled)
    return np.clip(scaled, _LOWEST, _HIGHEST, out=scaled)
