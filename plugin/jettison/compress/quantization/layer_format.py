"""In which form a layer's weight and input stand in a compressed model, read from its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.histogram import HALF_BINS, Histogram
from jettison.compress.quantization.layers import Layer
from jettison.core import dtypes
from jettison.graph.edit import constant_of

_DYNAMIC = ("_quant", "_MatMul_quant")
"""What ONNX Runtime's dynamic quantizer appends to the name of a node that it rewrites."""

_MOST_BINS = 48
"""Of a histogram in the report: as many as a picture in a table has room for."""

_CARRIERS = frozenset(
    {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators between a stored weight and the layer that reads it."""

_QUANTIZED = frozenset(row.name for row in dtypes.TABLE if "int" in row.name or "float8" in row.name)


class WeightReport(BaseModel):
    """How a layer's weight is stored.

    Args:
        element_type: In the variant; None where the layer cannot be found.
        size_bytes: Of weight and bias in the variant with their scales and zero points, a weight that layers
            share counting for each; None where the layer cannot be found.
        baseline_size_bytes: Of weight and bias in the baseline.
    """

    model_config = ConfigDict(frozen=True)

    element_type: str | None
    size_bytes: int | None
    baseline_size_bytes: int

    @property
    def is_quantized(self) -> bool:
        """Whether it is stored in integers or in FP8."""
        return self.element_type in _QUANTIZED


class Counts(BaseModel):
    """How often values were seen, in equal bins from lowest to highest.

    Args:
        low: Left edge of the first bin.
        high: Right edge of the last one.
        shares: Of all counted values, one a bin, each 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    shares: tuple[float, ...]


class InputReport(BaseModel):
    """How a layer's input is rounded.

    Args:
        element_type: In the variant; None where that cannot be told.
        low: Lowest value that the integers stand for; None where the input is not in integers, or their range
            is found at run time.
        high: Highest one.
        seen_low: Lowest value on the calibration samples; None without a calibration.
        seen_high: Highest one.
        clip_share: Share of the values on the calibration samples that are cut off: more than half a step
            outside the range.
        seen: How the values on the calibration samples are spread; None without a calibration.
    """

    model_config = ConfigDict(frozen=True)

    element_type: str | None
    low: float | None
    high: float | None
    seen_low: float | None
    seen_high: float | None
    clip_share: float | None
    seen: Counts | None = None


def clip_share(histogram: Histogram, low: float, high: float) -> float:
    """Share of the counted values below `low` or above `high`, 0 to 1.

    Values count as evenly spread over the part of their bin that lies between the exact extremes.
    """
    edges = np.arange(-HALF_BINS, HALF_BINS + 1) * histogram.bin_width
    left, right = (np.clip(part, histogram.low, histogram.high) for part in (edges[:-1], edges[1:]))
    inside = np.minimum(right, high) - np.maximum(left, low)
    is_point = right == left
    kept = np.divide(inside, right - left, where=~is_point, out=(inside >= 0).astype(np.float64))
    outside = histogram.counts @ (1.0 - np.clip(kept, 0.0, 1.0))
    return float(outside) / max(histogram.total, 1)


def coarse(histogram: Histogram) -> Counts | None:
    """The histogram in at most `_MOST_BINS` bins over the values that were seen; None where it is empty."""
    counted = np.flatnonzero(histogram.counts)
    if not counted.size:
        return None
    first, last = int(counted[0]), int(counted[-1]) + 1
    together = -(-(last - first) // _MOST_BINS)
    bins = -(-(last - first) // together)
    kept = np.zeros(bins * together)
    kept[: last - first] = histogram.counts[first:last]
    shares = kept.reshape(bins, together).sum(axis=1) / histogram.total
    left = (first - HALF_BINS) * histogram.bin_width
    return Counts(
        low=left,
        high=left + bins * together * histogram.bin_width,
        shares=tuple(float(f"{share:.3g}") for share in shares),
    )


def counterpart(nodes: Mapping[str, ir.Node], layer: Layer) -> ir.Node | None:
    """The variant's node that carries the layer's weight, as the dynamic quantizer renames it or not."""
    names = (layer.name, *(f"{layer.name}{suffix}" for suffix in _DYNAMIC))
    return next((nodes[name] for name in names if name in nodes), None)


def weight_report(layer: Layer, node: ir.Node | None) -> WeightReport:
    """How the layer's weight is stored in that node of the variant, None where it has none."""
    stored = _constants(node.inputs[1]) if node is not None and len(node.inputs) > 1 else []
    return WeightReport(
        element_type=_type_of(stored[0]) if stored else None,
        size_bytes=None if node is None else _parameter_bytes(node),
        baseline_size_bytes=_parameter_bytes(layer.node),
    )


def _constants(value: ir.Value | None) -> list[ir.Value]:
    """The constants that a value is made from, the stored numbers first; none where it is an activation."""
    beside: list[ir.Value] = []
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is None or node.op_type not in _CARRIERS:
            return []
        beside += [found for found in node.inputs[1:] if found is not None]
        value = node.inputs[0]
    return [] if value is None else [value, *beside]


def _parameter_bytes(node: ir.Node) -> int:
    constants = (found for value in node.inputs[1:] for found in _constants(value))
    return sum(found.const_value.nbytes for found in constants if found.const_value is not None)


def _type_of(value: ir.Value | None) -> str | None:
    row = None if value is None or value.dtype is None else dtypes.of_onnx(int(value.dtype))
    return None if row is None else row.name


def input_report(layer: Layer, node: ir.Node | None, calibration: Calibration | None) -> InputReport:
    """How the layer's input is rounded before that node of the variant, None where it has none."""
    histogram, rounding = _histogram(layer, calibration), _rounding(node)
    low, high, step = rounding.range or (None, None, 0.0)
    share = None
    if histogram is not None and low is not None and high is not None:
        share = clip_share(histogram, low - step / 2, high + step / 2)
    return InputReport(
        element_type=_type_of(rounding.stored),
        low=low,
        high=high,
        seen_low=None if histogram is None else histogram.low,
        seen_high=None if histogram is None else histogram.high,
        clip_share=share,
        seen=None if histogram is None else coarse(histogram),
    )


def _histogram(layer: Layer, calibration: Calibration | None) -> Histogram | None:
    name = layer.activation.name or ""
    if calibration is None or not (name in calibration.histograms or name in calibration.sources):
        return None
    return calibration.histogram(name)


@dataclass(frozen=True)
class _Rounding:
    """As what a layer's input is stored; `range`: lowest, highest and step of what its integers stand for."""

    stored: ir.Value | None
    range: tuple[float, float, float] | None = None


def _rounding(node: ir.Node | None) -> _Rounding:
    value = node.inputs[0] if node is not None else None
    pair = value.producer() if value is not None else None
    if pair is None or pair.op_type != "DequantizeLinear":
        return _Rounding(value)
    scale, zero_point = (constant_of(found) for found in (*pair.inputs[1:], None)[:2])
    if scale is None or zero_point is None or zero_point.dtype.kind not in "iu":
        return _Rounding(pair.inputs[0])
    step, zero, ends = float(scale.max()), int(zero_point.flat[0]), np.iinfo(zero_point.dtype)
    return _Rounding(pair.inputs[0], ((int(ends.min) - zero) * step, (int(ends.max) - zero) * step, step))
