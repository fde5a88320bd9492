"""Reads QuantizeLinear and DequantizeLinear nodes as any tool writes them.

Source: ONNX operators QuantizeLinear and DequantizeLinear; a QuantizeLinear without zero point makes UINT8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import int_attribute

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that tools leave between the two halves of a pair, where they move integers."""
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators with a weight as second input, and its channel axis; a Gemm's depends on `transB`."""

Array = np.ndarray[Any, Any]


def array_of(value: ir.Value | None) -> Array | None:
    """What a value holds before the model runs, of an initializer or Constant node; None where open."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


@dataclass(frozen=True, eq=False)
class Quantizer:
    """One half of a pair.

    `scale` and `zero_point` are None where they are no constants; the zero point also where there is none.
    """

    node: ir.Node
    scale: Array | None
    zero_point: Array | None

    @property
    def is_quantize(self) -> bool:
        """Whether it makes integers; else it reads them."""
        return self.node.op_type == QUANTIZE

    @property
    def source(self) -> ir.Value:
        """What it reads."""
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.node!r} reads nothing")
        return value

    @property
    def output(self) -> ir.Value:
        """What it makes."""
        return self.node.outputs[0]

    @property
    def constant(self) -> Array | None:
        """What it reads, where that is stored in the model: then it stands on a weight."""
        return array_of(self.source)

    @property
    def rank(self) -> int:
        """The axes of what is stored; 0 where nothing is."""
        return 0 if self.constant is None else self.constant.ndim

    @property
    def axis(self) -> int:
        """The axis of scales that are not per tensor."""
        return int_attribute(self.node, "axis", 1)

    @property
    def block_size(self) -> int:
        """Elements that share a scale along the axis; 0 where a whole channel does."""
        return int_attribute(self.node, "block_size", 0)

    @property
    def stored(self) -> ir.DataType | None:
        """The element type of its integers (or 8-bit floats); None where the model does not tell."""
        if len(self.node.inputs) > 2 and self.node.inputs[2] is not None:
            return _type_of(self.node.inputs[2])
        if self.is_quantize:
            named = int_attribute(self.node, "output_dtype", 0)
            return ir.DataType(named) if named else ir.DataType.UINT8
        return _type_of(self.source)

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale serves all elements."""
        return self.scale is not None and self.scale.size == 1


def _type_of(value: ir.Value | None) -> ir.DataType | None:
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return tensor.dtype if tensor is not None else value.dtype


def quantizers(graph: ir.Graph) -> Iterator[Quantizer]:
    """All halves of pairs, those of subgraphs included, in the graph's order."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type in (QUANTIZE, DEQUANTIZE) and node.inputs and node.inputs[0] is not None:
            yield quantizer_of(node)


def quantizer_of(node: ir.Node) -> Quantizer:
    """The half that the node is."""
    scale = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    zero_point = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return Quantizer(node, scale, zero_point)


def origin(value: ir.Value) -> ir.Value:
    """What integers come from, through operators that only move them."""
    node = value.producer()
    while node is not None and node.op_type in MOVES and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


@dataclass(frozen=True, eq=False)
class Pair:
    """A QuantizeLinear on an activation, and every DequantizeLinear that reads its integers."""

    quantize: Quantizer
    dequantizes: tuple[Quantizer, ...]

    @property
    def halves(self) -> tuple[Quantizer, ...]:
        """All of its nodes."""
        return (self.quantize, *self.dequantizes)

    @property
    def is_plain(self) -> bool:
        """Whether nothing stands between its halves and nothing else reads the integers."""
        output = self.quantize.output
        readers = {node for node, _ in output.uses()}
        return readers == {half.node for half in self.dequantizes} and not output.is_graph_output()

    @property
    def is_closed(self) -> bool:
        """Whether all readers of the integers are its own halves, through operators that move them."""
        waiting, ends = [self.quantize.output], 0
        while waiting:
            value = waiting.pop()
            if value.is_graph_output():
                return False
            for node, index in value.uses():
                if node.op_type in MOVES and index == 0:
                    waiting += node.outputs
                elif node.op_type == DEQUANTIZE and index == 0:
                    ends += 1
                else:
                    return False
        return ends == len(self.dequantizes) > 0


def pairs(graph: ir.Graph) -> list[Pair]:
    """The pairs on activations, in the graph's order."""
    return [pair for pair in _every_pair(graph) if pair.quantize.constant is None]


def weight_pairs(graph: ir.Graph) -> list[Pair]:
    """The pairs on weights that the model stores in float, as ModelOpt writes them."""
    return [pair for pair in _every_pair(graph) if pair.quantize.constant is not None]


def _every_pair(graph: ir.Graph) -> list[Pair]:
    found = [(half, origin(half.source)) for half in quantizers(graph) if not half.is_quantize]
    readers: dict[ir.Value, list[Quantizer]] = {}
    for half, made in found:
        readers.setdefault(made, []).append(half)
    return [Pair(half, tuple(readers.get(half.output, ()))) for half in quantizers(graph) if half.is_quantize]


def stored_weights(graph: ir.Graph) -> list[Quantizer]:
    """The DequantizeLinear nodes that read integers which the model stores."""
    return [half for half in quantizers(graph) if not half.is_quantize and half.constant is not None]


def detach(node: ir.Node) -> None:
    """Remove a node that nothing reads any more from the graph or subgraph that holds it."""
    if node.graph is not None:
        node.graph.remove(node, safe=True)


def readers_of(half: Quantizer) -> list[tuple[ir.Node, int]]:
    """Who reads what it makes: nodes, and at which input; through operators that only move elements."""
    found: list[tuple[ir.Node, int]] = []
    waiting = [half.output]
    while waiting:
        for node, index in waiting.pop().uses():
            if node.op_type in MOVES and index == 0:
                waiting.append(node.outputs[0])
            else:
                found.append((node, index))
    return found


def channel_axis(node: ir.Node) -> int | None:
    """The channel axis of the node's weight, None where it has none."""
    if node.op_type == "Gemm":
        return 0 if int_attribute(node, "transB", 0) else 1
    axis = WEIGHTED.get(node.op_type)
    weight = node.inputs[1] if axis is not None and len(node.inputs) > 1 else None
    if node.op_type == "MatMul" and weight is not None and weight.shape is not None:
        return len(weight.shape) - 1
    return axis


def real_values(half: Quantizer) -> Array:
    """What stored integers stand for: float32, of their shape.

    Raises:
        ValueError: Integers, scale or zero point are no constants.
    """
    stored, scale = half.constant, half.scale
    if stored is None or scale is None:
        raise ValueError(f"{half.node!r} is no stored weight")
    zero = np.zeros((), np.float32) if half.zero_point is None else half.zero_point
    shaped, zeros = (_along(half, np.asarray(array, np.float32), stored.shape) for array in (scale, zero))
    real: Array = ((np.asarray(stored, np.float32) - zeros) * shaped).astype(np.float32)
    return real


def _along(half: Quantizer, values: Array, shape: tuple[int, ...]) -> Array:
    """Scales or zero points, shaped so that they meet the elements that they belong to."""
    if values.size == 1:
        return values.reshape(())
    if half.block_size:
        return np.repeat(values, half.block_size, axis=half.axis)
    return values.reshape([-1 if place == half.axis % len(shape) else 1 for place in range(len(shape))])
