"""How a node is read: its attributes, its constant inputs, and the refusal where torch cannot follow.

Imported only behind `distillation/door.py`, as all of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jettison.graph.edit import constant_of

Compute = Callable[..., Any]
"""From a node's inputs as tensors, None for one left out, to its output or a tuple of outputs."""

Build = Callable[[ir.Node], Compute]
"""Reads a node once and gives what it computes."""

_INSTEAD = "Train the source model in its own framework and compress it after that, or leave this pass out"

TYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    11: torch.float64,
}
"""torch's element types by ONNX's `TensorProto.DataType`."""


class NoGradientError(ValueError):
    """A node that cannot be trained through; `reason` names it, `instead` says what applies."""

    def __init__(self, node: ir.Node, why: str, instead: str = _INSTEAD) -> None:
        domain = f"{node.domain}." if node.domain else ""
        self.reason = f"{domain}{node.op_type} {node.name!r} {why}"
        self.instead = instead
        super().__init__(f"{self.reason}. {instead}")


def always(function: Compute) -> Build:
    """The build of an operator without attributes: what every such node computes."""

    def build(_: ir.Node) -> Compute:
        return function

    return build


def constant_input(node: ir.Node, index: int) -> np.ndarray[Any, Any] | None:
    """The array of a constant input; None where it is left out or computed."""
    return constant_of(node.inputs[index]) if index < len(node.inputs) else None


def has_input(node: ir.Node, index: int) -> bool:
    """Whether the node has that input."""
    return index < len(node.inputs) and node.inputs[index] is not None


def text(node: ir.Node, name: str, default: str) -> str:
    """An attribute of text."""
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.as_string())


def whole_numbers(values: Tensor | Sequence[int]) -> list[int]:
    """Sizes or axes as Python numbers, of a tensor or a list."""
    found = values.reshape(-1).tolist() if isinstance(values, Tensor) else values
    return [int(value) for value in found]


def beside(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor on the device of the other: constants that hold whole numbers stay on the CPU."""
    return tensor if tensor.device == other.device else tensor.to(other.device)
