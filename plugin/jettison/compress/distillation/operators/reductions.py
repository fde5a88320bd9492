"""Operators that reduce axes: sums, means, extremes, norms, and the place of an extreme."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from jettison.compress.distillation.operators.node import Build, Compute, NoGradientError, whole_numbers
from jettison.graph.edit import int_attribute

Reduce = Callable[[Tensor, "tuple[int, ...]", bool], Tensor]
"""From values, axes and whether these stay as 1, to the reduced values."""


def _reduction(function: Reduce) -> Build:
    """An operator whose axes are an input, as since opset 18, or an attribute."""

    def build(node: ir.Node) -> Compute:
        keeps = bool(int_attribute(node, "keepdims", 1))
        leaves_all = bool(int_attribute(node, "noop_with_empty_axes", 0))
        attribute = node.attributes.get("axes")
        fixed = None if attribute is None else tuple(attribute.as_ints())

        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            found = tuple(whole_numbers(axes)) if axes is not None else fixed or ()
            if not found and leaves_all:
                return x
            return function(x, found or tuple(range(x.ndim)), keeps)

        return compute

    return build


def _squares(x: Tensor, axes: tuple[int, ...], keeps: bool) -> Tensor:  # noqa: FBT001
    return (x * x).sum(axes, keeps)


def _extreme_place(function: Callable[..., Tensor]) -> Build:
    def build(node: ir.Node) -> Compute:
        axis, keeps = int_attribute(node, "axis", 0), bool(int_attribute(node, "keepdims", 1))
        if int_attribute(node, "select_last_index", 0):
            raise NoGradientError(node, "selects the last of equal values")
        return lambda x: function(x, axis, keeps)

    return build


REDUCTIONS: dict[str, Build] = {
    "ArgMax": _extreme_place(torch.argmax),
    "ArgMin": _extreme_place(torch.argmin),
    "ReduceL1": _reduction(lambda x, axes, keeps: x.abs().sum(axes, keeps)),
    "ReduceL2": _reduction(lambda x, axes, keeps: torch.linalg.vector_norm(x, 2, axes, keeps)),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "ReduceSumSquare": _reduction(_squares),
}
