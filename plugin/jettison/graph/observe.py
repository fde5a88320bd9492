"""A copy of a graph that reports on values inside it: their extremes, and a part of their elements.

The reduction happens in the graph, so that not one activation leaves the session as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.graph.clean import remove_unused
from jettison.graph.qdq import Editor

_STRIDES = ((4096, 11), (4096 * 11, 31))
"""Elements from which on only every 11th or 31st is reported: primes that divide no usual extent, so that
the part is never one column of an image or every third channel."""


def stride_of(elements: int) -> int:
    """Of which stride a value of so many elements is reported: 1 for all of them."""
    return max((stride for least, stride in _STRIDES if elements >= least), default=1)


@dataclass(frozen=True)
class Observation:
    """What to report about one value.

    `stride`: every stride-th element of the flattened value is reported; None where its size is open, and
    the stride follows from the size of each run. `low`: the lowest value where the graph makes it certain
    (0 behind a Relu), which then is not searched for.
    """

    value: str
    stride: int | None
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

    @property
    def total(self) -> str:
        """The output that holds the sum, which is NaN where any element is: extremes pass over NaN."""
        return f"{self.value}:sum"


def reporting(model: ir.Model, report: Callable[[Editor], Sequence[ir.Value]]) -> ir.Model:
    """A copy whose outputs are only the values that `report` adds to it.

    All that these do not need is gone; weights are shared, not copied.
    """
    copy = model.clone()
    outputs = report(Editor(copy))
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    remove_unused(copy)
    return copy


def observed(model: ir.Model, observations: Sequence[Observation]) -> ir.Model:
    """A copy whose outputs are the observations only; the weights are shared, not copied."""
    copy = model.clone()
    editor = Editor(copy)
    copy.graph.outputs.clear()
    flat = editor.constant("observe:flat", np.array([-1], np.int64))
    start = editor.constant("observe:start", np.array([0], np.int64))
    end = editor.constant("observe:end", np.array([np.iinfo(np.int64).max], np.int64))
    strides = _Strides(editor)
    for observation in observations:
        source, name = editor.values[observation.value], observation.value
        row = append(copy.graph, "Reshape", [source, flat], f"{name}:flat")
        step = strides.of(row, name) if observation.stride is None else strides.known(observation.stride)
        outputs = [
            append(copy.graph, "Slice", [row, start, end, start, step], observation.sample),
            append(copy.graph, "ReduceMax", [row], observation.highest, keepdims=0),
            append(copy.graph, "ReduceSum", [row], observation.total, keepdims=0),
        ]
        if observation.low is None:
            outputs.append(append(copy.graph, "ReduceMin", [row], observation.lowest, keepdims=0))
        copy.graph.outputs.extend(outputs)
    return copy


class _Strides:
    """Strides as values of the graph: constants, each once, or found from a row's size when it runs."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._constants: dict[int, ir.Value] = {}

    def known(self, number: int) -> ir.Value:
        """The constant of that number."""
        if number not in self._constants:
            array = np.array([number], np.int64)
            self._constants[number] = self._editor.constant(f"observe:number{number}", array)
        return self._constants[number]

    def of(self, row: ir.Value, name: str) -> ir.Value:
        """The stride for a row whose size shows at run time, by the rule of `stride_of`."""
        graph = self._editor.graph
        size = append(graph, "Size", [row], f"{name}:size", dtype=ir.DataType.INT64)
        stride = self.known(1)
        for least, longer in _STRIDES:
            stem = f"{name}:stride{longer}"
            reached = [size, self.known(least)]
            is_long = append(graph, "GreaterOrEqual", reached, f"{stem}_reached", dtype=ir.DataType.BOOL)
            chosen = [is_long, self.known(longer), stride]
            stride = append(graph, "Where", chosen, stem, dtype=ir.DataType.INT64)
        return stride


def append(
    graph: ir.Graph,
    operator: str,
    inputs: Sequence[ir.Value],
    name: str,
    *,
    dtype: ir.DataType = ir.DataType.FLOAT,
    **attributes: int | tuple[int, ...],
) -> ir.Value:
    """The output, of that name, of a new node at the graph's end."""
    node = ir.node(operator, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(dtype)
    graph.append(node)
    return output
