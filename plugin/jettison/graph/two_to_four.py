"""2:4 sparsity as it is seen in a finished graph: which layers can have it, and in how many groups it holds.

A group is four consecutive input channels of one output channel at one position of the kernel (four
consecutive rows or columns along K of a matrix product). It is valid where at least two of its weights are
zero. TensorRT decides by the values alone, so this is what it will see, after quantization too.
Source: Mishra et al. 2021 (arXiv 2104.08378); NVIDIA TensorRT documentation, "Structured Sparsity".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import int_attribute
from jettison.graph.zeros import Mask, zeros_of

GROUP = 4
"""Weights in a group, and so what input channels have to be a multiple of."""
LEAST_ZEROS = 2
"""Zeros that a group needs."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Groups:
    """A layer's groups, and how many of them are valid; `refusal` says why the layer has none."""

    kind: str
    eligible: int
    valid: int
    refusal: str | None = None

    @property
    def hold(self) -> bool:
        """Whether the layer is 2:4 throughout."""
        return 0 < self.eligible == self.valid


def valid_groups(model: ir.Model) -> dict[str, Groups]:
    """The eligible and the valid groups of each layer with constant weights, by its name."""
    found = {}
    for node in model.graph:
        if node.op_type in _LAYERS and node.domain == "" and len(node.inputs) > 1:
            zeros = zeros_of(node.inputs[1])
            if zeros is not None:
                found[node.name or ""] = _groups(node, zeros)
    return found


def sparse_layers(model: ir.Model) -> tuple[str, ...]:
    """Names of the layers that are 2:4 throughout."""
    return tuple(name for name, groups in valid_groups(model).items() if groups.hold)


def why_dense(node: ir.Node, shape: tuple[int, ...]) -> str | None:
    """Why a layer with a weight of that shape cannot be 2:4, or None where it can."""
    if node.op_type == "ConvTranspose":
        return "2:4 is for convolutions and matrix products only"
    if node.op_type in ("Gemm", "MatMul") and len(shape) != 2:
        return f"its weight has {len(shape)} dimensions, expected 2"
    if len(shape) < 2:
        return f"its weight has {len(shape)} dimensions, expected 3 or more"
    inputs = shape[input_axis(node)]
    group = int_attribute(node, "group", 1)
    if inputs % GROUP:
        each = " in each group" if group > 1 else ""
        return f"its {inputs} input channels{each} are no multiple of {GROUP}"
    return "its weight is empty" if 0 in shape else None


def input_axis(node: ir.Node) -> int:
    """The axis of the weight along which input channels lie: K of a matrix product."""
    if node.op_type == "Conv":
        return 1
    return 1 if node.op_type == "Gemm" and int_attribute(node, "transB", 0) else 0


def in_groups(weight: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """The weight as groups along that axis: (groups, 4)."""
    return np.moveaxis(weight, axis, -1).reshape(-1, GROUP)


def _groups(node: ir.Node, zeros: Mask) -> Groups:
    refusal = why_dense(node, zeros.shape)
    if refusal is not None:
        return Groups(node.op_type, 0, 0, refusal)
    counts = np.count_nonzero(in_groups(zeros, input_axis(node)), axis=1)
    valid = int(np.count_nonzero(counts >= LEAST_ZEROS))
    return Groups(node.op_type, math.prod(zeros.shape) // GROUP, valid)
