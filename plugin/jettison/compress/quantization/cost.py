"""What each layer costs in time, in float and in integers, and what every border between them costs.

One profile of the float model and one of the all-integer model give the time of each layer; a few models
with random layers quantized give two constants, time per element of a border that is quantized and of one
that is dequantized. The sum predicts the time of any choice of layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.layers import Layer, find_layers, fused_output
from jettison.compress.quantization.placement import Placement
from jettison.core.progress import Progress
from jettison.core.tensors import Arrays
from jettison.engines.profile import OperatorTime, operator_times
from jettison.graph.shapes import ShapeTable

RANDOM_SUBSETS = 6
"""Random choices on which the border constants are fitted."""
_WEIGHTED = frozenset(
    {
        "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul",
        "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul",
    }
)  # fmt: skip
"""Operators of ONNX Runtime's optimized graphs that carry a layer's weights."""


@dataclass(frozen=True)
class LayerTime:
    """Microseconds of one layer in float and in integers."""

    float_us: float
    integer_us: float


@dataclass(frozen=True)
class CostModel:
    """Predicts the time of a choice of layers in microseconds.

    T = base + sum over layers of their time + quantize_us * elements quantized from float
      + dequantize_us * elements dequantized for float readers.
    """

    layers: Mapping[str, LayerTime]
    base_us: float
    quantize_us: float
    dequantize_us: float
    elements: Mapping[str, int]

    def time_us(self, placement: Placement) -> float:
        """The predicted time of a placement."""
        quantized = placement.quantized
        layers = sum(
            times.integer_us if name in quantized else times.float_us for name, times in self.layers.items()
        )
        into, out_of = border_elements(placement, self.elements)
        return self.base_us + layers + self.quantize_us * into + self.dequantize_us * out_of


def elements_of(shapes: ShapeTable) -> dict[str, int]:
    """How many elements each value has."""
    return {name: math.prod(found.shape) for name, found in shapes.items()}


def border_elements(placement: Placement, elements: Mapping[str, int]) -> tuple[int, int]:
    """Elements that are quantized from float, and elements that float operators read back."""
    into = sum(elements.get(site.value, 0) for site in placement.sites if site.enters)
    out_of = sum(elements.get(site.value, 0) for site in placement.sites if site.leaves)
    return into, out_of


@dataclass(frozen=True)
class Workshop:
    """How to place and make a choice of layers, and at which batch and shapes to time it."""

    inputs: Arrays
    shapes: ShapeTable
    place: Callable[[frozenset[str]], Placement]
    quantize: Callable[[Placement], ir.Model]
    threads: int = 0
    seed: int = 0

    def profile(self, model: ir.Model) -> list[OperatorTime]:
        """The time of each operator of the model."""
        return operator_times(model, self.inputs, threads=self.threads)


def fit_cost(model: ir.Model, workshop: Workshop, *, progress: Progress | None = None) -> CostModel:
    """The cost model of a clean float graph on this machine; `progress` gets the profiles done."""
    everything = workshop.place(frozenset(layer.name for layer in find_layers(model.graph)))
    layers = [layer for layer in find_layers(model.graph) if layer.name in everything.quantized]
    float_times = workshop.profile(model)
    of_float = match_layers(layers, float_times)
    of_integer = match_layers(layers, workshop.profile(workshop.quantize(everything)))
    times = {layer.name: LayerTime(of_float[layer.name], of_integer[layer.name]) for layer in layers}
    base = sum(found.time_us for found in float_times) - sum(of_float.values())
    elements = elements_of(workshop.shapes)
    costs = CostModel(times, base, 0.0, 0.0, elements)
    generator = np.random.default_rng(workshop.seed)
    rows, extra = [], []
    for index in range(RANDOM_SUBSETS):
        placement = workshop.place(frozenset(name for name in sorted(times) if generator.random() < 0.5))
        spent = sum(found.time_us for found in workshop.profile(workshop.quantize(placement)))
        rows.append(border_elements(placement, elements))
        extra.append(spent - costs.time_us(placement))
        if progress is not None:
            progress(index + 1, RANDOM_SUBSETS)
    into, out_of = _nonnegative_fit(np.array(rows, np.float64), np.array(extra, np.float64))
    return replace(costs, quantize_us=into, dequantize_us=out_of)


def match_layers(layers: Sequence[Layer], times: Sequence[OperatorTime]) -> dict[str, float]:
    """The time of each layer among those of the optimized graph, whose fusions keep a part's name.

    A layer that no name tells gets its share, by position, of the weighted operators that are left.
    """
    weighted = [found for found in times if found.operator in _WEIGHTED]
    found: dict[str, float] = {}
    used: set[int] = set()
    for layer in layers:
        names = _names_of(layer)
        index = next(
            (i for i, time in enumerate(weighted) if i not in used and _stem(time.name) in names), None
        )
        if index is not None:
            found[layer.name] = weighted[index].time_us
            used.add(index)
    left = [time.time_us for index, time in enumerate(weighted) if index not in used]
    missing = [layer.name for layer in layers if layer.name not in found]
    found.update({name: left[index] if index < len(left) else 0.0 for index, name in enumerate(missing)})
    return found


def _names_of(layer: Layer) -> set[str]:
    output = fused_output(layer.node)
    producer = output.producer()
    names = {layer.name, layer.node.outputs[0].name, output.name, producer.name if producer else None}
    return {name for name in names if name}


def _stem(name: str) -> str:
    """The part's name without what ONNX Runtime's rewrites append."""
    stem = name.removesuffix("_nchwc").removesuffix("_quant")
    head, separator, tail = stem.rpartition("_token_")
    return head if separator and tail.isdecimal() else stem


def _nonnegative_fit(rows: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The least-squares solution with both constants at least zero."""
    both, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    singles = [max(float(column @ wanted / max(column @ column, 1.0)), 0.0) for column in rows.T]
    errors = [float(np.square(rows[:, index] * value - wanted).sum()) for index, value in enumerate(singles)]
    best = int(np.argmin(errors))
    return (singles[0], 0.0) if best == 0 else (0.0, singles[1])
