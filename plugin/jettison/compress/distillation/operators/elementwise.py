"""Operators that work number by number: arithmetic, activations, comparisons, casts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from jettison.compress.distillation.operators.node import (
    TYPES,
    Build,
    Compute,
    NoGradientError,
    always,
    beside,
    constant_input,
    has_input,
    text,
)
from jettison.graph.edit import float_attribute, int_attribute


def _chain(function: Callable[[Tensor, Tensor], Tensor]) -> Build:
    """An operator of any number of inputs."""
    return always(lambda *values: functools.reduce(function, values))


def _paired(function: Callable[[Tensor, Tensor], Tensor]) -> Build:
    """An operator of two inputs, of which one may be a number on the CPU."""

    def compute(left: Tensor, right: Tensor) -> Tensor:
        return function(beside(left, right) if right.is_cuda else left, beside(right, left))

    return always(compute)


def _divide(left: Tensor, right: Tensor) -> Tensor:
    mode = None if left.is_floating_point() else "trunc"
    return torch.div(left, right, rounding_mode=mode)


def _power(left: Tensor, right: Tensor) -> Tensor:
    return torch.pow(left, right).to(left.dtype)


def _mean(*values: Tensor) -> Tensor:
    return functools.reduce(torch.add, values) / len(values)


def _clip(node: ir.Node) -> Compute:
    bounds = [constant_input(node, index) for index in (1, 2)]
    computed = any(
        bound is None and has_input(node, index) for index, bound in zip((1, 2), bounds, strict=True)
    )
    if computed:
        return lambda x, low=None, high=None: torch.clamp(x, low, high)
    lowest, highest = (None if bound is None else bound.item() for bound in bounds)
    if lowest is None and highest is None:
        return lambda x, *_: x
    return lambda x, *_: torch.clamp(x, lowest, highest)


def _leaky_relu(node: ir.Node) -> Compute:
    return functools.partial(functional.leaky_relu, negative_slope=float_attribute(node, "alpha", 0.01))


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _elu(node: ir.Node) -> Compute:
    return functools.partial(functional.elu, alpha=float_attribute(node, "alpha", 1.0))


def _hard_sigmoid(node: ir.Node) -> Compute:
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def _hard_swish(x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0.0, 1.0)


def _gelu(node: ir.Node) -> Compute:
    return functools.partial(functional.gelu, approximate=text(node, "approximate", "none"))


def _swish(node: ir.Node) -> Compute:
    alpha = float_attribute(node, "alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _softmax(function: Callable[..., Tensor]) -> Build:
    return lambda node: functools.partial(function, dim=int_attribute(node, "axis", -1))


def _where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(beside(condition, one), one, beside(other, one))


def _cast(node: ir.Node) -> Compute:
    kind = TYPES.get(int_attribute(node, "to", 0))
    if kind is None:
        raise NoGradientError(node, f"casts to {ir.DataType(int_attribute(node, 'to', 0))}")
    return lambda x: x.to(kind)


def _cast_like(x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.dtype)


def _modulo(node: ir.Node) -> Compute:
    modulo: Compute = torch.fmod if int_attribute(node, "fmod", 0) else torch.remainder
    return modulo


ELEMENTWISE: dict[str, Build] = {
    "Abs": always(torch.abs),
    "Add": _paired(torch.add),
    "And": _paired(torch.logical_and),
    "Cast": _cast,
    "CastLike": always(_cast_like),
    "Clip": _clip,
    "Cos": always(torch.cos),
    "Div": _paired(_divide),
    "Elu": _elu,
    "Equal": _paired(torch.eq),
    "Erf": always(torch.erf),
    "Exp": always(torch.exp),
    "Gelu": _gelu,
    "Greater": _paired(torch.gt),
    "GreaterOrEqual": _paired(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": always(_hard_swish),
    "Identity": always(lambda x: x),
    "IsNaN": always(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _paired(torch.lt),
    "LessOrEqual": _paired(torch.le),
    "Log": always(torch.log),
    "LogSoftmax": _softmax(functional.log_softmax),
    "Max": _chain(torch.maximum),
    "Mean": always(_mean),
    "Min": _chain(torch.minimum),
    "Mish": always(functional.mish),
    "Mod": _modulo,
    "Mul": _paired(torch.mul),
    "Neg": always(torch.neg),
    "Not": always(torch.logical_not),
    "Or": _paired(torch.logical_or),
    "PRelu": always(_prelu),
    "Pow": _paired(_power),
    "Reciprocal": always(torch.reciprocal),
    "Relu": always(torch.relu),
    "Sigmoid": always(torch.sigmoid),
    "Sin": always(torch.sin),
    "Softmax": _softmax(functional.softmax),
    "Softplus": always(functional.softplus),
    "Softsign": always(functional.softsign),
    "Sqrt": always(torch.sqrt),
    "Sub": _paired(torch.sub),
    "Sum": _chain(torch.add),
    "Swish": _swish,
    "Tanh": always(torch.tanh),
    "Where": always(_where),
    "Xor": _paired(torch.logical_xor),
}
