"""Static quantization: scales from a calibration, pairs where a placement says, weights as INT8.

Our convention, for a scale s and a zero point z: X_q = clip(round(X / s) + z), X ~ (X_q - z) * s; with
Q = 1 / s this is X_q = round(X * Q). Activations are UINT8 with a zero point (`cpu`) or symmetric INT8
(`tensorrt`), weights symmetric INT8 with one scale per channel; on `cpu` a bias is INT32 with the scale
s_activation * s_weight, so that a layer is integer arithmetic from end to end.
Source: Jacob et al. 2018 (arXiv 1712.05877), equations 1 to 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.compress.quantization.placement import Dialect, Placement, Reader, Site
from jettison.compress.quantization.ranges import Range, RangeMethod, range_of
from jettison.compress.quantization.weights import QuantizedWeight, quantize_weight
from jettison.graph.qdq import Editor, Scale

_LARGEST_BIAS = float(2**30)
"""A bias must fit 32 bits with room for the sum that it joins."""
_SMALLEST_SPAN = 1e-6


@dataclass(frozen=True)
class RangeChoice:
    """How ranges are made from histograms."""

    method: RangeMethod = "max"
    percentile: float = 99.99


def activation_ranges(
    calibration: Calibration, placement: Placement, choice: RangeChoice
) -> dict[str, Range]:
    """The range of each site's value, tied values having one range that covers them all."""
    ranges = {
        site.value: range_of(
            calibration.histogram(site.value),
            choice.method,
            percentile=choice.percentile,
            symmetric=placement.dialect == "tensorrt",
        )
        for site in placement.sites
    }
    for group in placement.ties:
        members = [name for name in group if name in ranges]
        joined = ranges[members[0]]
        for name in members[1:]:
            joined = joined.union(ranges[name])
        ranges.update(dict.fromkeys(members, joined))
    return ranges


def activation_scale(found: Range, dialect: Dialect) -> Scale:
    """Scale and zero point that cover the range: UINT8 for `cpu`, symmetric INT8 for `tensorrt`."""
    if dialect == "tensorrt":
        largest = max(abs(found.low), abs(found.high), _SMALLEST_SPAN)
        return Scale(np.array(largest / 127.0, np.float32), np.array(0, np.int8))
    span = max(found.high - found.low, _SMALLEST_SPAN)
    scale = np.float32(span / 255.0)
    if scale * np.float32(255.0) > np.float32(span):
        scale = np.nextafter(scale, np.float32(0.0))
    zero_point = int(np.clip(np.rint(-found.low / float(scale)), 0, 255))
    return Scale(np.array(scale, np.float32), np.array(zero_point, np.uint8))


@dataclass(frozen=True)
class LayerIntegers:
    """What one layer computes with: the scale of its activation, and its weight as integers."""

    activation: Scale
    weight: QuantizedWeight


def layer_integers(
    model: ir.Model, calibration: Calibration, placement: Placement, *, choice: RangeChoice | None = None
) -> dict[str, LayerIntegers]:
    """What each quantized layer computes with, by its name; layers that share a weight share its integers."""
    return _layer_integers(model.graph, placement, _scales(calibration, placement, choice))


def quantize_static(
    model: ir.Model,
    calibration: Calibration,
    placement: Placement,
    *,
    choice: RangeChoice | None = None,
    weights: Mapping[str, QuantizedWeight] | None = None,
) -> ir.Model:
    """A quantized copy of a clean float model; the model given stays as it is.

    Args:
        model: The model.
        calibration: The histograms of its activations.
        placement: Where pairs stand.
        choice: How ranges are made from histograms.
        weights: Integers, by layer, to take instead of plainly rounded ones.
    """
    copy = model.clone()
    editor = Editor(copy)
    scales = _scales(calibration, placement, choice)
    integers = _layer_integers(copy.graph, placement, scales, weights)
    writer = _WeightWriter(editor, placement.dialect)
    for layer in find_layers(copy.graph):
        if layer.name in integers:
            writer.write(layer, integers[layer.name])
    for site in placement.sites:
        _write_site(editor, site, scales[site.value])
    editor.drop_unused()
    return copy


def _scales(calibration: Calibration, placement: Placement, choice: RangeChoice | None) -> dict[str, Scale]:
    ranges = activation_ranges(calibration, placement, choice or RangeChoice())
    return {name: activation_scale(found, placement.dialect) for name, found in ranges.items()}


def _layer_integers(
    graph: ir.Graph,
    placement: Placement,
    scales: Mapping[str, Scale],
    weights: Mapping[str, QuantizedWeight] | None = None,
) -> dict[str, LayerIntegers]:
    activations = {
        (reader.node, reader.index): scales[site.value] for site in placement.sites for reader in site.readers
    }
    rounder = _WeightRounder(placement.dialect)
    found = {}
    for layer in find_layers(graph):
        if layer.name in placement.quantized:
            activation = activations[layer.name, 0]
            given = (weights or {}).get(layer.name)
            found[layer.name] = LayerIntegers(activation, given or rounder.weight(layer, activation))
    return found


def _write_site(editor: Editor, site: Site, scale: Scale) -> None:
    parameters = editor.parameters(site.value, scale)
    quantized = editor.quantize(site.value, parameters)
    if site.readers or site.is_output:
        dequantized = editor.dequantize(quantized, site.value, parameters)
        editor.rewire(_pairs(site.readers), dequantized)
        if site.is_output:
            editor.replace_output(site.value, dequantized)
    if site.guarded:
        editor.rewire(_pairs(site.guarded), _guarded(editor, quantized, site, scale))


def _guarded(editor: Editor, quantized: ir.Value, site: Site, scale: Scale) -> ir.Value:
    """The value once more, with one scale per channel, all equal; per tensor where channels are unknown."""
    stem = f"{site.value}_guarded"
    shape = editor.values[site.value].shape
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if not isinstance(channels, int):
        return editor.dequantize(quantized, stem, editor.parameters(stem, scale))
    vector = Scale(np.full(channels, scale.values, np.float32), scale.zero_point, axis=1)
    return editor.dequantize(quantized, stem, editor.parameters(stem, vector), axis=1)


def _pairs(readers: tuple[Reader, ...]) -> list[tuple[str, int]]:
    return [(reader.node, reader.index) for reader in readers]


@dataclass
class _WeightRounder:
    """Rounds each weight once, however many layers share it.

    A layer whose bias does not fit the shared scales gets integers of its own.
    """

    dialect: Dialect

    def __post_init__(self) -> None:
        self._rounded: dict[tuple[str, int, bool], list[QuantizedWeight]] = {}

    def weight(self, layer: Layer, activation: Scale) -> QuantizedWeight:
        """The layer's weight as integers, with scales under which its bias fits 32 bits on `cpu`."""
        least = None
        if layer.bias is not None and self.dialect == "cpu":
            least = _least_scales(_array(layer.bias), activation, layer)
        pair_safe = self.dialect == "cpu" and not layer.is_depthwise
        rounded = self._rounded.setdefault((layer.weight.name or "", layer.weight_axis, pair_safe), [])
        for quantized in rounded:
            if least is None or (quantized.scales >= least).all():
                return quantized
        rounded.append(
            quantize_weight(_array(layer.weight), layer.weight_axis, pair_safe=pair_safe, least_scales=least)
        )
        return rounded[-1]


@dataclass
class _WeightWriter:
    """Writes integers once, however many layers compute with them, and each bias for its own layer."""

    editor: Editor
    dialect: Dialect

    def __post_init__(self) -> None:
        self._written: list[tuple[QuantizedWeight, ir.Value]] = []

    def write(self, layer: Layer, integers: LayerIntegers) -> None:
        """Let the layer read its weight, and on `cpu` its bias, from integers."""
        self.editor.rewire([(layer.name, 1)], self._weight(layer, integers.weight))
        if layer.bias is not None and self.dialect == "cpu":
            scales = integers.activation.values * integers.weight.scales
            bias = np.broadcast_to(_array(layer.bias).reshape(-1), scales.shape)
            stored = self.editor.store(
                f"{layer.name}_bias",
                np.rint(bias / scales).astype(np.int32),
                Scale(scales, np.array(0, np.int32), axis=0),
            )
            self.editor.rewire([(layer.name, 2)], stored)

    def _weight(self, layer: Layer, quantized: QuantizedWeight) -> ir.Value:
        for written, value in self._written:
            if written is quantized:
                return value
        scale = Scale(quantized.scales, np.array(0, np.int8), axis=quantized.axis)
        value = self.editor.store(f"{layer.weight.name}_axis{layer.weight_axis}", quantized.values, scale)
        self._written.append((quantized, value))
        return value


def _array(value: ir.Value) -> np.ndarray[Any, np.dtype[np.float32]]:
    if value.const_value is None:
        raise ValueError(f"{value.name!r} is no constant")
    return np.asarray(value.const_value.numpy(), np.float32)


def _least_scales(
    bias: np.ndarray[Any, np.dtype[np.float32]], activation: Scale, layer: Layer
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weight scales under which the bias fits 32 bits: a dead channel may have any bias."""
    needed = np.abs(bias.reshape(-1)) / (float(activation.values) * _LARGEST_BIAS)
    return np.broadcast_to(needed, (layer.channels,)).astype(np.float32)
