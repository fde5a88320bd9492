"""What a search makes small beside the damage: time, the file, or the bits that a product works with.

latency: predicted time, from the cost model with its borders (cost.py, roofline.py).
size: bytes of all weights; INT8 with a float32 scale for each channel, float32 otherwise.
bits: mean bits of a weight over all multiply-accumulates, for hardware that nobody has profiled:

    bits(S) = sum over layers l of macs(l) b(l) / sum of macs(l),   b = 8 for l in S, else 32
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from jettison.compress.quantization.layers import Layer

Objective = Literal["latency", "size", "bits"]

Price = Callable[[frozenset[str]], float]
"""What a choice of layers costs, in the objective's unit."""

UNITS: Mapping[Objective, str] = {"latency": "us", "size": "bytes", "bits": "bits"}
_FLOAT_BITS, _INTEGER_BITS, _BITS_PER_BYTE = 32, 8, 8


def size_price(layers: Iterable[Layer]) -> Price:
    """Bytes of the weights, by the choice of layers that hold integers; a shared weight counts once.

    A weight that a float layer reads too has to stay beside its integers.
    """
    elements: dict[str, int] = {}
    channels: dict[str, int] = {}
    readers: dict[str, set[str]] = {}
    for layer in layers:
        weight = layer.weight.name or ""
        elements[weight] = _elements_of(layer)
        channels[weight] = layer.channels
        readers.setdefault(weight, set()).add(layer.name)

    def price(chosen: frozenset[str]) -> float:
        total = 0
        for weight, names in readers.items():
            if names & chosen:
                bits = elements[weight] * _INTEGER_BITS + channels[weight] * _FLOAT_BITS
                total += bits // _BITS_PER_BYTE
            if names - chosen:
                total += elements[weight] * _FLOAT_BITS // _BITS_PER_BYTE
        return float(total)

    return price


def bits_price(macs: Mapping[str, int]) -> Price:
    """Mean bits of a weight over all multiply-accumulates of these layers, by name."""
    total = max(1, sum(macs.values()))

    def price(chosen: frozenset[str]) -> float:
        bits = sum(count * (_INTEGER_BITS if name in chosen else _FLOAT_BITS) for name, count in macs.items())
        return bits / total

    return price


def _elements_of(layer: Layer) -> int:
    if layer.weight.const_value is None:
        raise ValueError(f"{layer.weight.name!r} is no constant")
    return int(layer.weight.const_value.size)
