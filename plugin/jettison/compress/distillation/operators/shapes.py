"""Operators that move, cut, join and repeat values, and the arithmetic of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jettison.compress.distillation.operators.node import (
    Build,
    Compute,
    NoGradientError,
    always,
    beside,
    has_input,
    text,
    whole_numbers,
)
from jettison.graph.edit import int_attribute


def _reshape(node: ir.Node) -> Compute:
    keeps_zero = bool(int_attribute(node, "allowzero", 0))

    def compute(x: Tensor, shape: Tensor) -> Tensor:
        sizes = whole_numbers(shape)
        if not keeps_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return compute


def _flatten(node: ir.Node) -> Compute:
    axis = int_attribute(node, "axis", 1)

    def compute(x: Tensor) -> Tensor:
        place = axis + x.ndim if axis < 0 else axis
        return x.reshape(int(np.prod(x.shape[:place])), -1) if x.numel() else x.flatten(place)

    return compute


def _transpose(node: ir.Node) -> Compute:
    attribute = node.attributes.get("perm")
    order = None if attribute is None else list(attribute.as_ints())
    return lambda x: x.permute(order if order is not None else list(range(x.ndim))[::-1])


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(whole_numbers(axes)))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    places = whole_numbers(axes)
    rank = x.ndim + len(places)
    for place in sorted(place % rank for place in places):
        x = x.unsqueeze(place)
    return x


def _slice(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = whole_numbers(starts), whole_numbers(ends)
    places = list(range(len(first))) if axes is None else whole_numbers(axes)
    strides = [1] * len(first) if steps is None else whole_numbers(steps)
    for place, start, end, stride in zip(places, first, last, strides, strict=True):
        chosen = range(*slice(start, end, stride).indices(x.shape[place]))
        if stride > 0 and chosen:
            cut = [slice(None)] * x.ndim
            cut[place] = slice(chosen[0], chosen[-1] + 1, stride)
            x = x[tuple(cut)]
        else:
            x = x.index_select(place, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _gather(node: ir.Node) -> Compute:
    axis = int_attribute(node, "axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        place = axis % x.ndim
        rows = beside(indices, x).reshape(-1).long()
        rows = torch.where(rows < 0, rows + x.shape[place], rows)
        found = x.index_select(place, rows)
        return found.reshape(*x.shape[:place], *indices.shape, *x.shape[place + 1 :])

    return compute


def _gather_elements(node: ir.Node) -> Compute:
    axis = int_attribute(node, "axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        rows = beside(indices, x).long()
        return torch.gather(x, axis, torch.where(rows < 0, rows + x.shape[axis], rows))

    return compute


def _concat(node: ir.Node) -> Compute:
    axis = int_attribute(node, "axis", 0)
    return lambda *values: torch.cat([beside(value, values[0]) for value in values], axis)


def _split(node: ir.Node) -> Compute:
    axis, count = int_attribute(node, "axis", 0), len(node.outputs)

    def compute(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        if sizes is not None:
            return tuple(torch.split(x, whole_numbers(sizes), axis))
        return tuple(torch.split(x, -(-x.shape[axis] // count), axis))

    return compute


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(whole_numbers(shape))))


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(whole_numbers(repeats))


def _shape(node: ir.Node) -> Compute:
    start, attribute = int_attribute(node, "start", 0), node.attributes.get("end")
    end = None if attribute is None else attribute.as_int()
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _constant_of_shape(node: ir.Node) -> Compute:
    attribute = node.attributes.get("value")
    value = torch.zeros(1) if attribute is None else torch.from_numpy(attribute.as_tensor().numpy().copy())
    return lambda shape: value.reshape(()).expand(whole_numbers(shape)).clone()


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _trilu(node: ir.Node) -> Compute:
    keep = torch.triu if int_attribute(node, "upper", 1) else torch.tril
    return lambda x, k=None: keep(x, 0 if k is None else int(k))


def _depth_to_space(node: ir.Node) -> Compute:
    block, is_crd = int_attribute(node, "blocksize", 1), text(node, "mode", "DCR") == "CRD"

    def compute(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rest = channels // block**2
        if is_crd:
            y = x.reshape(batch, rest, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
        else:
            y = x.reshape(batch, block, block, rest, height, width).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(batch, rest, height * block, width * block)

    return compute


def _space_to_depth(node: ir.Node) -> Compute:
    block = int_attribute(node, "blocksize", 1)

    def compute(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = x.reshape(batch, channels, height // block, block, width // block, block)
        return y.permute(0, 3, 5, 1, 2, 4).reshape(
            batch, channels * block**2, height // block, width // block
        )

    return compute


_PAD_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
"""ONNX's modes and numpy's names for them."""


def _pad(node: ir.Node) -> Compute:
    mode = text(node, "mode", "constant")
    if mode != "constant" and mode not in _PAD_MODES:
        raise NoGradientError(node, f"pads by {mode!r}")

    def compute(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        sides = whole_numbers(pads)
        places = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in whole_numbers(axes)]
        before, after = [0] * x.ndim, [0] * x.ndim
        for index, place in enumerate(places):
            before[place], after[place] = sides[index], sides[index + len(places)]
        if mode == "constant":
            return pad_constant(x, before, after, 0.0 if value is None else value.item())
        return _pad_by_index(x, before, after, _PAD_MODES[mode])

    return compute


def pad_constant(x: Tensor, before: Sequence[int], after: Sequence[int], value: Any = 0.0) -> Tensor:
    """The tensor with that many values before and after along each axis; negative numbers cut off."""
    sides = [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair]
    return torch.nn.functional.pad(x, sides, value=value) if any(sides) else x


def _pad_by_index(x: Tensor, before: Sequence[int], after: Sequence[int], mode: str) -> Tensor:
    for place, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            size = x.shape[place]
            rows = np.pad(np.arange(size), (max(low, 0), max(high, 0)), mode=mode)  # type: ignore[call-overload]
            rows = rows[max(-low, 0) : len(rows) - max(-high, 0)]
            x = x.index_select(place, torch.from_numpy(np.ascontiguousarray(rows)).to(x.device))
    return x


def _cumulated(node: ir.Node) -> Compute:
    if int_attribute(node, "exclusive", 0) or int_attribute(node, "reverse", 0):
        raise NoGradientError(node, "sums exclusively or in reverse")
    return lambda x, axis: torch.cumsum(x, int(axis))


def _constant(node: ir.Node) -> Compute:
    value = node.outputs[0].const_value
    if value is None or has_input(node, 0):
        raise NoGradientError(node, "holds no tensor")
    array = torch.from_numpy(np.array(value.numpy()))
    return lambda: array


SHAPES: dict[str, Build] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulated,
    "DepthToSpace": _depth_to_space,
    "Expand": always(_expand),
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Range": always(_range),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": always(_size),
    "Slice": always(_slice),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": always(_squeeze),
    "Tile": always(_tile),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": always(_unsqueeze),
}
