"""Quantization as torch computes it while training: exact forward, straight-through backward.

    q = clip(round(x / s) + z, low, high)        y = (q - z) * s

round and its gradient 1 (arXiv 1308.3432); outside of the range the gradient of x is 0. Plain automatic
differentiation of this form then gives the gradient of the step size of LSQ, q - z - x / s inside and
the bound outside. LSQ scales it by g = 1 / sqrt(N * high), N numbers that share the scale.
Source: Esser et al. 2019, Learned Step Size Quantization (arXiv 1902.08153), equations 1 to 3, section 2.2.
Source of ties to even and saturation: ONNX operator QuantizeLinear.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from jettison.compress.quantization.weights import PAIR_LIMIT


class _RoundThrough(Function):  # type: ignore[misc]
    """round(x), ties to even, with the gradient of x."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _ScaledGradient(Function):  # type: ignore[misc]
    """x, with its gradient times a factor."""

    @staticmethod
    def forward(context: Any, x: Tensor, factor: float | Tensor) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.factor, None


def round_through(x: Tensor) -> Tensor:
    """The tensor rounded, ties to even; its gradient passes as it is."""
    found: Tensor = _RoundThrough.apply(x)
    return found


def scaled_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """The tensor, with its gradient times a factor."""
    found: Tensor = _ScaledGradient.apply(x, factor)
    return found


def step_gradient(scale: Tensor, count: float, highest: int) -> Tensor:
    """The scale, with its gradient times LSQ's g = 1 / sqrt(N * highest); `count` is N."""
    return scaled_gradient(scale, 1.0 / math.sqrt(max(count, 1.0) * max(highest, 1)))


def spread(values: Tensor, like: Tensor, axis: int, block: int = 0) -> Tensor:
    """Scales or zero points in a shape that broadcasts over `like`: one, one a channel, or one a block."""
    if values.numel() == 1:
        return values.reshape(())
    axis %= like.ndim
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, like.shape[axis])
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """The q of the equation above, as float32 that holds integers; all operands broadcast."""
    return torch.clamp(round_through(x / scale) + zero_point, lowest, highest)


def mended(integers: Tensor, axis: int) -> Tensor:
    """The nearest integers whose pairs are safe, as `quantization/weights.py` says; gradients pass."""
    with torch.no_grad():
        moved = torch.moveaxis(integers, axis % integers.ndim, 0)
        order = torch.moveaxis(moved, 1, -1) if moved.ndim > 2 else moved
        rows = order.reshape(len(order), -1).clone()
        even = rows[:, 0::2]
        odd = rows[:, 1::2]
        width = odd.shape[1]
        total = even[:, :width] + odd
        excess = torch.where(
            even[:, :width] * odd > 0,
            torch.sign(total) * torch.clamp(total.abs() - PAIR_LIMIT, min=0),
            torch.zeros_like(total),
        )
        half = torch.trunc(excess / 2)
        even[:, :width] -= excess - half
        odd -= half
        back = rows.reshape(order.shape)
        back = torch.moveaxis(back, -1, 1) if moved.ndim > 2 else back
        change = torch.moveaxis(back, 0, axis % integers.ndim) - integers
    return integers + change
