"""A copy of a graph that reports on values inside it: their extremes, and a part of their elements.

The reduction happens in the graph, so that not one activation leaves the session as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.graph.qdq import Editor


@dataclass(frozen=True)
class Observation:
    """What to report about one value.

    `stride`: every stride-th element of the flattened value is reported. `low`: the lowest value where
    the graph makes it certain (0 behind a Relu), which then is not searched for.
    """

    value: str
    stride: int
    low: float | None = None

    @property
    def sample(self) -> str:
        """The output that holds every stride-th element, flat."""
        return f"{self.value}:sample"

    @property
    def highest(self) -> str:
        """The output that holds the largest element."""
        return f"{self.value}:max"

    @property
    def lowest(self) -> str:
        """The output that holds the smallest element; there is none where `low` is known."""
        return f"{self.value}:min"


def observed(model: ir.Model, observations: Sequence[Observation]) -> ir.Model:
    """A copy whose outputs are the observations only; the weights are shared, not copied."""
    copy = model.clone()
    editor = Editor(copy)
    copy.graph.outputs.clear()
    flat = editor.constant("observe:flat", np.array([-1], np.int64))
    start = editor.constant("observe:start", np.array([0], np.int64))
    end = editor.constant("observe:end", np.array([np.iinfo(np.int64).max], np.int64))
    steps: dict[int, ir.Value] = {}
    for observation in observations:
        source = editor.values[observation.value]
        stride = observation.stride
        if stride not in steps:
            steps[stride] = editor.constant(f"observe:step{stride}", np.array([stride], np.int64))
        row = _append(copy.graph, "Reshape", [source, flat], f"{observation.value}:flat")
        outputs = [_append(copy.graph, "Slice", [row, start, end, start, steps[stride]], observation.sample)]
        outputs.append(_append(copy.graph, "ReduceMax", [row], observation.highest, keepdims=0))
        if observation.low is None:
            outputs.append(_append(copy.graph, "ReduceMin", [row], observation.lowest, keepdims=0))
        copy.graph.outputs.extend(outputs)
    return copy


def _append(
    graph: ir.Graph, operator: str, inputs: Sequence[ir.Value], name: str, **attributes: int
) -> ir.Value:
    node = ir.node(operator, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    return output
