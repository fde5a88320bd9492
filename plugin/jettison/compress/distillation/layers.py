"""Submodules of torch for nodes whose weights are plain constants that nothing else reads.

A node that has one computes after(module(before(x))). That a convolution is an `nn.Conv2d` and a product an
`nn.Linear` lets tools that walk a module's layers, as those for pruning channels, know them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jettison.compress.distillation.operators.node import constant_input, has_input
from jettison.compress.distillation.operators.products import (
    cropped,
    transposed_windows,
    windows_by_weight,
)
from jettison.compress.distillation.operators.windows import Windows
from jettison.graph.edit import float_attribute, int_attribute

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_FLAT = 2


@dataclass(frozen=True)
class Held:
    """Where a submodule holds an initializer: an attribute's name, and whether it lies transposed there."""

    name: str
    attribute: str
    is_turned: bool = False


@dataclass(frozen=True)
class LayerModule:
    """A submodule, what it holds of the graph, and what comes before and after it."""

    module: nn.Module
    holds: tuple[Held, ...]
    before: Callable[[Tensor], Tensor] | None = None
    after: Callable[[Tensor], Tensor] | None = None


def layer_module(node: ir.Node, trained: Collection[str]) -> LayerModule | None:
    """The submodule for a node, or None where it must stay a function.

    Args:
        node: The node.
        trained: Names of float initializers that are trained and read once.
    """
    build = _BUILDERS.get(node.op_type) if node.domain == "" else None
    return None if build is None else build(_Constants(node, trained))


@dataclass(frozen=True)
class _Constants:
    """A node's constant inputs, taken over by its submodule one by one."""

    node: ir.Node
    trained: Collection[str]
    holds: list[Held] = field(default_factory=list)

    def has(self, *indices: int) -> bool:
        """Whether all these inputs are trained initializers that only this node reads."""
        return all(self._name(index) in self.trained for index in indices)

    def has_or_lacks(self, index: int) -> bool:
        """Whether that input is such an initializer, or left out."""
        return not has_input(self.node, index) or self.has(index)

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of a constant input, () where there is none."""
        array = constant_input(self.node, index)
        return () if array is None else array.shape

    def take(self, module: nn.Module, index: int, attribute: str, *, turned: bool = False) -> None:
        """Let the module hold that input as a parameter of that name."""
        array = constant_input(self.node, index)
        if array is None:
            module.register_parameter(attribute, None)
            return
        flat = array.reshape(-1) if attribute == "bias" else array
        tensor = torch.from_numpy(np.array(flat.T if turned else flat, order="C"))
        module.register_parameter(attribute, nn.Parameter(tensor))
        self.holds.append(Held(self._name(index), attribute, turned))

    def _name(self, index: int) -> str:
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return (value.name if value is not None else None) or ""

    def made(self, module: nn.Module, **around: Any) -> LayerModule:
        """The submodule with what it holds."""
        return LayerModule(module, tuple(self.holds), **around)


def _conv(given: _Constants) -> LayerModule | None:
    if not given.has(1) or not given.has_or_lacks(2):
        return None
    windows, group = windows_by_weight(given.node), int_attribute(given.node, "group", 1)
    channels, inputs, *_ = given.shape(1)
    module = _CONV[len(windows.kernel)](
        inputs * group,
        channels,
        windows.kernel,
        windows.strides,
        windows.before if windows.is_even else 0,
        windows.dilations,
        group,
        device="meta",
    )
    given.take(module, 1, "weight")
    given.take(module, 2, "bias")
    return given.made(module, before=None if windows.is_even else windows.padded)


def _conv_transpose(given: _Constants) -> LayerModule | None:
    if not given.has(1) or not given.has_or_lacks(2):
        return None
    windows, longer = transposed_windows(given.node)
    group = int_attribute(given.node, "group", 1)
    inputs, channels, *_ = given.shape(1)
    module = _TRANSPOSED[len(windows.kernel)](
        inputs,
        channels * group,
        windows.kernel,
        windows.strides,
        windows.before if windows.is_even else 0,
        longer,
        group,
        dilation=windows.dilations,
        device="meta",
    )
    given.take(module, 1, "weight")
    given.take(module, 2, "bias")
    return given.made(module, after=None if windows.is_even else _Crop(windows))


@dataclass(frozen=True)
class _Crop:
    windows: Windows

    def __call__(self, x: Tensor) -> Tensor:
        return cropped(x, self.windows)


def _gemm(given: _Constants) -> LayerModule | None:
    node = given.node
    turned = not int_attribute(node, "transB", 0)
    plain = float_attribute(node, "alpha", 1.0) == 1.0 and not int_attribute(node, "transA", 0)
    scaled = has_input(node, 2) and float_attribute(node, "beta", 1.0) != 1.0
    if not plain or scaled or not given.has(1) or not given.has_or_lacks(2):
        return None
    inputs, outputs = given.shape(1) if turned else given.shape(1)[::-1]
    bias = given.shape(2)
    if bias and (bias[-1] != outputs or any(size != 1 for size in bias[:-1])):
        return None
    module = nn.Linear(inputs, outputs, device="meta")
    given.take(module, 1, "weight", turned=turned)
    given.take(module, 2, "bias")
    return given.made(module)


def _matmul(given: _Constants) -> LayerModule | None:
    if not given.has(1) or len(given.shape(1)) != _FLAT:
        return None
    module = nn.Linear(*given.shape(1), bias=False, device="meta")
    given.take(module, 1, "weight", turned=True)
    return given.made(module)


def _layernorm(given: _Constants) -> LayerModule | None:
    single = len(given.shape(1)) == 1 and len(given.shape(2)) in (0, 1) and len(given.node.outputs) == 1
    axis = int_attribute(given.node, "axis", -1)
    if not single or axis != -1 or not given.has(1) or not given.has_or_lacks(2):
        return None
    module = nn.LayerNorm(given.shape(1)[0], float_attribute(given.node, "epsilon", 1e-5), device="meta")
    given.take(module, 1, "weight")
    given.take(module, 2, "bias")
    return given.made(module)


class FrozenBatchNorm(nn.BatchNorm2d):  # type: ignore[misc]
    """Batch normalization by the statistics of the file, in training too: only scale and bias learn."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:  # noqa: ARG002, FBT001
        """Stay in the form for inference."""
        super().train(False)
        return self

    def _check_input_dim(self, _: Tensor) -> None:
        """Any number of axes will do."""


def _batchnorm(given: _Constants) -> LayerModule | None:
    mean, variance = (constant_input(given.node, index) for index in (3, 4))
    if not given.has(1, 2) or mean is None or variance is None or len(given.node.outputs) > 1:
        return None
    module = FrozenBatchNorm(given.shape(1)[0], float_attribute(given.node, "epsilon", 1e-5))
    given.take(module, 1, "weight")
    given.take(module, 2, "bias")
    module.running_mean, module.running_var = (torch.from_numpy(np.array(a)) for a in (mean, variance))
    module.train()
    return given.made(module)


_BUILDERS: dict[str, Callable[[_Constants], LayerModule | None]] = {
    "BatchNormalization": _batchnorm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "LayerNormalization": _layernorm,
    "MatMul": _matmul,
}
