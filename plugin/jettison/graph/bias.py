"""Makes outputs of weighted nodes larger by a constant for each channel, in the bias or where it would be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import constant_of, float_attribute, float_constant, free_name, names_in
from jettison.graph.linear import merge_bias
from jettison.graph.qdq import Editor

Amounts = np.ndarray[Any, np.dtype[np.float32]]
_BIAS = 2


def add_to_biases(model: ir.Model, amounts: Mapping[str, Amounts]) -> ir.Model:
    """A copy in which the output of each named node is larger by so much for each of its channels.

    Conv, ConvTranspose and Gemm get it in their bias; a MatMul in the constant that is added to it, or in
    an addition of its own. Values that others read keep their names. The weights are shared, not copied.

    Args:
        model: A clean model; the biases of the nodes must be constant.
        amounts: float32, (channels,), by the node's name.
    """
    copy = model.clone()
    editor = Editor(copy)
    taken = names_in(copy)
    new_nodes = sum(_add(editor, editor.nodes[name], amount, taken) for name, amount in amounts.items())
    if new_nodes:
        merge_bias(copy)
    editor.drop_unused()
    return copy


def _add(editor: Editor, node: ir.Node, amount: Amounts, taken: set[str]) -> bool:
    """Add to one node; True where that took a new node."""
    if node.op_type in ("Conv", "ConvTranspose") or _takes_bias(node):
        _widen(editor, node, amount)
        return False
    addition = _addition_after(node)
    if addition is None:
        _add_behind(editor, node, amount, taken)
        return True
    index = 1 if addition.inputs[0] is node.outputs[0] else 0
    total = float_constant(addition.inputs[index]) + amount
    addition.replace_input_with(index, editor.constant(f"{node.name}_shift", total))
    return False


def _takes_bias(node: ir.Node) -> bool:
    """Whether a Gemm can hold a bias; one with factors and no bias runs on integers only without one."""
    if node.op_type != "Gemm" or float_attribute(node, "beta", 1.0) == 0.0:
        return False
    return _bias_of(node) is not None or float_attribute(node, "alpha", 1.0) == 1.0


def _bias_of(node: ir.Node) -> ir.Value | None:
    return node.inputs[_BIAS] if len(node.inputs) > _BIAS else None


def _widen(editor: Editor, node: ir.Node, amount: Amounts) -> None:
    bias = _bias_of(node)
    share = amount / np.float32(float_attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0)
    total = share if bias is None else float_constant(bias) + share
    node.resize_inputs(_BIAS + 1)
    node.replace_input_with(_BIAS, editor.constant(f"{node.name}_shifted", total.astype(np.float32)))


def _addition_after(node: ir.Node) -> ir.Node | None:
    """The node that adds a constant to this one's output, for that output alone."""
    output = node.outputs[0]
    readers = [usage.node for usage in output.uses()]
    if len(readers) != 1 or output.is_graph_output() or readers[0].op_type != "Add":
        return None
    others = [value for value in readers[0].inputs if value is not output]
    return readers[0] if len(others) == 1 and constant_of(others[0]) is not None else None


def _add_behind(editor: Editor, node: ir.Node, amount: Amounts, taken: set[str]) -> None:
    """An addition right behind the node, which takes over the name of the node's output."""
    output = node.outputs[0]
    constant = editor.constant(f"{node.name}_shift", amount)
    name = free_name(f"{node.name}_shifted", set(editor.nodes))
    addition = ir.node("Add", [output, constant], name=name)
    shifted = addition.outputs[0]
    output.replace_all_uses_with(shifted, replace_graph_outputs=True)
    addition.replace_input_with(0, output)
    shifted.name, shifted.shape, shifted.type = output.name, output.shape, output.type
    output.name = free_name(f"{output.name}_unshifted", taken)
    editor.graph.insert_after(node, addition)
