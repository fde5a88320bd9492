"""A copy of a graph that reports the largest magnitude of each channel of values inside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from jettison.graph.observe import append, reporting
from jettison.graph.qdq import Editor


def peak_name(value: str) -> str:
    """The output that holds max|x| of each channel of that value: float32, (channels,)."""
    return f"{value}:peak"


def total_name(value: str) -> str:
    """The output that holds the sum of |x|, which is NaN where any element is: extremes pass over NaN."""
    return f"{value}:total"


def peaked(model: ir.Model, axes: Mapping[str, int]) -> ir.Model:
    """A copy whose outputs are peaks and totals of these values only, each with its axis of channels."""
    return reporting(
        model, lambda editor: [found for name, axis in axes.items() for found in _report(editor, name, axis)]
    )


def _report(editor: Editor, name: str, axis: int) -> tuple[ir.Value, ir.Value]:
    value = editor.values[name]
    if value.shape is None:
        raise ValueError(f"the rank of {name!r} is not known")
    others = [other for other in range(value.shape.rank()) if other != axis]
    over = editor.constant(f"{name}:others", np.array(others, np.int64))
    magnitude = append(editor.graph, "Abs", [value], f"{name}:magnitude")
    return (
        append(editor.graph, "ReduceMax", [magnitude, over], peak_name(name), keepdims=0),
        append(editor.graph, "ReduceSum", [magnitude], total_name(name), keepdims=0),
    )
