"""Which operators let another order of channels through, and where constants have to follow it.

An operator lets a permutation P of an axis through where op(P x) = P op(x): it treats all channels alike, or
its constants have a number for each channel, which then change their order too. That holds for more
operators than let a factor through (`carry.py`): every element-wise one, bounded or not.
Source: Pool and Yu 2021, "Channel Permutations for N:M Sparsity", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from jettison.graph.carry import OUTPUT, Passage, carried
from jettison.graph.edit import constant_of, int_attribute

_ELEMENTWISE = (
    "Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softmax",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
"""Operators of one tensor; a Softmax changes its order with its input along any axis."""
_JOINING = ("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum")
"""Operators whose inputs are lined up from the last axis."""
_MOVING = (
    "AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Reshape", "Resize", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_REDUCING = frozenset({"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
_BLIND = frozenset({"Shape", "Size"})


def passes(node: ir.Node, port: int, axis: int) -> Passage | None:
    """Where channels in another order lie at a node, by its inputs and OUTPUT; None if they cannot pass.

    Args:
        node: The node.
        port: The input, by its number, or OUTPUT, whose channels have another order.
        axis: The axis of the channels there.
    """
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    if rule is None or any(_is_read(output) for output in node.outputs[1:]):
        return None
    return rule(node, port, axis)


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def is_indifferent(node: ir.Node, axis: int) -> bool:
    """Whether the order along that axis of its first input makes no difference to what the node makes."""
    if node.op_type in _BLIND:
        return True
    if node.domain != "" or node.op_type not in _REDUCING:
        return False
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = _rank(node.inputs[0])
    return axes is not None and rank > 0 and axis in {int(number) % rank for number in axes.reshape(-1)}


def _elementwise(node: ir.Node, port: int, axis: int) -> Passage | None:
    del node
    return {0: axis, OUTPUT: axis} if port in (0, OUTPUT) else None


def _joining(node: ir.Node, port: int, axis: int) -> Passage | None:
    """Each side that has the channels has them in the same order; one that is spread over them has none."""
    from_end = axis - _rank(node.outputs[0] if port == OUTPUT else node.inputs[port])
    channels = _size(node.outputs[0], from_end)
    if channels is None:
        return None
    found = {OUTPUT: _rank(node.outputs[0]) + from_end}
    for number, value in enumerate(node.inputs):
        if _rank(value) + from_end < 0 and value is not None and value.shape is not None:
            continue
        size = _size(value, from_end)
        if size == channels:
            found[number] = _rank(value) + from_end
        elif size != 1:
            return None
    return found if port in found else None


def _normalization(node: ir.Node, port: int, axis: int) -> Passage | None:
    """Every constant has a number for each channel, on axis 1 of an image or the last one of a LayerNorm."""
    rank = _rank(node.outputs[0])
    expected = 1
    if node.op_type == "LayerNormalization":
        if int_attribute(node, "axis", -1) not in (-1, rank - 1):
            return None
        expected = rank - 1
    if axis != expected or port not in (0, OUTPUT):
        return None
    return {0: axis, OUTPUT: axis, **dict.fromkeys(_given(node, range(1, len(node.inputs))), 0)}


def _depthwise(node: ir.Node, port: int, axis: int) -> Passage | None:
    """A convolution that has one kernel for each channel."""
    weight = constant_of(node.inputs[1])
    group = int_attribute(node, "group", 1)
    if weight is None or axis != 1 or port not in (0, OUTPUT) or not weight.shape[0] == group > 1:
        return None
    if weight.shape[1] != 1 or len(node.inputs[1].uses()) > 1:  # type: ignore[union-attr]
        return None
    return {0: 1, OUTPUT: 1, **dict.fromkeys(_given(node, (1, 2)), 0)}


def _given(node: ir.Node, ports: Iterable[int]) -> list[int]:
    return [number for number in ports if number < len(node.inputs) and node.inputs[number] is not None]


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else value.shape.rank()


def _size(value: ir.Value | None, from_end: int) -> int | None:
    """The size of an axis, counted from the end; None where it is not known."""
    if value is None or value.shape is None or value.shape.rank() + from_end < 0:
        return None
    size = value.shape[from_end]
    return size if isinstance(size, int) else None


_RULES: dict[str, Callable[[ir.Node, int, int], Passage | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_JOINING, _joining),
    **dict.fromkeys(_MOVING, carried),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), carried),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization", "LayerNormalization"), _normalization),
    "Conv": _depthwise,
}
"""How channels in another order pass each operator that lets them through."""
