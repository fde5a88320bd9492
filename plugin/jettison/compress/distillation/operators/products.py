"""Operators that multiply by weights: convolutions, matrix products and normalizations, as functions.

`distillation/layers.py` makes submodules of those whose weights are plain constants.
"""

from __future__ import annotations

import functools

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from jettison.compress.distillation.operators.node import Build, Compute, NoGradientError, always, text
from jettison.compress.distillation.operators.windows import Windows, windows_of
from jettison.graph.edit import float_attribute, int_attribute

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def windows_by_weight(node: ir.Node) -> Windows:
    """The windows of a convolution; their size is an attribute, or else that of the weight."""
    attribute = node.attributes.get("kernel_shape")
    weight = node.inputs[1]
    if attribute is not None:
        kernel = tuple(attribute.as_ints())
    elif weight is not None and weight.shape is not None and weight.shape.is_static():
        kernel = tuple(weight.shape.numpy()[2:])
    else:
        raise NoGradientError(node, "has a weight of unknown shape")
    if len(kernel) not in _CONV:
        raise NoGradientError(node, f"has {len(kernel)} spatial axes, expected 1 to 3")
    return windows_of(node, kernel)


def _conv(node: ir.Node) -> Compute:
    found, group = windows_by_weight(node), int_attribute(node, "group", 1)
    convolve = _CONV[len(found.kernel)]

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        inside, padding = (x, found.before) if found.is_even else (found.padded(x), 0)
        return convolve(inside, weight, bias, found.strides, padding, found.dilations, group)

    return compute


def transposed_windows(node: ir.Node) -> tuple[Windows, tuple[int, ...]]:
    """The windows of a transposed convolution, and what its output is longer by."""
    found = windows_by_weight(node)
    if found.same or "output_shape" in node.attributes:
        raise NoGradientError(node, "computes its paddings from the size of its output")
    attribute = node.attributes.get("output_padding")
    longer = (0,) * len(found.kernel) if attribute is None else tuple(attribute.as_ints())
    return found, longer


def _conv_transpose(node: ir.Node) -> Compute:
    found, longer = transposed_windows(node)
    group, convolve = int_attribute(node, "group", 1), _TRANSPOSED[len(found.kernel)]

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if found.is_even:
            return convolve(x, weight, bias, found.strides, found.before, longer, group, found.dilations)
        whole = convolve(x, weight, bias, found.strides, 0, longer, group, found.dilations)
        return cropped(whole, found)

    return compute


def cropped(x: Tensor, windows: Windows) -> Tensor:
    """A transposed convolution's output without its paddings."""
    cuts = [
        slice(before, size - after)
        for before, after, size in zip(windows.before, windows.after, x.shape[2:], strict=True)
    ]
    places = (slice(None), slice(None), *cuts)
    return x[places]


def _gemm(node: ir.Node) -> Compute:
    alpha, beta = float_attribute(node, "alpha", 1.0), float_attribute(node, "beta", 1.0)
    turns = [bool(int_attribute(node, name, 0)) for name in ("transA", "transB")]

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        left, right = (value.T if turn else value for value, turn in zip((a, b), turns, strict=True))
        product = alpha * (left @ right) if alpha != 1.0 else left @ right
        if c is None:
            return product
        return product + (beta * c if beta != 1.0 else c)

    return compute


def _einsum(node: ir.Node) -> Compute:
    return functools.partial(torch.einsum, text(node, "equation", ""))


def _batchnorm(node: ir.Node) -> Compute:
    epsilon = float_attribute(node, "epsilon", 1e-5)
    if int_attribute(node, "training_mode", 0):
        raise NoGradientError(node, "is in training mode", "Export the model for inference")
    return lambda x, scale, bias, mean, variance: functional.batch_norm(
        x, mean, variance, scale, bias, training=False, eps=epsilon
    )


def _layernorm(node: ir.Node) -> Compute:
    axis, epsilon = int_attribute(node, "axis", -1), float_attribute(node, "epsilon", 1e-5)
    if len(node.outputs) > 1:
        raise NoGradientError(node, "gives its mean and deviation")

    def compute(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        normal = functional.layer_norm(x, x.shape[axis % x.ndim :], None, None, epsilon) * scale
        return normal if bias is None else normal + bias

    return compute


def _rmsnorm(node: ir.Node) -> Compute:
    axis, epsilon = int_attribute(node, "axis", -1), float_attribute(node, "epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor) -> Tensor:
        squares = (x * x).mean(tuple(range(axis % x.ndim, x.ndim)), keepdim=True)
        return x * torch.rsqrt(squares + epsilon) * scale

    return compute


def _instancenorm(node: ir.Node) -> Compute:
    epsilon = float_attribute(node, "epsilon", 1e-5)
    return lambda x, scale, bias: functional.instance_norm(x, None, None, scale, bias, eps=epsilon)


def _groupnorm(node: ir.Node) -> Compute:
    groups, epsilon = int_attribute(node, "num_groups", 1), float_attribute(node, "epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if scale.numel() != x.shape[1]:  # before opset 21 there is one scale for each group
            scale, bias = (value.repeat_interleave(x.shape[1] // groups) for value in (scale, bias))
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return compute


PRODUCTS: dict[str, Build] = {
    "BatchNormalization": _batchnorm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _groupnorm,
    "InstanceNormalization": _instancenorm,
    "LayerNormalization": _layernorm,
    "MatMul": always(torch.matmul),
    "RMSNormalization": _rmsnorm,
}
