"""Where a node takes a factor for each channel into its constants: in what it makes, or in what it reads.

For a layer y = W x + b, dividing channel i of y by f_i divides row i of W and b_i; where channel j of x was
divided by f_j, column j of W is multiplied by it. The scale and the bias of a normalization take factors of
what it makes, and a constant with a number for each channel that is multiplied takes both: a normalization
that an exporter has taken apart ends so.
Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1; Xiao et al. 2022 (arXiv 2211.10438), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import int_attribute, is_constant

Array = np.ndarray[Any, np.dtype[np.float32]]

_IMAGE_LAYERS = frozenset({"Conv", "ConvTranspose"})
_LAYERS = _IMAGE_LAYERS | {"Gemm", "MatMul"}
_IMAGE_NORMS = frozenset({"BatchNormalization", "InstanceNormalization"})
_SCALINGS = frozenset({"Div", "Mul"})
_WEIGHT, _BIAS = 1, 2
"""Inputs of layers, and of normalizations, whose scale stands where a layer has its weight."""


@dataclass(frozen=True)
class Change:
    """A constant of a node, by its input's number, that is divided by the factor or multiplied by it.

    Channels lie along `axis`. With `groups`, each of so many equal parts of axis 0 has its own of them
    there, as a grouped convolution reads them.
    """

    node: str
    input: int
    axis: int
    divides: bool
    groups: int = 1

    def applied(self, constant: Array, factors: Array) -> Array:
        """The constant after the change; `factors`: (channels,)."""
        parts, sizes = self._parts(constant), [self.groups, *[1] * constant.ndim]
        sizes[self.axis + 1] = len(factors) // self.groups
        amounts = factors.reshape(sizes)
        scaled = parts / amounts if self.divides else parts * amounts
        changed: Array = scaled.reshape(constant.shape)
        return changed

    def peaks(self, constant: Array) -> Array:
        """The largest magnitude of each channel in the constant: (channels,)."""
        parts = np.abs(self._parts(constant))
        others = tuple(axis for axis in range(1, parts.ndim) if axis != self.axis + 1)
        peaks: Array = parts.max(axis=others).reshape(-1)
        return peaks

    def _parts(self, constant: Array) -> Array:
        return constant.reshape(self.groups, constant.shape[0] // self.groups, *constant.shape[1:])


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies what it reads by a constant weight."""
    if node.domain != "" or node.op_type not in _LAYERS or not is_constant(node.inputs[_WEIGHT]):
        return False
    return node.op_type in _IMAGE_LAYERS or len(_sizes(node.inputs[_WEIGHT])) == 2


def channel_axis(node: ir.Node) -> int | None:
    """The axis of channels in what the node makes, if constants of it have a number for each of them."""
    shape = node.outputs[0].shape if node.domain == "" and node.outputs else None
    if shape is None:
        return None
    rank = shape.rank()
    if is_layer(node):
        return 1 if node.op_type in _IMAGE_LAYERS else rank - 1
    if node.op_type in _SCALINGS:
        return _scaled_axis(node, rank)
    if node.op_type == "LayerNormalization" and int_attribute(node, "axis", -1) in (-1, rank - 1):
        return rank - 1
    return 1 if node.op_type in _IMAGE_NORMS else None


def made_smaller(node: ir.Node, axis: int) -> tuple[Change, ...] | None:
    """The changes that divide what the node makes by the factor along that axis, or None."""
    if channel_axis(node) != axis:
        return None
    if node.op_type in _SCALINGS:
        return _fitting(node, [_scaling(node, divides=node.op_type == "Mul")], node.outputs[0], axis)
    weight = _weight(node, makes=True) if is_layer(node) else Change(node.name or "", _WEIGHT, 0, True)
    changes, bias = [weight], _input(node, _BIAS)
    if bias is not None:
        changes.append(Change(node.name or "", _BIAS, len(_sizes(bias)) - 1, True))
    return _fitting(node, changes, node.outputs[0], axis)


def read_smaller(node: ir.Node, port: int, axis: int) -> tuple[Change, ...] | None:
    """The changes that make up for an input, by its number, that was divided along that axis, or None."""
    value = node.inputs[port]
    if value is None or value.shape is None or channel_axis(node) != axis:
        return None
    if node.op_type in _SCALINGS and value.shape.rank() == (node.outputs[0].shape or ir.Shape([])).rank():
        return _fitting(node, [_scaling(node, divides=node.op_type == "Div")], value, axis)
    if port != 0 or not is_layer(node) or int_attribute(node, "transA", 0):
        return None
    return _fitting(node, [_weight(node, makes=False)], value, axis)


def _fitting(node: ir.Node, changes: list[Change], value: ir.Value, axis: int) -> tuple[Change, ...] | None:
    """The changes, where each constant is float32 and has a number for each channel of the value.

    A weight that other nodes read too is never changed: each of them would need a copy of its own.
    """
    channels = None if value.shape is None else value.shape[axis]
    for change in changes:
        constant = node.inputs[change.input]
        sizes = _sizes(constant)
        if constant is None or not sizes or constant.dtype != ir.DataType.FLOAT:
            return None
        if sizes[change.axis] * change.groups != channels:
            return None
        if is_layer(node) and change.input == _WEIGHT and len(constant.uses()) > 1:
            return None
    return tuple(changes) if node.name else None


def _weight(node: ir.Node, *, makes: bool) -> Change:
    """The weight, along the channels that the layer makes or reads."""
    makes_first = node.op_type == "Conv" or int_attribute(node, "transB", 0) == 1
    axis = 0 if makes == makes_first else 1
    groups = int_attribute(node, "group", 1) if axis == 1 else 1
    return Change(node.name or "", _WEIGHT, axis, divides=makes, groups=groups)


def _scaling(node: ir.Node, *, divides: bool) -> Change:
    port = _constant_port(node)
    sizes = _sizes(node.inputs[port])
    return Change(node.name or "", port, max(range(len(sizes)), key=sizes.__getitem__), divides)


def _scaled_axis(node: ir.Node, rank: int) -> int | None:
    """The only axis of the output along which the constant of a Mul or Div has several numbers."""
    sizes = _sizes(node.inputs[_constant_port(node)])
    axes = [rank - len(sizes) + axis for axis, size in enumerate(sizes) if size != 1]
    return axes[0] if len(axes) == 1 else None


def _constant_port(node: ir.Node) -> int:
    """The input that may hold the constant of a Mul or Div; a Div takes factors into its divisor only."""
    return 0 if node.op_type == "Mul" and is_constant(node.inputs[0]) else 1


def _input(node: ir.Node, number: int) -> ir.Value | None:
    return node.inputs[number] if number < len(node.inputs) else None


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    """The sizes of a constant; () where the value is none, or a single number."""
    if value is None or value.const_value is None or not is_constant(value):
        return ()
    return tuple(int(size) for size in value.const_value.shape.numpy())
