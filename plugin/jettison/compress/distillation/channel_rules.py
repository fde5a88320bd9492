"""How each operator hands channels on: keeps them, makes new ones, ties or joins them, or lays maps flat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.distillation.channel_groups import Cut, Lie, Part, WidthError, Widths
from jettison.graph.edit import constant_of, float_attribute, int_attribute

_KEPT = frozenset(
    {"Abs", "AveragePool", "Cast", "Ceil", "Clip", "Elu", "Erf", "Exp", "Gelu", "GlobalAveragePool"}
    | {"GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "MaxPool", "Mish", "Neg"}
    | {"Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh"}
)
"""Operators that compute each channel of their first input from that channel alone."""
_SUMS = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu"})
"""Operators that join equal channels of their inputs, constants among them."""
CHANNEL = 1
_MAP_RANK = 3
"""The least rank of a map: batch, channels, and one axis of places."""


@dataclass(frozen=True)
class ChannelNode:
    """A node, and where channels lie in its inputs."""

    node: ir.Node
    lies: list[Lie | None]
    widths: Widths

    @property
    def first(self) -> Lie:
        """Where they lie in the first input."""
        found = self.lies[0]
        if found is None:
            raise self.error("takes its channels from another input than the first")
        return found

    def error(self, detail: str) -> WidthError:
        """Why channels cannot be followed through this node."""
        return WidthError(self.node, detail)

    def input(self, index: int) -> ir.Value | None:
        """The input of that number, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def cut(self, index: int, lie: Lie, *, makes: bool = False) -> None:
        """Let a constant input follow these channels; one that is left out follows nothing."""
        value = self.input(index)
        if value is None:
            return
        array = constant_of(value)
        if array is None or value.producer() is not None:
            raise self.error(f"reads {value.name!r}, which is computed, as its weight")
        if array.ndim <= lie.axis or array.shape[lie.axis] != self.widths.width(lie):
            raise self.error(f"reads {value.name!r} of shape {list(array.shape)}, which does not fit")
        self.widths.cuts.append(Cut(value.name or "", lie, makes))


def _keep(found: ChannelNode) -> Lie:
    return found.first


def _conv(found: ChannelNode) -> Lie:
    node, weight = found.node, constant_of(found.input(1))
    if weight is None:
        raise found.error("has a weight that is computed")
    group, first = int_attribute(node, "group", 1), found.first
    if group == 1:
        found.cut(1, Lie(1, first.parts))
        return _made(found, 0, weight.shape[0], bias=2)
    if len(first.parts) != 1 or weight.shape[:2] != (group, 1) or first.parts[0].repeat != 1:
        raise found.error(f"has {group} groups of channels")
    found.cut(1, Lie(0, first.parts))
    found.cut(2, Lie(0, first.parts))
    found.widths.depthwise.append((node, first.parts[0]))
    return first


def _conv_transpose(found: ChannelNode) -> Lie:
    weight = constant_of(found.input(1))
    if weight is None or int_attribute(found.node, "group", 1) != 1:
        raise found.error("has several groups of channels, or a weight that is computed")
    found.cut(1, Lie(0, found.first.parts))
    return _made(found, 1, weight.shape[1], bias=2)


def _gemm(found: ChannelNode) -> Lie:
    node, weight = found.node, constant_of(found.input(1))
    if weight is None or int_attribute(node, "transA", 0) or float_attribute(node, "alpha", 1.0) != 1.0:
        raise found.error("has a weight that is computed, or a form that is not known here")
    rows = 0 if int_attribute(node, "transB", 0) else 1
    found.cut(1, Lie(1 - rows, found.first.parts))
    made = _made(found, rows, weight.shape[rows])
    bias = constant_of(found.input(2))
    if bias is not None and bias.ndim and bias.shape[-1] > 1:
        found.cut(2, Lie(bias.ndim - 1, made.parts))
    return made


def _matmul(found: ChannelNode) -> Lie:
    weight = constant_of(found.input(1))
    if weight is None or weight.ndim != 2 or len(shape_of(found.input(0))) != 2:
        raise found.error("is no product of features with a constant matrix")
    found.cut(1, Lie(0, found.first.parts))
    return _made(found, 1, weight.shape[1])


def _made(found: ChannelNode, axis: int, size: int, *, bias: int | None = None) -> Lie:
    """A layer's own channels, along that axis of its weight."""
    part = found.widths.add(size)
    found.cut(1, Lie(axis, (part,)), makes=True)
    if bias is not None:
        found.cut(bias, Lie(0, (part,)))
    return Lie(CHANNEL, (part,))


def _batchnorm(found: ChannelNode) -> Lie:
    for index in range(1, 5):
        found.cut(index, Lie(0, found.first.parts))
    return found.first


def _sum(found: ChannelNode) -> Lie:
    """Inputs with channels are tied; constants with one number for each channel follow."""
    rank = len(shape_of(found.node.outputs[0]))
    lies = [lie for lie in found.lies if lie is not None]
    first = lies[0]
    for index, lie in enumerate(found.lies):
        value = found.input(index)
        shape = shape_of(value)
        if lie is None:
            _follow_constant(found, index, first, axis=first.axis - rank + len(shape))
        elif len(shape) != rank or lie.axis != first.axis or not _tied(found, lie, first):
            raise found.error("joins channels of different kinds")
    return first


def _tied(found: ChannelNode, lie: Lie, first: Lie) -> bool:
    return len(lie.parts) == len(first.parts) and found.widths.tie(first.parts, lie.parts)


def _follow_constant(found: ChannelNode, index: int, lie: Lie, *, axis: int) -> None:
    array = constant_of(found.input(index))
    if array is None:
        raise found.error("joins channels with something that is computed from none")
    if axis >= 0 and array.ndim > axis and array.shape[axis] > 1:
        found.cut(index, Lie(axis, lie.parts))


def _concat(found: ChannelNode) -> Lie:
    rank = len(shape_of(found.node.outputs[0]))
    axis = found.node.attributes["axis"].as_int() % max(rank, 1)
    lies = [lie for lie in found.lies if lie is not None]
    if axis != CHANNEL or len(lies) != len(found.lies) or any(lie.axis != CHANNEL for lie in lies):
        raise found.error("joins values along another axis than that of channels")
    return Lie(CHANNEL, tuple(part for lie in lies for part in lie.parts))


def _mean(found: ChannelNode) -> Lie:
    rank = len(shape_of(found.input(0)))
    axes = constant_of(found.input(1))
    numbers = {int(axis) % rank for axis in axes.reshape(-1)} if axes is not None and rank else set()
    if not numbers or min(numbers) <= CHANNEL or rank < _MAP_RANK:
        raise found.error("takes the mean over channels or samples")
    return found.first


def _ends(found: ChannelNode) -> None:
    """Channels are numbered: which of them is the largest says nothing where some are gone."""
    found.widths.fix(found.first.parts)


def _pad(found: ChannelNode) -> Lie:
    pads = constant_of(found.input(1))
    rank = len(shape_of(found.input(0)))
    if pads is None or len(pads) != 2 * rank or pads[[0, 1, rank, rank + 1]].any():
        raise found.error("pads channels, or by numbers that are computed")
    return found.first


def _resize(found: ChannelNode) -> Lie:
    scales = constant_of(found.input(2))
    if scales is None or scales.size <= CHANNEL or scales[CHANNEL] != 1:
        raise found.error("resizes channels, or by numbers that are computed")
    return found.first


def _reshape(found: ChannelNode) -> Lie:
    """A map laid flat, or a flat row made a map of one place."""
    before, after = shape_of(found.input(0)), shape_of(found.node.outputs[0])
    first = found.first
    if first.axis != CHANNEL:
        raise found.error("changes the shape of something else than maps")
    places = 1
    for size in before[2:]:
        if not isinstance(size, int):
            raise found.error("lays flat a map of open size")
        places *= size
    width = found.widths.width(first)
    if len(after) == 2 and after[1] == width * places:
        lie = Lie(CHANNEL, tuple(Part(part.group, part.repeat * places) for part in first.parts))
    elif places == 1 and len(after) > 1 and after[1] == width and all(size == 1 for size in after[2:]):
        lie = first
    else:
        raise found.error(f"makes {list(after)} of {list(before)}")
    if found.node.op_type == "Reshape":
        found.widths.flattened.append((found.node, lie))
    return lie


def shape_of(value: ir.Value | None) -> list[int | str | None]:
    """The value's sizes, names and None for open ones; empty where its rank is not known."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else size.value for size in value.shape]


FOLLOW: dict[str, Callable[[ChannelNode], Lie | None]] = {
    **dict.fromkeys(_KEPT, _keep),
    **dict.fromkeys(_SUMS, _sum),
    "ArgMax": _ends,
    "ArgMin": _ends,
    "BatchNormalization": _batchnorm,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "ReduceMax": _mean,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda _: None,
    "Softmax": _keep,
    "Squeeze": _reshape,
}
"""How each operator hands channels on."""
