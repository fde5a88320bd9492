"""Which operators a factor for each channel passes through, and along which axis it leaves them.

An operator lets a positive factor f through where op(x / f) = op(x) / f: it is linear in that input, or
positively homogeneous in it (Relu), channel by channel. A Clip with an upper bound is not: it would need a
bound for each channel, and one that only seems out of reach on the samples at hand is none for others.
Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import constant_of, int_attribute, is_constant

OUTPUT = -1
"""Stands for a node's first output where others are inputs, by their number."""

Passage = dict[int, int]
"""The axis along which the factor lies in each input of a node that has it, and in OUTPUT.

A constant in it has to be divided by the factor too.
"""

_Sizes = tuple[int | None, ...]
_UNBOUNDED = float(np.finfo(np.float32).max)


def carried(node: ir.Node, port: int, axis: int) -> Passage | None:
    """Where the factor lies at a node when it lies so in one input, or in OUTPUT; None if it cannot pass."""
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    return None if rule is None else rule(node, port, axis)


def _same(node: ir.Node, port: int, axis: int) -> Passage | None:
    del node
    return {0: axis, OUTPUT: axis} if port in (0, OUTPUT) else None


def _clip(node: ir.Node, port: int, axis: int) -> Passage | None:
    """A Clip from 0 upwards is a Relu."""
    low, high = [*node.inputs[1:3], None, None][:2]
    floor, ceiling = constant_of(low), constant_of(high)
    is_free_below = low is None or (floor is not None and floor.size == 1 and float(floor.item()) == 0.0)
    is_free_above = high is None or (ceiling is not None and float(ceiling.item()) >= _UNBOUNDED)
    return _same(node, port, axis) if is_free_below and is_free_above else None


def _over_image(node: ir.Node, port: int, axis: int) -> Passage | None:
    """Each element is made of elements of its own channel: a pool, or another size of the image."""
    before, after = _sizes(node.inputs[0]), _sizes(node.outputs[0])
    keeps_channels = len(before) == len(after) > 1 and before[1] == after[1] is not None
    crops = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return _same(node, port, axis) if axis == 1 and keeps_channels and not crops else None


def _reduce(node: ir.Node, port: int, axis: int) -> Passage | None:
    """A mean or an extreme over other axes."""
    rank, axes = len(_sizes(node.inputs[0])), constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if port not in (0, OUTPUT) or rank == 0 or axes is None or axes.size == 0:
        return None
    reduced = {int(number) % rank for number in axes.reshape(-1)}
    kept = [number for number in range(rank) if number not in reduced]
    after = list(range(rank)) if int_attribute(node, "keepdims", 1) else kept
    before = after[axis] if port == OUTPUT else axis
    return None if before in reduced else {0: before, OUTPUT: after.index(before)}


def _transpose(node: ir.Node, port: int, axis: int) -> Passage | None:
    rank = len(_sizes(node.inputs[0]))
    order = list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    if port not in (0, OUTPUT) or axis >= len(order):
        return None
    return {0: order[axis], OUTPUT: axis} if port == OUTPUT else {0: axis, OUTPUT: order.index(axis)}


def _reshape(node: ir.Node, port: int, axis: int) -> Passage | None:
    """The channels stay an axis of their own, with as many elements behind each of them."""
    before, after = _sizes(node.inputs[0]), _sizes(node.outputs[0])
    if port not in (0, OUTPUT):
        return None
    source, target = (after, before) if port == OUTPUT else (before, after)
    found = _same_axis(source, target, axis)
    if found is None:
        return None
    return {0: found, OUTPUT: axis} if port == OUTPUT else {0: axis, OUTPUT: found}


def _same_axis(source: _Sizes, target: _Sizes, axis: int) -> int | None:
    """The axis of the target that holds what that axis of the source holds."""
    behind = _elements(source[axis + 1 :])
    for number, size in enumerate(target):
        if size == source[axis] is not None and _elements(target[number + 1 :]) == behind is not None:
            return number
    return None


def _sum(node: ir.Node, port: int, axis: int) -> Passage | None:
    """All that is added has to have the factor, wherever it comes from; a constant is divided by it."""
    return _aligned(node, range(len(node.inputs)), _from_end(node, port, axis))


def _product(node: ir.Node, port: int, axis: int) -> Passage | None:
    """A product is linear in each side, a quotient in its numerator: one of them has the factor.

    From behind it passes only where there is no choice: beside a constant.
    """
    free = [side for side in range(2) if not is_constant(node.inputs[side])]
    sides = [port] if port in free else free
    if len(sides) != 1 or (node.op_type == "Div" and sides == [1]):
        return None
    return _aligned(node, sides, _from_end(node, port, axis))


def _aligned(node: ir.Node, ports: Iterable[int], from_end: int) -> Passage | None:
    """The axis in each of these inputs, and in the output, which broadcasting lines up from the end."""
    found, size = {}, None
    for port in (OUTPUT, *ports):
        sizes = _sizes(_at(node, port))
        axis = len(sizes) + from_end
        if axis < 0 or sizes[axis] is None or (port != OUTPUT and sizes[axis] != size):
            return None
        found[port], size = axis, sizes[axis]
    return found


def _from_end(node: ir.Node, port: int, axis: int) -> int:
    return axis - len(_sizes(_at(node, port)))


def _at(node: ir.Node, port: int) -> ir.Value | None:
    return node.outputs[0] if port == OUTPUT else node.inputs[port]


def _elements(sizes: _Sizes) -> int | None:
    """How many elements axes of these sizes hold, where all are known."""
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _sizes(value: ir.Value | None) -> _Sizes:
    """The sizes of a value, None where one is open; () where nothing is known."""
    if value is None or value.shape is None:
        return ()
    return tuple(size if isinstance(size, int) else None for size in value.shape)


_RULES: dict[str, Callable[[ir.Node, int, int], Passage | None]] = {
    **dict.fromkeys(("Identity", "LeakyRelu", "Neg", "PRelu", "Relu"), _same),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize"), _over_image),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Add", "Sub", "Sum"), _sum),
    **dict.fromkeys(("Div", "Mul"), _product),
    "Clip": _clip,
    "Transpose": _transpose,
}
"""How a factor passes each operator that lets it through."""
