"""Moves factors through junctions: the copy computes the same, with other constants.

A factor that is a power of two changes no rounding anywhere, so that the copy's outputs are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from jettison.graph.absorb import Array
from jettison.graph.edit import constant_of, free_name, names_in
from jettison.graph.junction import Junction
from jettison.graph.qdq import Editor


def rescaled(model: ir.Model, junctions: Sequence[Junction], factors: Mapping[str, Array]) -> ir.Model:
    """A copy in which values of each junction are divided by factors, for which their readers make up.

    Nodes keep their names, and so do the values that layers read. Constants that change are stored anew,
    others are shared.

    Args:
        model: The model in which the junctions were found.
        junctions: Its junctions.
        factors: float32, (channels,), positive, by the junction's name; junctions without any stay.
    """
    copy = model.clone()
    editor = Editor(copy)
    taken = names_in(copy)
    for junction in junctions:
        if junction.name in factors:
            _change(editor, junction, factors[junction.name])
            if junction.multiplied:
                _multiply(editor, junction, factors[junction.name], taken)
    editor.drop_unused()
    return copy


def _change(editor: Editor, junction: Junction, factors: Array) -> None:
    """Give nodes constants of their own that hold the factors."""
    for change in junction.changes:
        before = editor.nodes[change.node].inputs[change.input]
        array = constant_of(before)
        if before is None or array is None:
            raise ValueError(f"input {change.input} of {change.node!r} is no constant")
        after = editor.constant(f"{before.name}_rescaled", change.applied(array, factors))
        editor.rewire([(change.node, change.input)], after)


def _multiply(editor: Editor, junction: Junction, factors: Array, taken: set[str]) -> None:
    """Let layers read the value from a multiplication by 1 / f, which takes over its name."""
    value = editor.values[junction.name]
    maker = value.producer()
    if maker is None:
        raise ValueError(f"no node makes {junction.name!r}")
    inverse = editor.constant(f"{junction.name}_inverse", 1 / factors)
    name = free_name(f"{junction.name}_Rescale", set(editor.nodes))
    node = ir.node("Mul", [value, inverse], name=name)
    output = node.outputs[0]
    output.name, output.shape, output.type = value.name, value.shape, value.type
    value.name = free_name(f"{value.name}_unscaled", taken)
    editor.graph.insert_after(maker, node)
    editor.rewire([(name, 0) for name in junction.multiplied], output)
