"""Folds BatchNormalization into the Conv, ConvTranspose or Gemm before it.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta = s * x + (beta - s * mean)

with s = gamma / sqrt(variance + epsilon), computed in double precision. Quantization needs it: the
weights that run are the folded ones.

Source: Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import (
    add_initializer,
    bypass,
    constant_of,
    float_attribute,
    free_name,
    int_attribute,
    names_in,
)

Array = np.ndarray[Any, np.dtype[Any]]

_HOSTS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class Affine:
    """What a BatchNormalization does per channel: x -> scale * x + shift (float64)."""

    scale: Array
    shift: Array


def fold_batchnorm(model: ir.Model) -> int:
    """The number of BatchNormalization nodes folded away; those that do not fit stay.

    In place. A weight shared with another node is copied, so the other node keeps its own.
    """
    taken = names_in(model)
    folded = 0
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "BatchNormalization" and node.domain == "":
                folded += _fold(node, taken)
    return folded


def _fold(node: ir.Node, taken: set[str]) -> bool:
    affine = _affine(node)
    source = node.inputs[0]
    host = source.producer() if source is not None else None
    if affine is None or host is None or source is None or not _is_host(host, source):
        return False
    weight = constant_of(host.inputs[1])
    bias = (
        constant_of(host.inputs[2]) if len(host.inputs) > 2 and host.inputs[2] is not None else np.zeros(())
    )
    if weight is None or bias is None:
        return False
    old_bias = _bias_vector(host, bias, len(affine.scale))
    scaled = _scaled_weight(host, weight, affine.scale)
    if scaled is None or old_bias is None or host.graph is None:
        return False
    new_bias = old_bias * affine.scale + affine.shift
    for index, array in ((1, scaled), (2, new_bias)):
        _set_input(host, index, array.astype(weight.dtype), taken)
    if "beta" in host.attributes:
        host.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    bypass(node, source)
    return True


def _is_host(host: ir.Node, source: ir.Value) -> bool:
    alone = len(source.uses()) == 1 and not source.is_graph_output()
    return alone and host.domain == "" and host.op_type in _HOSTS


def _affine(node: ir.Node) -> Affine | None:
    parameters = [constant_of(value) for value in node.inputs[1:5]]
    if int_attribute(node, "training_mode", 0) or len(parameters) < 4:
        return None
    gamma, beta, mean, variance = (None if one is None else one.astype(np.float64) for one in parameters)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    return Affine(scale, beta - scale * mean)


def _scaled_weight(host: ir.Node, weight: Array, scale: Array) -> Array | None:
    wide = weight.astype(np.float64)
    if host.op_type == "Conv":
        return _along(wide, scale, 0)
    if host.op_type == "Gemm":
        return _along(wide, scale, 0 if int_attribute(host, "transB", 0) else 1)
    groups = int_attribute(host, "group", 1)
    split = wide.reshape(groups, wide.shape[0] // groups, *wide.shape[1:])
    if groups * split.shape[2] != len(scale):
        return None
    factors = scale.reshape(groups, 1, -1, *(1,) * (split.ndim - 3))
    scaled: Array = (split * factors).reshape(wide.shape)
    return scaled


def _along(weight: Array, scale: Array, axis: int) -> Array | None:
    if weight.shape[axis] != len(scale):
        return None
    shape = [1] * weight.ndim
    shape[axis] = -1
    scaled: Array = weight * scale.reshape(shape)
    return scaled


def _bias_vector(host: ir.Node, bias: Array, channels: int) -> Array | None:
    if bias.size not in (1, channels) or bias.shape[-1:] not in ((), (bias.size,)):
        return None
    beta = float_attribute(host, "beta", 1.0) if host.op_type == "Gemm" else 1.0
    vector: Array = np.broadcast_to(beta * bias.astype(np.float64).reshape(-1), (channels,))
    return vector


def _set_input(host: ir.Node, index: int, array: Array, taken: set[str]) -> None:
    old = host.inputs[index] if index < len(host.inputs) else None
    stem = (
        old.name
        if old is not None and old.name
        else f"{host.name or host.op_type}.{('weight', 'bias')[index - 1]}"
    )
    if old is not None and len(old.uses()) == 1 and old.is_initializer() and old.graph is host.graph:
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    if host.graph is None:
        return
    value = add_initializer(host.graph, free_name(stem, taken), array)
    if index >= len(host.inputs):
        host.resize_inputs(index + 1)
    host.replace_input_with(index, value)
