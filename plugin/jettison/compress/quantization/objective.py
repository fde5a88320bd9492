"""What a search makes small beside the damage: time, the file, or the bits that a product works with.

latency: predicted time, from the cost model with its borders (cost.py, roofline.py).
size: bytes of all constants; weights in INT8 with a float32 scale for each channel, or as they are.
bits: mean bits of a weight over all multiply-accumulates, for hardware that nobody has profiled:

    bits(S) = sum over nodes l of macs(l) b(l) / sum of macs(l),   b = 8 for l in S, else 32
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from jettison.compress.quantization.layers import Layer

Objective = Literal["latency", "size", "bits"]

Price = Callable[[frozenset[str]], float]
"""What a choice of layers costs, in the objective's unit."""

UNITS: Mapping[Objective, str] = {"latency": "us", "size": "bytes", "bits": "bits"}
_FLOAT_BITS, _INTEGER_BITS, _BITS_PER_BYTE = 32, 8, 8


def size_price(graph: ir.Graph, layers: Iterable[Layer]) -> Price:
    """Bytes of all constants, by the choice of these layers that hold integers; a shared weight counts once.

    A weight that a float layer or another operator reads too has to stay beside its integers.
    """
    weights: dict[ir.Value, _Weight] = {}
    for layer in layers:
        weights.setdefault(layer.weight, _Weight(layer.channels)).readers.add(layer.name)
    for value, weight in weights.items():
        weight.size_bytes = _bytes_of(value)
        weight.is_read_in_float = any(usage.node.name not in weight.readers for usage in value.uses())
    rest = sum(_bytes_of(value) for value in graph.initializers.values() if value not in weights)

    def price(chosen: frozenset[str]) -> float:
        return float(rest + sum(weight.bytes_for(chosen) for weight in weights.values()))

    return price


@dataclass
class _Weight:
    """A weight that integers may stand for: its float bytes, who reads it, and whether others do."""

    channels: int
    readers: set[str] = field(default_factory=set)
    size_bytes: int = 0
    is_read_in_float: bool = False

    def bytes_for(self, chosen: frozenset[str]) -> int:
        """What it takes where these layers hold integers."""
        integers = (
            self.size_bytes * _INTEGER_BITS // _FLOAT_BITS + self.channels * _FLOAT_BITS // _BITS_PER_BYTE
        )
        stays = self.is_read_in_float or bool(self.readers - chosen)
        return (integers if self.readers & chosen else 0) + (self.size_bytes if stays else 0)


def bits_price(macs: Mapping[str, int]) -> Price:
    """Mean bits of a weight over all multiply-accumulates of the model, by the nodes that carry them."""
    total = max(1, sum(macs.values()))

    def price(chosen: frozenset[str]) -> float:
        bits = sum(count * (_INTEGER_BITS if name in chosen else _FLOAT_BITS) for name, count in macs.items())
        return bits / total

    return price


def _bytes_of(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes
