"""Weights as integers: per-channel symmetric INT8, and pair-safe where a kernel would saturate.

x86 processors without VNNI multiply pairs of unsigned activations and signed weights into one 16-bit
sum (VPMADDUBSW) that saturates: 255 * (w0 + w1) overflows when two neighbouring weights of one sign sum
to more than 128. Pair-safe weights never do: in the order in which the kernel walks a channel, each pair's
positive parts sum to at most 128 and its negative parts to at least -128, so the integer kernel computes
exactly what the Q/DQ graph says, on every processor, at full speed.
Source: Intel 64 instruction set reference, VPMADDUBSW; measured in benchmarks/compress.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

LARGEST = 127
PAIR_LIMIT = 128
"""255 * 128 = 32,640 fits int16; 255 * 129 = 32,895 does not."""
_WIDER = (1.0, 1.07, 1.15, 1.25, 1.4, 1.6, 2.0)
"""Scales tried for channels with unsafe pairs; at 2.0 every weight is at most 64 and no pair is unsafe."""
_SMALLEST_SCALE = 1e-8
"""A dead channel gets this scale at least: TensorRT refuses zero."""


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers and the scales that give them back: w = values * scales along `axis`.

    `values`: int8, the weight's shape. `scales`: float32, (channels,).
    `unsafe_share` is the share of pairs that had to be mended, 0 to 1.
    """

    values: np.ndarray[Any, np.dtype[np.int8]]
    scales: Floats
    axis: int
    unsafe_share: float = 0.0

    def dequantized(self) -> Floats:
        """The weight that the integers stand for: float32."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values.astype(np.float32) * self.scales.reshape(shape)


def channel_scales(rows: Floats) -> Floats:
    """Symmetric scales max|w| / 127 of each row: float32, (channels,)."""
    largest = np.abs(rows).max(axis=1) if rows.size else np.zeros(len(rows), np.float32)
    return np.maximum(largest / LARGEST, _SMALLEST_SCALE).astype(np.float32)


def quantize_weight(
    weight: Floats, axis: int, *, pair_safe: bool, least_scales: Floats | None = None
) -> QuantizedWeight:
    """The weight in INT8 with one scale for each channel along `axis`.

    Args:
        weight: float32, any shape of rank 2 or more.
        axis: The channel axis: 0 for Conv, 1 for ConvTranspose and MatMul.
        pair_safe: Keep neighbouring weights from saturating a 16-bit pair sum.
        least_scales: float32, (channels,); no scale is smaller, so that a bias fits 32 bits.
    """
    rows = kernel_order(weight, axis)
    scales = channel_scales(rows)
    if least_scales is not None:
        scales = np.maximum(scales, least_scales)
    if pair_safe:
        quantized, scales, unsafe_share = _pair_safe_rows(rows, scales)
    else:
        quantized, unsafe_share = _rounded(rows, scales), 0.0
    values = from_kernel_order(quantized.astype(np.int8), weight.shape, axis)
    return QuantizedWeight(np.ascontiguousarray(values), scales, axis, unsafe_share)


def kernel_order(weight: Floats, axis: int) -> Floats:
    """Rows of channels in the order in which the kernel walks them: (channels, kernel..., inputs).

    A convolution runs over (height, width, input channel), a matrix product over its inner axis.
    """
    moved = np.moveaxis(weight, axis, 0)
    if moved.ndim > 2:
        moved = np.moveaxis(moved, 1, -1)
    return np.ascontiguousarray(moved).reshape(len(moved), -1)


def from_kernel_order(rows: np.ndarray[Any, Any], shape: tuple[int, ...], axis: int) -> np.ndarray[Any, Any]:
    """A weight of that shape from rows in the kernel's order: the inverse of `kernel_order`."""
    others = [size for index, size in enumerate(shape) if index != axis]
    if len(shape) > 2:
        moved = np.moveaxis(rows.reshape(shape[axis], *others[1:], others[0]), -1, 1)
    else:
        moved = rows.reshape(shape[axis], *others)
    return np.moveaxis(moved, 0, axis)


def _rounded(rows: Floats, scales: Floats) -> Floats:
    scaled = rows / scales[:, None]
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -LARGEST, LARGEST, out=scaled)


def _pair_safe_rows(rows: Floats, scales: Floats) -> tuple[Floats, Floats, float]:
    """Safe integers, their scales, and the share of pairs that were unsafe at the first scale."""
    quantized = _rounded(rows, scales)
    excess = pair_excess(quantized)
    unsafe = np.flatnonzero((excess != 0).any(axis=1))
    share = float(np.count_nonzero(excess)) / max(excess.size, 1)
    if unsafe.size:
        quantized[unsafe], scales[unsafe] = _safest(rows[unsafe], scales[unsafe])
    return quantized, scales, share


def _safest(rows: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """For each row the scale, among wider ones, whose mended integers are nearest to the weights."""
    best, best_scales = np.empty_like(rows), scales.copy()
    best_error = np.full(len(rows), np.inf, np.float32)
    for factor in _WIDER:
        tried = scales * np.float32(factor)
        candidate = mend_pairs(_rounded(rows, tried))
        difference = candidate * tried[:, None] - rows
        error = np.einsum("ij,ij->i", difference, difference)
        better = error < best_error
        best[better], best_scales[better], best_error[better] = (
            candidate[better],
            tried[better],
            error[better],
        )
    return best, best_scales


def pair_excess(quantized: Floats) -> Floats:
    """By how much each pair of neighbours breaks the limit, signed; 0 where it is safe: (rows, pairs).

    Neighbours of different signs are safe by themselves, as their sum is within 127.
    """
    total = quantized[:, 0::2].copy()
    total[:, : quantized.shape[1] // 2] += quantized[:, 1::2]
    excess: Floats = total - np.clip(total, -PAIR_LIMIT, PAIR_LIMIT)
    return excess


def mend_pairs(quantized: Floats) -> Floats:
    """The nearest integers whose pairs are safe: each excess is split over the two neighbours."""
    excess = pair_excess(quantized)
    row, pair = np.divmod(np.flatnonzero(excess), excess.shape[1] or 1)
    amount = excess[row, pair]
    half = np.trunc(amount / 2)
    quantized[row, 2 * pair] -= amount - half
    quantized[row, 2 * pair + 1] -= half
    return quantized
