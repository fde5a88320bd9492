"""A copy of a graph in which layers compute twice, as they are and rounded, and report the difference.

Every layer reads the exact input, so each difference is the error of that layer alone. The means are taken
in the graph: not one activation leaves the session as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.observe import append, reporting
from jettison.graph.qdq import Editor, Scale

_IMAGE_OPERATORS = ("Conv", "ConvTranspose")
"""Operators whose channels lie on axis 1; those of a product lie on the last one."""


@dataclass(frozen=True)
class Twin:
    """A node's second computation: its first input quantized and dequantized, its second one replaced.

    `activation` is per tensor; `weight`: float32, the shape of the node's weight. `outputs` is the number of
    output channels.
    """

    node: str
    activation: Scale
    weight: np.ndarray[Any, np.dtype[np.float32]]
    outputs: int

    @property
    def difference(self) -> str:
        """The output that holds mean(node - twin) over all but the channels: float32, (outputs,)."""
        return f"{self.node}:difference"


def compared(model: ir.Model, twins: Sequence[Twin]) -> ir.Model:
    """A copy whose outputs are the twins' differences only."""

    def report(editor: Editor) -> list[ir.Value]:
        builder = _Builder(editor)
        differences = [builder.difference(twin) for twin in twins]
        editor.graph.sort()
        return differences

    return reporting(model, report)


class _Builder:
    """Adds twins to one graph; twins of one value and scale read one rounded value."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._rounded: dict[tuple[str, float, int], ir.Value] = {}

    def difference(self, twin: Twin) -> ir.Value:
        node = self._editor.nodes[twin.node]
        weight = self._editor.constant(f"{twin.node}:weight", twin.weight)
        inputs = [self._input(node, twin), weight, *node.inputs[2:]]
        second = ir.node(node.op_type, inputs, node.attributes, name=f"{twin.node}:twin")
        second.outputs[0].name = f"{twin.node}:rounded"
        second.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        self._editor.graph.append(second)
        means = [
            self._mean(output, twin, f"{twin.node}:{title}", is_image=node.op_type in _IMAGE_OPERATORS)
            for output, title in ((node.outputs[0], "exact_mean"), (second.outputs[0], "rounded_mean"))
        ]
        return append(self._editor.graph, "Sub", means, twin.difference)

    def _input(self, node: ir.Node, twin: Twin) -> ir.Value:
        """The node's first input, rounded.

        A pair in front of a float weight stays float arithmetic as long as no pair follows the layer: ONNX
        Runtime (1.32) takes a layer for an integer one by its output.
        """
        source = node.inputs[0]
        if source is None or source.name is None:
            raise ValueError(f"{node.op_type} {node.name!r} lacks its first input")
        scale = twin.activation
        key = (source.name, float(scale.values), int(scale.zero_point))
        if key not in self._rounded:
            parameters = self._editor.parameters(f"{twin.node}:input", scale)
            quantized = self._editor.quantize(source.name, parameters)
            self._rounded[key] = self._editor.dequantize(quantized, f"{twin.node}:input", parameters)
        return self._rounded[key]

    def _mean(self, value: ir.Value, twin: Twin, name: str, *, is_image: bool) -> ir.Value:
        """The mean of each channel."""
        graph = self._editor.graph
        if is_image:
            others = [0, *range(2, twin.weight.ndim)]
        else:
            shape = self._editor.constant(f"{name}:rows", np.array([-1, twin.outputs], np.int64))
            value, others = append(graph, "Reshape", [value, shape], f"{name}:flat"), [0]
        axes = self._editor.constant(f"{name}:axes", np.array(others, np.int64))
        return append(graph, "ReduceMean", [value, axes], name, keepdims=0)
