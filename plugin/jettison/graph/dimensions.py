"""Names the dynamic dimensions: every open dimension of an input gets one clean name, the batch is `batch`.

Exporters write `?`, the empty name or -1 for several dimensions that differ, and TensorRT then takes
them for one ("contradictory IOptimizationProfile").
"""

from __future__ import annotations

import re

import onnx_ir as ir

from jettison.graph.inference import is_unnamed

BATCH = "batch"


def name_dimensions(model: ir.Model) -> None:
    """Rename dimensions in place, in the main graph's inputs, outputs and values.

    The open first axis of the first input that has one becomes `batch` wherever its name appears. Open
    axes of inputs and outputs without a usable name become `batch` where they come first, otherwise
    `<value>_dim<axis>`; those of inner values become unknown, for inference to fill.
    """
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    renames = _renames(inputs)
    for value in (*inputs, *model.graph.outputs):
        value.shape = _named(value.shape, renames, _identifier(value.name or "value"))
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = _named(value.shape, renames, None)


def _renames(inputs: list[ir.Value]) -> dict[str, str]:
    for value in inputs:
        if value.shape is None or value.shape.rank() == 0:
            continue
        first = value.shape[0]
        if is_unnamed(first):
            return {}
        if isinstance(first, ir.SymbolicDim):
            return {str(first.value): BATCH}
    return {}


def _named(shape: ir.Shape | None, renames: dict[str, str], owner: str | None) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(_size(size, axis, renames, owner) for axis, size in enumerate(shape))


def _size(
    size: int | ir.SymbolicDim, axis: int, renames: dict[str, str], owner: str | None
) -> int | str | None:
    if not is_unnamed(size):
        return size if isinstance(size, int) else renames.get(str(size.value), str(size.value))
    if owner is None:
        return None
    return BATCH if axis == 0 else f"{owner}_dim{axis}"


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_") or "value"
