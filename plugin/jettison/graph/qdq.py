"""Quantize/dequantize pairs as graph edits: the primitives, which know no dialect.

Source: ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import add_initializer, free_name, names_in


@dataclass(frozen=True)
class Scale:
    """How integers stand for numbers: x = (q - zero_point) * scale.

    `values`: float32, () per tensor or (channels,) along `axis`. `zero_point` is an integer of the
    stored type, per tensor.
    """

    values: np.ndarray[Any, np.dtype[np.float32]]
    zero_point: np.ndarray[Any, Any]
    axis: int | None = None


class Editor:
    """Inserts pairs into one model, which it changes in place; a name that is taken gets a number."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._taken = names_in(model)
        self.values = {value.name: value for node in self.graph for value in node.outputs if value.name} | {
            value.name: value for value in self.graph.inputs if value.name
        }
        everywhere = ir.traversal.RecursiveGraphIterator(self.graph)
        self.nodes = {node.name: node for node in everywhere if node.name}
        self._taken_nodes = set(self.nodes)

    def free_node_name(self, wanted: str) -> str:
        """`wanted`, or with a number where a node has that name; taken from now on."""
        return free_name(wanted, self._taken_nodes)

    def free_value_name(self, wanted: str) -> str:
        """`wanted`, or with a number where a value has that name; taken from now on."""
        return free_name(wanted, self._taken)

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        """An initializer of that name."""
        return add_initializer(self.graph, free_name(name, self._taken), array)

    def parameters(self, stem: str, scale: Scale) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point as initializers named after `stem`, for as many nodes as share them."""
        zero_point = np.full(scale.values.shape, scale.zero_point)
        return self.constant(f"{stem}_scale", scale.values), self.constant(f"{stem}_zero_point", zero_point)

    def quantize(self, name: str, parameters: tuple[ir.Value, ir.Value]) -> ir.Value:
        """The integers of that value, by a QuantizeLinear right behind whatever makes it."""
        source = self.values[name]
        node_name = free_name(f"{name}_QuantizeLinear", self._taken_nodes)
        node = ir.node("QuantizeLinear", [source, *parameters], name=node_name)
        output = node.outputs[0]
        output.name, output.shape = free_name(f"{name}_quantized", self._taken), source.shape
        output.type = ir.TensorType(parameters[1].dtype or ir.DataType.INT8)
        self._place(node, source)
        return output

    def dequantize(
        self,
        quantized: ir.Value,
        stem: str,
        parameters: tuple[ir.Value, ir.Value],
        *,
        axis: int | None = None,
    ) -> ir.Value:
        """The float value behind integers, by a DequantizeLinear named after `stem`."""
        attributes = {} if axis is None else {"axis": axis}
        node_name = free_name(f"{stem}_DequantizeLinear", self._taken_nodes)
        node = ir.node("DequantizeLinear", [quantized, *parameters], attributes, name=node_name)
        output = node.outputs[0]
        output.name, output.shape = free_name(f"{stem}_dequantized", self._taken), quantized.shape
        output.type = ir.TensorType(ir.DataType.FLOAT)
        self._place(node, quantized)
        return output

    def store(self, stem: str, integers: np.ndarray[Any, Any], scale: Scale) -> ir.Value:
        """The float value behind stored integers: an initializer and its DequantizeLinear."""
        quantized = self.constant(f"{stem}_quantized", integers)
        return self.dequantize(quantized, stem, self.parameters(stem, scale), axis=scale.axis)

    def rewire(self, readers: Iterable[tuple[str, int]], value: ir.Value) -> None:
        """Let these inputs (node name, index) read another value."""
        for name, index in readers:
            self.nodes[name].replace_input_with(index, value)

    def replace_output(self, name: str, value: ir.Value) -> None:
        """Make `value` the graph's output of that name; what made it before gets another name."""
        before = self.values[name]
        index = list(self.graph.outputs).index(before)
        before.name = free_name(f"{name}_float", self._taken)
        value.name, value.shape, value.type = name, before.shape, before.type
        self.graph.outputs[index] = value

    def drop_unused(self) -> None:
        """Remove initializers that nothing reads any more."""
        outputs = set(self.graph.outputs)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and value not in outputs:
                del self.graph.initializers[name]

    def _place(self, node: ir.Node, after: ir.Value) -> None:
        producer = after.producer()
        if producer is not None:
            self.graph.insert_after(producer, node)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.append(node)
