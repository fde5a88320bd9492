"""Small edits that every graph change is made of: read a constant, add one, find a free name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.core.errors import ModelError


def constant_of(value: ir.Value | None) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The array of a constant: an initializer that no caller can override, or a Constant node's output."""
    if value is None or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def float_constant(value: ir.Value | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The array of a value that is a constant, as float32."""
    found = constant_of(value)
    if found is None:
        raise ValueError(f"{value!r} is no constant")
    return np.asarray(found, np.float32)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is known before the model runs, told without reading it."""
    return value is not None and not value.is_graph_input() and value.const_value is not None


def names_in(model: ir.Model) -> set[str]:
    """Every value name in use, subgraphs included."""
    names: set[str] = set()
    for graph in model.graphs():
        names.update(value.name for value in (*graph.inputs, *graph.initializers.values()) if value.name)
        names.update(value.name for node in graph for value in node.outputs if value.name)
    return names


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or `wanted_1` and so on where it is taken; the answer is added to `taken`."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray[Any, np.dtype[Any]]) -> ir.Value:
    """A new initializer of that graph.

    Raises:
        ModelError: The name is taken by another initializer.
    """
    if name in graph.initializers:
        raise ModelError(
            f"initializer {name!r}",
            detail="expected a free name, found it taken",
            fix="This is a defect of Jettison: please report it with the model",
        )
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """The attribute's number, or the default where it is not set."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """The attribute's whole number, or the default where it is not set."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Remove a node whose only output is replaced by `source`, which takes over the output's name.

    `source` must be made by a node and must not itself be a graph output.
    """
    output = node.outputs[0]
    name, dtype = output.name, output.type
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    source.name = name
    source.type = dtype or source.type
    source.shape = source.shape if source.shape is not None else output.shape
