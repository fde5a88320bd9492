"""QuantizeLinear and DequantizeLinear with gradients: learned scales, and latent weights behind integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jettison.compress.distillation.operators.node import NoGradientError
from jettison.compress.distillation.rounding import (
    mended,
    quantized,
    scaled_gradient,
    spread,
    step_gradient,
)
from jettison.compress.distillation.scale_ties import ScaleTies
from jettison.compress.distillation.slots import Stored, limits_of, scale_axis
from jettison.graph.edit import constant_of, int_attribute

_ACTIVATION_STEP = 10.0
"""k of activations; 1 for weights. A step of Adam moves u by the learning rate at most, so that at 0.001 a
scale that has to double would take 700 whole steps. The divergence of a small network, clipped at the 80th
percentile of its activations, from the float one fell from 0.068 to 0.058 with 1, and to 0.040 with 10, in
the same time; scales of weights gained nothing by it."""
_LARGEST_FLOAT_INTEGER = 2**31 - 128
"""The largest float32 below 2^31, where INT32 ends."""


class Scales(nn.Module):  # type: ignore[misc]
    """All constant scales of a graph, s = s_0 * exp(sum of k u), see `scale_ties.py`.

    The gradient of each u is divided by (k s_0)^2, so that a plain gradient step changes s as it would if s
    were the parameter itself, as in LSQ. For Adam, which divides by the gradient's size, it is all one.
    """

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]], ties: ScaleTies, *, learns: bool) -> None:
        super().__init__()
        self._keys = {name: f"scale_{index}" for index, name in enumerate(arrays)}
        for name, array in arrays.items():
            self.register_buffer(self._keys[name], torch.from_numpy(np.array(array)), persistent=False)
        self._follows = {name: ties.follows.get(name, ()) for name in arrays} if learns else {}
        roots = sorted({root for found in self._follows.values() for root in found})
        self._roots = {root: f"log_{index}" for index, root in enumerate(roots)}
        self.logs = nn.ParameterDict()
        for root, key in self._roots.items():
            self.logs[key] = nn.Parameter(torch.zeros(ties.shapes[root]))
        self._activations = ties.activations
        self._capped = [self._roots[root] for root in ties.capped if root in self._roots]

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def value(self, name: str) -> Tensor:
        """The scale of that name as it is now."""
        scale: Tensor = getattr(self, self._keys[name])
        for root in self._follows.get(name, ()):
            log = self.logs[self._roots[root]]
            first = getattr(self, self._keys[root]).reshape(-1)
            step = _ACTIVATION_STEP if root in self._activations else 1.0
            factor = (step * (first[0] if log.ndim == 0 else first.reshape(log.shape))) ** -2
            scale = scale * torch.exp(step * scaled_gradient(log, factor))
        return scale

    def changed(self) -> dict[str, np.ndarray[Any, Any]]:
        """The scales that are learned, by name, as they are now."""
        return {
            name: self.value(name).detach().cpu().numpy() for name, roots in self._follows.items() if roots
        }

    def cap(self) -> None:
        """Put scales that may not rise back to what they were."""
        with torch.no_grad():
            for key in self._capped:
                self.logs[key].clamp_(max=0.0)


class StoredWeight(nn.Module):  # type: ignore[misc]
    """A weight behind integers: a latent float parameter that is rounded each time it is read."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        integers, scale = constant_of(stored.integers), constant_of(stored.scale)
        if integers is None or scale is None:
            raise ValueError(f"{stored.name!r} is no constant")
        values = torch.from_numpy(integers.astype(np.float64))
        self.axis, self.block, self.is_pair_safe = stored.axis, stored.block, stored.is_pair_safe
        self.lowest, self.highest = stored.lowest, min(stored.highest, _LARGEST_FLOAT_INTEGER)
        zero_point = _zero_points(stored)
        self.register_buffer(
            "zero_point", spread(zero_point, values, self.axis, self.block), persistent=False
        )
        steps = spread(torch.from_numpy(scale.astype(np.float64)), values, self.axis, self.block)
        self.latent = nn.Parameter(((values - self.zero_point) * steps).float())
        self._count = values.numel() / max(scale.size, 1)

    def integers(self, scale: Tensor) -> Tensor:
        """The integers as float32, in the weight's shape; their gradients pass."""
        steps = spread(scale, self.latent, self.axis, self.block)
        found = quantized(self.latent, steps, self.zero_point, self.lowest, self.highest)
        return mended(found, self.axis) if self.is_pair_safe else found

    def forward(self, scale: Tensor) -> Tensor:
        """The weight that the integers stand for."""
        scale = step_gradient(scale, self._count, self.highest)
        steps = spread(scale, self.latent, self.axis, self.block)
        return (self.integers(scale) - self.zero_point) * steps


def _zero_points(stored: Stored) -> Tensor:
    array = constant_of(stored.zero_point)
    return torch.zeros(()) if array is None else torch.from_numpy(array.astype(np.float32))


def quantize_of(node: ir.Node) -> Callable[..., Tensor]:
    """What a QuantizeLinear computes, as float32 that holds integers.

    Raises:
        NoGradientError: It makes something else than integers of up to 16 bits.
    """
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    made = node.outputs[0].dtype if zero_point is None else zero_point.dtype
    value = node.outputs[0] if zero_point is None else zero_point
    if made is None and zero_point is None and "output_dtype" not in node.attributes:
        lowest, highest = 0, 255
    elif made is None or not made.is_integer():
        raise NoGradientError(
            node, f"makes {made.name if made else 'an unknown type'}", "Train before the pass that casts"
        )
    else:
        lowest, highest = limits_of(value)
    axis, block = scale_axis(node), int_attribute(node, "block_size", 0)

    def compute(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        scale = step_gradient(scale, _shared_by(x, scale), highest)
        zeros = torch.zeros((), device=x.device) if zero is None else zero.to(x)
        return quantized(x, spread(scale, x, axis, block), spread(zeros, x, axis, block), lowest, highest)

    return compute


def dequantize_of(node: ir.Node) -> Callable[..., Tensor]:
    """What a DequantizeLinear of computed integers computes.

    Raises:
        NoGradientError: What it reads are no integers.
    """
    read = node.inputs[0].dtype if node.inputs[0] is not None else None
    if read is not None and not read.is_integer():
        raise NoGradientError(node, f"reads {read.name}", "Train before the pass that casts")
    axis, block = scale_axis(node), int_attribute(node, "block_size", 0)
    highest = 127 if read is None or node.inputs[0] is None else limits_of(node.inputs[0])[1]

    def compute(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = x.to(scale.dtype)
        scale = step_gradient(scale, _shared_by(x, scale), highest)
        zeros = torch.zeros((), device=x.device) if zero is None else zero.to(x)
        return (x - spread(zeros, x, axis, block)) * spread(scale, x, axis, block)

    return compute


def _shared_by(x: Tensor, scale: Tensor) -> float:
    """How many numbers of one sample share a scale: LSQ's N for activations."""
    samples = max(len(x) if x.ndim else 1, 1)
    return float(x.numel() / samples / max(scale.numel(), 1))
