"""Nets in which factors can be moved, each with the junctions that are right for it, and nets that refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import image_nets as images
import numpy as np
import onnx_ir as ir
import row_nets as rows
from image_nets import Build, act, joined, then_conv, then_product
from row_nets import layer_norm

from jettison.graph.clean import clean


@dataclass(frozen=True)
class Case:
    """A net and its junctions: the names of each one's reads, and how many channels they have."""

    build: Build
    junctions: Mapping[tuple[str, ...], int]
    multiplied: bool = False

    def model(self) -> ir.Model:
        return clean(ir.from_proto(self.build().model()))


_ONE, _SUM = {("act",): 8}, {("sum",): 8}
_SLOPES = np.linspace(0.1, 0.4, 8, dtype=np.float32).reshape(8, 1, 1)
_ZERO, _SIX, _INF = np.float32(0), np.float32(6), np.float32(np.inf)
_LARGEST = np.finfo(np.float32).max
_DOUBLE = np.array([1, 1, 2, 2], np.float32)
_IMAGE_AXES = np.array([2, 3])

MOVED: dict[str, Case] = {
    "convolution": Case(images.plain, _ONE),
    "Relu": Case(act("Relu"), _ONE),
    "LeakyRelu": Case(act("LeakyRelu", alpha=0.1), _ONE),
    "PRelu": Case(act("PRelu", _SLOPES), _ONE),
    "Neg": Case(act("Neg"), _ONE),
    "Clip from 0": Case(act("Clip", _ZERO), _ONE),
    "Clip from 0 to infinity": Case(act("Clip", _ZERO, _INF), _ONE),
    "Clip from 0 to the largest number": Case(act("Clip", _ZERO, _LARGEST), _ONE),
    "Clip without bounds": Case(act("Clip"), _ONE),
    "MaxPool": Case(act("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), _ONE),
    "AveragePool": Case(act("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), _ONE),
    "GlobalMaxPool": Case(act("GlobalMaxPool"), _ONE),
    "Resize": Case(act("Resize", None, _DOUBLE, mode="linear"), _ONE),
    "ReduceMean over the image": Case(act("ReduceMean", _IMAGE_AXES), _ONE),
    "ReduceMax over the image": Case(act("ReduceMax", _IMAGE_AXES), _ONE),
    "depthwise": Case(images.depthwise, {("wide",): 16, ("deep",): 16}),
    "groups": Case(images.grouped, {("first",): 16, ("second",): 12}),
    "ConvTranspose": Case(images.transposed_conv, {("before",): 8, ("behind",): 12}),
    "residual": Case(images.residual, {("trunk", "trunk1", "trunk2"): 8, ("branch1",): 4, ("branch2",): 4}),
    "residual of an input": Case(images.residual_of_input, {("branch",): 8}),
    "residual of itself": Case(images.residual_of_itself, {("trunk", "sum"): 8}),
    "shape is read": Case(images.shape_is_read, {("pooled", "sum"): 8}),
    "two readers": Case(images.two_readers, _ONE),
    "gated image": Case(images.gated_image, {("pooled", "gated"): 8}),
    "gated tokens": Case(rows.gated_tokens, {("gated",): 16}),
    "both sides of a product": Case(rows.bilinear_tokens, {("both",): 16}),
    "pooled head": Case(images.pooled_head, {("flat",): 8}),
    "Gemm": Case(rows.gemms(transB=0), {("act",): 16}),
    "Gemm transB": Case(rows.gemms(transB=1), {("act",): 16}),
    "Gemm with factors": Case(rows.gemms(alpha=0.5, beta=2.0), {("act",): 16}),
    "LayerNormalization": Case(layer_norm(), {("norm",): 12}),
    "LayerNormalization, residual": Case(layer_norm("Div", "Sin"), {("norm",): 12}, multiplied=True),
    "LayerNormalization over two axes": Case(rows.wide_norm, {("norm",): 12}, multiplied=True),
    "norm taken apart": Case(rows.spelled_norm(), {("norm",): 12}),
    "norm taken apart, residual": Case(rows.spelled_norm("Sin"), {("norm",): 12}, multiplied=True),
    "Gelu taken apart": Case(rows.gelu, {("act",): 16}, multiplied=True),
    "BatchNormalization": Case(images.batch_norm, _ONE),
    "InstanceNormalization": Case(images.instance_norm, {("norm",): 8}),
    "channels last": Case(images.channels_last, {("last",): 8}),
    "rows folded": Case(rows.folded_rows, {("flat",): 16}),
    "constant for each channel added": Case(images.added_constant((8, 1, 1)), _ONE),
    "constant for each channel and place added": Case(images.added_constant((8, 16, 16)), _ONE),
    "Mul by a constant for each channel": Case(images.scaled("Mul", (8, 1, 1)), {("scaled",): 8}),
    "Div by a constant for each channel": Case(images.scaled("Div", (1, 8, 1, 1)), {("scaled",): 8}),
    "Mul by a number for each channel and place": Case(images.scaled("Mul", (8, 16, 16)), {("scaled",): 8}),
    "Mul by a number": Case(images.scaled("Mul", ()), {("scaled",): 8}),
    "Div by a number": Case(images.scaled("Div", (1,)), {("scaled",): 8}),
    "Mul by a constant beside a layer": Case(images.scaled_beside("Mul"), _ONE),
    "Div by a constant beside a layer": Case(images.scaled_beside("Div"), _ONE),
    "sum of pools": Case(then_conv(joined("AveragePool", kernel_shape=[2, 2])), _SUM),
    "sum of means": Case(then_product(joined("ReduceMean", _IMAGE_AXES, keepdims=0)), _SUM),
    "sum of channels last": Case(then_product(joined("Transpose", perm=[0, 2, 3, 1]), 16, 16), _SUM),
    "sum of flat images": Case(images.flat_images, _SUM),
    "shared bias": Case(images.shared_bias, _ONE),
}  # fmt: skip
"""Nets with factors to move."""

KEPT: dict[str, Build] = {
    "Clip from 0 to 6": act("Clip", _ZERO, _SIX),
    "Clip from below 0": act("Clip", np.float32(-1)),
    "Clip from above 0": act("Clip", np.float32(0.5), _INF),
    "Clip to 6": act("Clip", None, _SIX),
    "Sigmoid": act("Sigmoid"),
    "Resize that crops": act(
        "Resize", np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32), _DOUBLE, mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=1.0,
    ),
    "concatenation": images.concat,
    "reader that is not linear": images.reader_that_is_not_linear,
    "square": images.squared,
    "flattened image": images.flattened_image,
    "transposed activation": rows.transposed_activation,
    "number added": images.added_constant(()),
    "map added to all channels": images.added_map,
    "divisor of a number": images.divisor(np.float32(1)),
    "divisor of a number for each channel": images.divisor(_SLOPES),
    "reshaped channels": images.dealt_out,
    "pool along the axis of channels": images.pooled_across,
    "Resize of channels": images.channels_joined("Resize", None, np.float32([1, 2, 1, 1]), left=16),
    "mean over channels": images.channels_joined("ReduceMean", np.array([1]), left=1),
    "mean over all": images.channels_joined("ReduceMean", left=1),
    "one bias for all columns": rows.one_bias,
    "shared weight": images.shared_weight,
    "output between": images.output_between,
    "norm that is an output": rows.norm_that_is_an_output,
    "sum with its own transpose": images.turned,
    "sum with its own transpose, scaled": images.turned_and_scaled,
    "branch of an If reads": images.branch_reads,
    "float16": images.half_precision,
    "float16 norm": rows.half_norm,
    "constant on the left": rows.left_product,
    "Mul that makes a matrix of rows": rows.spread_rows,
    "stacked weight": rows.stacked_weight,
}  # fmt: skip
"""Nets in which no value between two layers may change."""
