"""What of a graph is trained: float weights, integers that stand for weights, and the scales of both.

Told from the graph alone, without torch. A weight that was quantized is trained as the number behind its
integers (a latent weight), which is rounded again each time it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.weights import kernel_order, pair_excess
from jettison.graph.edit import constant_of, int_attribute

_SLOTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gather": (0,),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "QuantizeLinear": (0,),
    "RMSNormalization": (1,),
}
"""Inputs that hold weights where they are constant, by operator."""

_VECTOR_SLOTS = ("Add", "Mul")
"""Operators whose constant is a weight where it is one number for each channel: a bias, a learned scale.

A single number is a part of a formula, and what varies along several axes is a mask or a table of places.
"""

MATRIX_SLOTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (0, 1),
}
"""Inputs that activations are multiplied with: the weights that pruning cuts."""

_INTEGERS = (
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT16,
    ir.DataType.UINT16,
    ir.DataType.INT32,
)
_DEFAULT_AXIS = 1
"""Source: ONNX operators QuantizeLinear and DequantizeLinear, attribute `axis`."""


@dataclass(frozen=True)
class Stored:
    """A weight that is stored as integers, behind the only DequantizeLinear that reads them.

    `lowest` and `highest` are the integers that a trained weight may take. `is_pair_safe`: no pair of
    neighbours may saturate a kernel's 16-bit sum, see `quantization/weights.py`.
    """

    node: ir.Node
    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None
    lowest: int
    highest: int
    axis: int
    block: int
    is_pair_safe: bool = False

    @property
    def name(self) -> str:
        """The name of the integers."""
        return self.integers.name or ""

    @property
    def is_bias(self) -> bool:
        """Whether it is stored in 32 bits, as biases are."""
        return self.integers.dtype == ir.DataType.INT32


def trained_floats(graph: ir.Graph) -> list[ir.Value]:
    """The float32 initializers that are weights, in the graph's order."""
    return [
        value
        for value in graph.initializers.values()
        if value.dtype == ir.DataType.FLOAT
        and constant_of(value) is not None
        and not value.is_graph_output()
        and any(_is_slot(usage.node, usage.idx, value) for usage in value.uses())
    ]


def stored_weights(graph: ir.Graph) -> list[Stored]:
    """The weights that are stored as integers, in the graph's order."""
    return [found for node in graph for found in _stored(node)]


def is_matrix(value: ir.Value) -> bool:
    """Whether activations are multiplied with the value, itself or behind its DequantizeLinear."""
    for usage in value.uses():
        if usage.idx in MATRIX_SLOTS.get(usage.node.op_type, ()):
            return True
        pairs = usage.node.op_type in ("QuantizeLinear", "DequantizeLinear") and usage.idx == 0
        if pairs and is_matrix(usage.node.outputs[0]):
            return True
    return False


def scale_axis(node: ir.Node) -> int:
    """The axis along which a QuantizeLinear's or DequantizeLinear's scales lie."""
    return int_attribute(node, "axis", _DEFAULT_AXIS)


def _is_slot(node: ir.Node, index: int, value: ir.Value) -> bool:
    if node.domain != "":
        return False
    if node.op_type in _VECTOR_SLOTS:
        sizes = value.shape.numpy() if value.shape is not None and value.shape.is_static() else ()
        return sum(size > 1 for size in sizes) == 1
    return index in _SLOTS.get(node.op_type, ())


def _stored(node: ir.Node) -> Iterator[Stored]:
    if node.op_type != "DequantizeLinear" or node.domain != "":
        return
    integers, scale = node.inputs[0], node.inputs[1]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if integers is None or scale is None or integers.dtype not in _INTEGERS:
        return
    array, scales = constant_of(integers), constant_of(scale)
    if array is None or scales is None or len(integers.uses()) > 1 or integers.is_graph_output():
        return
    if scales.dtype != np.float32 or (zero_point is not None and constant_of(zero_point) is None):
        return
    lowest, highest = limits_of(integers)
    if array.size and lowest == -128 and array.min() >= -127:
        lowest = -127
    block = int_attribute(node, "block_size", 0)
    yield Stored(
        node=node,
        integers=integers,
        scale=scale,
        zero_point=zero_point,
        lowest=lowest,
        highest=highest,
        axis=scale_axis(node),
        block=block,
        is_pair_safe=_is_pair_safe(node, array, scales),
    )


def limits_of(value: ir.Value) -> tuple[int, int]:
    """The lowest and highest integer of the value's element type."""
    if value.dtype is None:
        raise ValueError(f"{value.name!r} has no element type")
    bits = value.dtype.itemsize * 8
    if value.dtype.name.startswith("U"):
        return 0, int(2**bits) - 1
    return -int(2 ** (bits - 1)), int(2 ** (bits - 1)) - 1


def _is_pair_safe(node: ir.Node, array: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]) -> bool:
    """Whether the weight was made for a kernel that sums pairs in 16 bits: unsigned activations, INT8."""
    if array.dtype != np.int8 or array.ndim < 2 or scales.ndim != 1:
        return False
    readers = [usage.node for usage in node.outputs[0].uses()]
    if not readers or any(not _reads_unsigned(reader) or _is_depthwise(reader, array) for reader in readers):
        return False
    rows = kernel_order(array.astype(np.float32), scale_axis(node) % array.ndim)
    return not pair_excess(rows).any()


def _reads_unsigned(node: ir.Node) -> bool:
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear" or len(source.inputs) < 3:
        return False
    zero_point = source.inputs[2]
    return zero_point is not None and zero_point.dtype == ir.DataType.UINT8


def _is_depthwise(node: ir.Node, weight: np.ndarray[Any, Any]) -> bool:
    return node.op_type == "Conv" and int_attribute(node, "group", 1) > 1 and weight.shape[1] == 1
