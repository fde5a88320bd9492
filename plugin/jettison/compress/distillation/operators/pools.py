"""Pools over windows and over whole images."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from jettison.compress.distillation.operators.node import Build, Compute, NoGradientError, always
from jettison.compress.distillation.operators.windows import Windows, windows_of
from jettison.graph.edit import int_attribute

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _windows(node: ir.Node) -> tuple[Windows, bool]:
    """The windows of a pool, and whether a last window may hang over the end."""
    attribute = node.attributes.get("kernel_shape")
    kernel = () if attribute is None else tuple(attribute.as_ints())
    if len(kernel) not in _MAX:
        raise NoGradientError(node, f"pools over {len(kernel)} axes, expected 1 to 3")
    found, hangs_over = windows_of(node, kernel), bool(int_attribute(node, "ceil_mode", 0))
    if hangs_over and not _fits(found):
        raise NoGradientError(node, "has ceil_mode with paddings that torch does not take")
    return found, hangs_over


def _fits(windows: Windows) -> bool:
    """Whether torch takes these paddings: equal on both sides, and at most half a window."""
    halves = all(2 * pad <= size for pad, size in zip(windows.before, windows.kernel, strict=True))
    return windows.is_even and halves


def _max_pool(node: ir.Node) -> Compute:
    found, hangs_over = _windows(node)
    if len(node.outputs) > 1:
        raise NoGradientError(node, "gives the places of its maxima")
    pool, fits = _MAX[len(found.kernel)], _fits(found)

    def compute(x: Tensor) -> Tensor:
        inside = x if fits else found.padded(x, float("-inf"))
        padding = found.before if fits else 0
        return pool(inside, found.kernel, found.strides, padding, found.dilations, hangs_over)

    return compute


def _average_pool(node: ir.Node) -> Compute:
    found, hangs_over = _windows(node)
    if any(size != 1 for size in found.dilations):
        raise NoGradientError(node, "has dilations")
    pool, fits = _MEAN[len(found.kernel)], _fits(found)
    counts_paddings = bool(int_attribute(node, "count_include_pad", 0))

    def compute(x: Tensor) -> Tensor:
        if fits:
            return pool(x, found.kernel, found.strides, found.before, hangs_over, counts_paddings)
        mean = pool(found.padded(x), found.kernel, found.strides)
        if counts_paddings:
            return mean
        return mean / pool(found.padded(torch.ones_like(x)), found.kernel, found.strides)

    return compute


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


POOLS: dict[str, Build] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": always(_global_mean),
    "GlobalMaxPool": always(_global_max),
    "MaxPool": _max_pool,
}
