"""Where Q/DQ pairs stand: a plan by names, made from the graph alone, for one of two dialects.

The plan names values and nodes and holds no scales, so one calibration serves every plan: both dialects,
and every choice of layers that a search tries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.quantization.layers import PASSTHROUGH, Layer, find_layers

Dialect = Literal["cpu", "tensorrt"]


class LayerDecision(BaseModel):
    """Whether a weighted layer computes in integers, and why not where it does not."""

    model_config = ConfigDict(frozen=True)

    node: str
    kind: str
    quantized: bool
    reason: str


@dataclass(frozen=True)
class Reader:
    """One input of a node."""

    node: str
    index: int


@dataclass(frozen=True)
class Site:
    """A value that gets one Q/DQ pair, and who reads the result.

    `readers` take the dequantized value; `guarded` readers stay in float and take it from a second
    DequantizeLinear, with one scale for each channel, all equal: ONNX Runtime would turn a float Conv
    or Gemm behind a per-tensor DequantizeLinear into a per-tensor integer one.
    `is_output`: the graph's output of that name becomes the dequantized value. `enters`: a float operator
    makes the value, so that quantizing it is work of its own; `leaves`: a float operator reads it.
    """

    value: str
    readers: tuple[Reader, ...]
    guarded: tuple[Reader, ...] = ()
    is_output: bool = False
    enters: bool = True
    leaves: bool = True


@dataclass(frozen=True)
class Placement:
    """Where pairs stand: activations (`sites`), weights (`quantized`), and which values share a scale.

    `products` tells of the products of activations in attention, where these were asked for.
    """

    dialect: Dialect
    layers: tuple[LayerDecision, ...]
    sites: tuple[Site, ...]
    ties: tuple[tuple[str, ...], ...] = ()
    products: tuple[LayerDecision, ...] = ()

    @property
    def quantized(self) -> frozenset[str]:
        """Names of the nodes that compute in integers."""
        return frozenset(layer.node for layer in self.layers if layer.quantized)


@dataclass
class Ties:
    """Groups of values that must share one scale, joined as they are found."""

    parent: dict[str, str] = field(default_factory=dict)

    def join(self, names: Iterable[str]) -> None:
        """Put all these names into one group."""
        first, *rest = names
        for name in rest:
            if self.root(name) != self.root(first):
                self.parent[self.root(name)] = self.root(first)

    def root(self, name: str) -> str:
        """The name that stands for the group."""
        while (above := self.parent.get(name, name)) != name:
            name = above
        return name

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The groups, each with its names sorted."""
        members: dict[str, list[str]] = {}
        for name in sorted({*self.parent, *self.parent.values()}):
            members.setdefault(self.root(name), []).append(name)
        return tuple(tuple(group) for group in members.values() if len(group) > 1)


LayerRule = Callable[[Layer], "str | None"]
"""Why a dialect leaves a layer in float, or None."""


def decide(
    graph: ir.Graph, rule: LayerRule, keep_in_float: frozenset[str]
) -> tuple[list[Layer], list[LayerDecision]]:
    """The layers to quantize, and a decision with its reason for every weighted layer."""
    chosen, decisions = [], []
    for layer in find_layers(graph):
        reason = layer.refusal or rule(layer)
        if reason is None and layer.name in keep_in_float:
            reason = "left in float as asked"
        if reason is None:
            chosen.append(layer)
        decisions.append(
            LayerDecision(
                node=layer.name,
                kind=layer.kind,
                quantized=reason is None,
                reason=reason or "integers carry it",
            )
        )
    return chosen, decisions


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that carry the data of an operator which moves or joins values."""
    if node.op_type == "Concat":
        return [value for value in node.inputs if value is not None]
    return [node.inputs[0]] if node.op_type in PASSTHROUGH and node.inputs[0] is not None else []


def is_float(value: ir.Value) -> bool:
    """Whether the value is float32, as far as the graph tells."""
    return value.dtype == ir.DataType.FLOAT


def name_of(value: ir.Value) -> str:
    """The value's name, which a clean graph always has."""
    if not value.name:
        raise ValueError("a value without a name: clean the graph first")
    return value.name


def readers_of(value: ir.Value) -> list[tuple[ir.Node, Reader]]:
    """Who reads the value: the nodes, each with its name and input index."""
    return [(usage.node, Reader(usage.node.name or "", usage.idx)) for usage in value.uses()]
