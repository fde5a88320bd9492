"""One layer of every kind, inputs for it, and integers so coarse that errors stand out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from small_models import model_of, normal

from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.static import LayerIntegers
from jettison.compress.quantization.weights import quantize_weight
from jettison.core.tensors import Arrays
from jettison.graph.qdq import Scale
from zoo.builder import Net

COUNT = 6


def image_layer(kind: str = "Conv", *, kernel: tuple[int, ...] = (3, 3), **attributes: Any) -> ir.Model:
    """One layer that reads 16 channels of 9 x 10 pixels and makes 16."""
    net = Net(kind, seed=3)
    net.input("x", ["batch", 16, 9, 10])
    groups = attributes.get("group", 1)
    shape = (16, 16 // groups, *kernel) if kind == "Conv" else (16, 16, *kernel)
    weight = net.const(net.rng.normal(0.05, 0.2, shape), "weight")
    inputs = ["x", weight, net.const(net.rng.normal(0, 1, 16), "bias")]
    net.named(kind, *inputs[: 2 if attributes.pop("bare", False) else 3], to="y", **attributes)
    net.output("y", ["batch", 16, "height", "width"])
    return model_of(net)


def product_layer(
    kind: str = "Gemm", *, bare: bool = False, rows: tuple[int, ...] = (), **attributes: Any
) -> ir.Model:
    """One product that reads 20 features and makes 24."""
    net = Net(kind, seed=4)
    net.input("x", ["batch", *rows, 20])
    shape = (24, 20) if attributes.get("transB") else (20, 24)
    inputs = ["x", net.const(net.rng.normal(0.05, 0.2, shape), "weight")]
    if kind == "Gemm" and not bare:
        inputs.append(net.const(net.rng.normal(0, 1, 24), "bias"))
    net.named(kind, *inputs, to="y", **attributes)
    net.output("y", ["batch", *rows, 24])
    return model_of(net)


LAYERS = {
    "padded": lambda: image_layer(pads=[1, 1, 1, 1]),
    "padded unevenly": lambda: image_layer(pads=[0, 2, 1, 0]),
    "padded by rule": lambda: image_layer(auto_pad="SAME_UPPER", strides=[2, 2]),
    "strided": lambda: image_layer(strides=[2, 3], pads=[1, 0, 1, 0]),
    "dilated": lambda: image_layer(dilations=[2, 2], pads=[1, 2, 0, 1]),
    "grouped": lambda: image_layer(group=4, pads=[1, 1, 1, 1]),
    "depthwise": lambda: image_layer(group=16, pads=[1, 1, 1, 1]),
    "pointwise": lambda: image_layer(kernel=(1, 1)),
    "without bias": lambda: image_layer(bare=True, pads=[1, 1, 1, 1]),
    "transposed": lambda: image_layer("ConvTranspose", strides=[2, 2], pads=[1, 1, 0, 0]),
    "Gemm": product_layer,
    "Gemm transB": lambda: product_layer(transB=1),
    "Gemm with factors": lambda: product_layer(alpha=0.5, beta=2.0),
    "Gemm with a factor and no bias": lambda: product_layer(bare=True, alpha=0.5),
    "Gemm without bias": lambda: product_layer(bare=True),
    "MatMul": lambda: product_layer("MatMul"),
    "MatMul over sequences": lambda: product_layer("MatMul", rows=(7,)),
}


def inputs_for(model: ir.Model, count: int = COUNT) -> Arrays:
    """Positive inputs, as behind a Relu, so that mean errors are far from zero."""
    shape = [size if isinstance(size, int) else count for size in model.graph.inputs[0].shape or ()]
    return {"x": np.abs(normal(*shape, seed=5)) + 0.1}


def coarse_integers(model: ir.Model, dialect: Dialect) -> dict[str, LayerIntegers]:
    """What a layer computes with, whatever a placement says; so coarse that errors stand out."""
    zero_point = np.array(3, np.uint8) if dialect == "cpu" else np.array(0, np.int8)
    (layer,) = find_layers(model.graph)
    weight = quantize_weight(layer.weight.const_value.numpy(), layer.weight_axis, pair_safe=dialect == "cpu")
    return {layer.name: LayerIntegers(Scale(np.array(0.3, np.float32), zero_point), weight)}
