"""A copy of a graph that reports what weighted layers multiply: some of each layer's input patches.

A patch is what one output sums over, in the order in which kernels walk it: (kernel height, kernel width,
input channel) for a convolution, a row for a product. Only every few output positions are reported, so that
what leaves the session is small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.graph.clean import remove_unused
from jettison.graph.edit import int_attribute
from jettison.graph.observe import append
from jettison.graph.qdq import Editor

_POSITIONS_PER_AXIS = 7
"""Of a map's rows and columns at most so many are reported."""
_ROW_STEP = 5
"""Of a product's rows every fifth is reported."""
_UNKNOWN_STEP = 5
"""Of rows and columns whose number is open every fifth is reported."""
_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel moves, one number for each axis; `steps`: every how many positions count."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    steps: tuple[int, ...]


def patches_name(node: str) -> str:
    """The output that holds a node's patches.

    For a convolution (batch, kernel positions * channels, rows, columns), for a product (rows, channels).
    """
    return f"{node}:patches"


def window_of(node: ir.Node) -> Window | None:
    """How a convolution's kernel moves, None where its padding shows only when it runs."""
    weight, output = node.inputs[1], node.outputs[0]
    if (
        weight is None
        or weight.shape is None
        or node.attributes.get_string("auto_pad", "NOTSET")
        not in (
            "NOTSET",
            "VALID",
        )
    ):
        return None
    kernel = tuple(int(size) for size in weight.shape.numpy()[2:])
    rank = len(kernel)
    sizes = output.shape[2:] if output.shape is not None else [None] * rank
    steps = [
        math.ceil(size / _POSITIONS_PER_AXIS) if isinstance(size, int) else _UNKNOWN_STEP for size in sizes
    ]
    return Window(
        kernel,
        tuple(node.attributes.get_ints("strides", [1] * rank)),
        tuple(node.attributes.get_ints("dilations", [1] * rank)),
        tuple(node.attributes.get_ints("pads", [0] * 2 * rank)),
        tuple(steps),
    )


def with_patches(model: ir.Model, nodes: Sequence[str]) -> ir.Model:
    """A copy whose outputs are these nodes' patches only; all that these do not need is gone."""
    copy = model.clone()
    editor = Editor(copy)
    outputs = [_patches(editor, editor.nodes[name]) for name in nodes]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    remove_unused(copy)
    return copy


def _patches(editor: Editor, node: ir.Node) -> ir.Value:
    source, name = node.inputs[0], node.name or ""
    weight = node.inputs[1]
    if source is None or weight is None or weight.shape is None:
        raise ValueError(f"{node.op_type} {name!r} lacks an input")
    if node.op_type != "Conv":
        inner = weight.shape[1] if int_attribute(node, "transB", 0) else weight.shape[0]
        shape = editor.constant(f"{name}:rows", np.array([-1, int(inner)], np.int64))
        rows = append(editor.graph, "Reshape", [source, shape], f"{name}:flat")
        return _sliced(
            editor, rows, patches_name(name), starts=[0], ends=[_END], steps=[_ROW_STEP], first_axis=0
        )
    window = window_of(node)
    if window is None:
        raise ValueError(f"{name!r} pads by a rule of its own")
    if any(window.pads):
        rank = len(window.kernel)
        pads = [0, 0, *window.pads[:rank], 0, 0, *window.pads[rank:]]
        amounts = editor.constant(f"{name}:pads", np.array(pads, np.int64))
        source = append(editor.graph, "Pad", [source, amounts], f"{name}:padded")
    taps = list(itertools.product(*(range(size) for size in window.kernel)))
    slices = [_tap(editor, source, window, tap, f"{name}:tap{i}") for i, tap in enumerate(taps)]
    return append(editor.graph, "Concat", slices, patches_name(name), axis=1)


def _tap(editor: Editor, source: ir.Value, window: Window, tap: tuple[int, ...], name: str) -> ir.Value:
    """What one kernel position reads at the reported output positions."""
    starts, ends, steps = [], [], []
    for axis, offset in enumerate(tap):
        before = offset * window.dilations[axis]
        behind = (window.kernel[axis] - 1 - offset) * window.dilations[axis]
        starts.append(before + window.strides[axis] * (window.steps[axis] // 2))
        ends.append(-behind if behind else _END)
        steps.append(window.strides[axis] * window.steps[axis])
    return _sliced(editor, source, name, starts=starts, ends=ends, steps=steps, first_axis=2)


def _sliced(
    editor: Editor,
    source: ir.Value,
    name: str,
    *,
    starts: list[int],
    ends: list[int],
    steps: list[int],
    first_axis: int,
) -> ir.Value:
    axes = [first_axis + index for index in range(len(starts))]
    arrays = (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
    constants = [editor.constant(f"{name}:{title}", np.array(array, np.int64)) for title, array in arrays]
    return append(editor.graph, "Slice", [source, *constants], name)
