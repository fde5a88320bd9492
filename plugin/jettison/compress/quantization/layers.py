"""Which nodes carry weights, how their channels lie, and why some of them stay in float."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from jettison.graph.edit import is_constant

LayerKind = Literal["Conv", "ConvTranspose", "Gemm", "MatMul"]
KINDS: tuple[LayerKind, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")

PASSTHROUGH = frozenset(
    {
        "DepthToSpace", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split",
        "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose output holds only values of their first input, so that one scale serves both."""


@dataclass(frozen=True)
class Layer:
    """A node with constant weights that integers may carry.

    `weight_axis` is the channel axis of the weight. `refusal` says why the node cannot be quantized.
    """

    node: ir.Node
    kind: LayerKind
    weight_axis: int
    refusal: str | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""

    @property
    def activation(self) -> ir.Value:
        """The value that the weights are applied to."""
        return _input(self.node, 0)

    @property
    def weight(self) -> ir.Value:
        """The weights."""
        return _input(self.node, 1)

    @property
    def bias(self) -> ir.Value | None:
        """The bias, where there is one."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def group(self) -> int:
        """The number of groups of a convolution, 1 elsewhere."""
        return self.node.attributes.get_int("group", 1)

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel has weights of its own only."""
        return self.kind == "Conv" and self.group > 1 and self.weight_shape[1] == 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The weight's sizes."""
        return sizes_of(self.weight)

    @property
    def inner_size(self) -> int:
        """How many products each output sums."""
        shape = self.weight_shape
        channels = shape[self.weight_axis]
        return math.prod(shape) // max(channels, 1)

    @property
    def channels(self) -> int:
        """How many output channels the weight has along its channel axis."""
        return self.weight_shape[self.weight_axis]


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.op_type} {node.name!r} lacks input {index}")
    return value


def find_layers(graph: ir.Graph) -> Iterator[Layer]:
    """The weighted layers of the main graph, in its order, those that must stay in float included.

    A product of two activations (attention) has no constant weight and is no layer.
    """
    for node in graph:
        if node.op_type in KINDS and node.domain == "" and not _is_product_of_activations(node):
            axis = _weight_axis(node)
            layer = Layer(node, node.op_type, axis)
            yield Layer(node, node.op_type, axis, _refusal(layer))


def _is_product_of_activations(node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Gemm") and not is_constant(node.inputs[1])


def sizes_of(value: ir.Value) -> tuple[int, ...]:
    """The sizes of a constant, () where the value is none."""
    return tuple(value.const_value.shape.numpy()) if value.const_value is not None else ()


def _weight_axis(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1


def _refusal(layer: Layer) -> str | None:
    """The first rule that the layer breaks, in words."""
    if not is_constant(layer.weight):
        return "its weight is computed at run time"
    if layer.weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {layer.weight.dtype}, expected float32"
    rank = len(layer.weight_shape)
    rules = (
        (layer.kind == "MatMul" and rank != 2, f"its weight has {rank} dimensions, expected 2"),
        (0 in layer.weight_shape, "its weight is empty"),
        (
            layer.kind == "Gemm" and layer.node.attributes.get_int("transA", 0) == 1,
            "its activation is transposed",
        ),
        (
            layer.kind == "ConvTranspose" and layer.node.attributes.get_int("group", 1) > 1,
            "a grouped transposed convolution has no single channel axis",
        ),
        (layer.bias is not None and not is_constant(layer.bias), "its bias is computed at run time"),
    )
    return next((reason for broken, reason in rules if broken), None)


def fused_output(node: ir.Node) -> ir.Value:
    """The node's output, past a clamp (Relu, Clip) that is its only reader.

    A Clip is passed only where its bounds are constant and the lower one is 0: the zero point is then the
    lowest integer. With another bound the rounded zero point moves the range's ends a little beyond, and
    ONNX Runtime keeps the Clip, and with it the layer before it, in float.
    """
    output = node.outputs[0]
    readers = [usage.node for usage in output.uses()]
    if len(readers) != 1 or output.is_graph_output() or not is_clamp(readers[0]):
        return output
    return readers[0].outputs[0]


def is_clamp(node: ir.Node) -> bool:
    """Whether the node is a Relu, or a Clip between 0 and a constant."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    bounds = [bound for bound in node.inputs[1:] if bound is not None]
    low = node.inputs[1] if len(node.inputs) > 1 else None
    if low is None or not all(is_constant(bound) for bound in bounds):
        return False
    return low.const_value is not None and float(low.const_value.numpy()) == 0.0
