"""The pass `{quantize: float8}`: FP8 E4M3 for NVIDIA GPUs from Ada on, weights per channel.

Pairs stand where the `tensorrt` dialect has them for INT8; what is stored is float8_e4m3fn instead. ONNX
Runtime runs the same file in exact float arithmetic when its optimizations are off, which is how it is
scored. With them on, 1.32 takes the zero point for the lowest number, drops a Relu before it and fails at a
Clip. FP8 keeps 3 bits of mantissa at every size, so it suits activations with long tails (transformers);
convolutional networks fare about as with INT8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.float8_scales import (
    FLOAT8,
    Float8Ranges,
    Floats,
    activation_scale,
    stored_weight,
)
from jettison.compress.quantization.keep_float import kept_layers
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.compress.quantization.placement import LayerDecision, Placement
from jettison.compress.quantization.placement_tensorrt import place_for_tensorrt
from jettison.compress.quantization.refusals import refuse_unfit, without_layers
from jettison.core.samples import Samples
from jettison.core.targets import CAPABILITIES, Target
from jettison.graph.edit import float_constant
from jettison.graph.qdq import Editor, Scale

FIRST_CAPABILITY = 89
"""Ada. Source: NVIDIA TensorRT-RTX documentation, "Working with Quantized Types"."""

SMALLEST_PRODUCT = 16
"""Fewer inputs or outputs of a product, or channels of a convolution's group, gain nothing in FP8.

Source: `_MIN_CHANNELS_FP8` and `_MIN_MATMUL_DIM` of NVIDIA ModelOpt. TensorRT-RTX 1.7 fills the channels of
such a convolution up with zeros, in a layer of its own: 3 to 4, those of each depthwise group from 1 to 4."""

LARGEST_WINDOW = 32
"""Positions of a convolution's kernel, 7 x 7 being too many: TensorRT has no FP8 kernel for more.

Source: `find_nodes_from_convs_to_exclude` of NVIDIA ModelOpt. TensorRT-RTX 1.7 takes any."""


class QuantizeFloat8(BaseModel):
    """Static FP8 where TensorRT computes in it: weights per channel, activations per tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["float8"] = "float8"
    ranges: Float8Ranges = "max"
    keep_float: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses targets without FP8, a model without a layer for it, and names that match none."""
        refusal = _target_refusal(piece.target) or refuse_unfit(piece.model.graph, self.keep_float)
        if refusal is not None:
            return refusal
        decisions = self.placement(piece).layers
        if any(decision.quantized for decision in decisions):
            return None
        return without_layers(
            ((decision.kind, decision.reason) for decision in decisions),
            instead="Use {quantize: full} or {quantize: float16} on the float32 original",
        )

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with FP8 weights and Q/DQ pairs; it is its own simulation."""
        placement = self.placement(piece)
        scales = activation_scales(piece.calibration(samples), placement, self.ranges)
        return PassResult(
            quantize_float8(piece.model, placement, scales, weight_ranges=self.ranges),
            layers=placement.layers,
            notes=("needs a GPU from Ada (sm89) on",),
        )

    def placement(self, piece: Workpiece) -> Placement:
        """Where pairs stand, and which layers compute in FP8."""
        return place_float8(piece.model.graph, kept_layers(piece.model.graph, self.keep_float))


def _target_refusal(target: Target) -> Refusal | None:
    if not target.is_gpu:
        return Refusal(
            reasons=(
                "ONNX Runtime has no FP8 kernels for the CPU, and its optimizations drop a Relu in front of "
                "FP8 pairs",
            ),
            instead="Use {quantize: full}, or {quantize: int4} for a smaller file",
        )
    if target.compute_capability is None:
        return Refusal(
            reasons=("the target `tensorrt` is any GPU from Ampere on, and FP8 begins with Ada (sm89)",),
            instead="Name the GPU, such as sm89 or sm120, or use {quantize: full}",
        )
    if target.compute_capability < FIRST_CAPABILITY:
        generation = CAPABILITIES.get(target.compute_capability, "an older GPU")
        return Refusal(
            reasons=(f"{target}, {generation}, has no FP8 arithmetic, which begins with Ada (sm89)",),
            instead="Use {quantize: full}",
        )
    return None


def place_float8(graph: ir.Graph, keep_in_float: frozenset[str] = frozenset()) -> Placement:
    """The `tensorrt` dialect's plan, for the layers that TensorRT computes in FP8."""
    refused = {layer.name: why for layer in find_layers(graph) if (why := _float8_refusal(layer))}
    placement = place_for_tensorrt(graph, keep_in_float | frozenset(refused))
    layers = tuple(_decision(decision, refused) for decision in placement.layers)
    return replace(placement, layers=layers)


def _decision(decision: LayerDecision, refused: Mapping[str, str]) -> LayerDecision:
    """The decision in the words of FP8; the dialect's own speak of integers."""
    reason = "FP8 carries it" if decision.quantized else refused.get(decision.node, decision.reason)
    return decision.model_copy(update={"reason": reason})


def _float8_refusal(layer: Layer) -> str | None:
    """Why TensorRT would not compute the layer in FP8, or not well."""
    if layer.refusal is not None:
        return None
    if layer.kind == "ConvTranspose":
        return "TensorRT computes transposed convolutions in float, with FP8 pairs around it or not"
    if layer.kind == "Conv":
        return _convolution_refusal(layer)
    if min(layer.inner_size, layer.channels) < SMALLEST_PRODUCT:
        return (
            f"a product of {layer.inner_size} inputs and {layer.channels} channels is too small for FP8 "
            f"tensor cores (at least {SMALLEST_PRODUCT} each)"
        )
    return None


def _convolution_refusal(layer: Layer) -> str | None:
    inputs, outputs = layer.weight_shape[1], layer.channels // layer.group
    positions = math.prod(layer.weight_shape[2:])
    if layer.is_depthwise:
        return "TensorRT has no depthwise FP8 kernel: it would fill each channel up to four"
    if min(inputs, outputs) < SMALLEST_PRODUCT:
        group = " in each group" if layer.group > 1 else ""
        return (
            f"{inputs} input and {outputs} output channels{group} are too few for FP8 tensor cores (at least "
            f"{SMALLEST_PRODUCT} each)"
        )
    if positions > LARGEST_WINDOW:
        return f"a kernel of {positions} positions is too large for FP8 ({LARGEST_WINDOW} at most)"
    return None


def activation_scales(
    calibration: Calibration, placement: Placement, ranges: Float8Ranges
) -> dict[str, Floats]:
    """The scale of each site's value: float32, (); tied values have one that fits them all."""
    groups = {name: group for group in placement.ties for name in group}
    scales: dict[str, Floats] = {}
    for site in placement.sites:
        if site.value not in scales:
            group = groups.get(site.value, (site.value,))
            found = activation_scale((calibration.histogram(name) for name in group), ranges)
            scales.update(dict.fromkeys(group, found))
    return scales


def quantize_float8(
    model: ir.Model,
    placement: Placement,
    scales: Mapping[str, Floats],
    *,
    weight_ranges: Float8Ranges = "max",
) -> ir.Model:
    """A copy of a clean float model with FP8 weights and pairs; the model given stays as it is."""
    copy = model.clone()
    editor = Editor(copy)
    stored: dict[tuple[str, int], ir.Value] = {}
    for layer in find_layers(copy.graph):
        if layer.name in placement.quantized:
            key = (layer.weight.name or "", layer.weight_axis)
            if key not in stored:
                stored[key] = _store(editor, layer, weight_ranges)
            editor.rewire([(layer.name, 1)], stored[key])
    for site in placement.sites:
        parameters = editor.parameters(site.value, Scale(scales[site.value], np.zeros((), FLOAT8)))
        value = editor.dequantize(editor.quantize(site.value, parameters), site.value, parameters)
        editor.rewire([(reader.node, reader.index) for reader in site.readers], value)
    editor.drop_unused()
    return copy


def _store(editor: Editor, layer: Layer, ranges: Float8Ranges) -> ir.Value:
    values, scales = stored_weight(float_constant(layer.weight), layer.weight_axis, ranges)
    name = f"{layer.weight.name}_axis{layer.weight_axis}"
    return editor.store(name, values, Scale(scales, np.zeros((), FLOAT8), axis=layer.weight_axis))
