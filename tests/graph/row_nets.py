"""Small nets of matrix products, through which factors of channels can be moved or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from image_nets import Build, ends

from zoo.builder import Net


def tokens(width: int = 12) -> tuple[Net, str]:
    net = Net("tokens")
    return net, net.input("tokens", ["batch", "length", width])


def rows(width: int = 12) -> tuple[Net, str]:
    net = Net("rows")
    return net, net.input("rows", ["batch", width])


def last_product(net: Net, x: str, width: int = 12) -> Net:
    weight = net.const(net.he((width, 6), width), "weight")
    return ends(net, net.named("MatMul", x, weight, to="end"), "length", 6)


def gated_tokens() -> Net:
    net, x = tokens()
    gate = net.op("Sigmoid", net.linear(x, (12, 16)))
    return last_product(net, net.named("Mul", gate, net.linear(x, (12, 16)), to="gated"), 16)


def bilinear_tokens() -> Net:
    """Both sides of the product could have a factor; the first one found has it."""
    net, x = tokens()
    return last_product(
        net, net.named("Mul", net.linear(x, (12, 16)), net.linear(x, (12, 16)), to="both"), 16
    )


def gemms(**attributes: Any) -> Build:
    def build() -> Net:
        net, x = rows()
        x = net.named("Relu", net.gemm(x, (12, 16), **attributes), to="act")
        return ends(net, net.gemm(x, (16, 6), to="end", **attributes), 6)

    return build


def transposed_activation() -> Net:
    """As many rows as columns, so that sizes do not tell which of them are channels."""
    net = Net("columns")
    x = net.input("columns", [16, 16])
    x = net.op("Relu", net.gemm(x, (16, 16)))
    net.gemm(x, (16, 6), transA=1, to="end")
    net.output("end", [16, 6])
    return net


def layer_norm(*readers: str) -> Build:
    """A LayerNormalization that three products read: Q, K and V; and whatever else is named."""

    def build() -> Net:
        net, x = tokens()
        scale, shift = (net.const(net.rng.uniform(0.5, 1.5, 12)) for _ in range(2))
        x = net.named("LayerNormalization", x, scale, shift, to="norm", axis=-1)
        return _three_products(net, x, readers)

    return build


def spelled_norm(*readers: str) -> Build:
    """The same, as exporters of old opsets write it."""

    def build() -> Net:
        net, x = tokens()
        axes = net.const(np.array([-1]))
        centred = net.op("Sub", x, net.op("ReduceMean", x, axes))
        variance = net.op("ReduceMean", net.op("Pow", centred, net.const(np.float32(2))), axes)
        deviation = net.op("Sqrt", net.op("Add", variance, net.const(np.float32(1e-5))))
        scale, shift = (net.const(net.rng.uniform(0.5, 1.5, 12)) for _ in range(2))
        scaled = net.op("Mul", net.op("Div", centred, deviation), scale)
        return _three_products(net, net.named("Add", scaled, shift, to="norm"), readers)

    def newer() -> Net:
        net = build()
        net.opset = 18
        return net

    return newer


def _three_products(net: Net, x: str, readers: tuple[str, ...]) -> Net:
    weights = [net.const(net.he((12, 12), 12), "weight") for _ in range(3)]
    query, key, value = (net.op("MatMul", x, weight) for weight in weights)
    total = net.op("Mul", net.op("Add", query, key), net.op("Tanh", value))
    for kind in readers:
        constants = [net.const(net.rng.uniform(0.5, 1.5, 12))] if kind == "Div" else []
        total = net.op("Add", total, net.op(kind, x, *constants))
    net.named("Tanh", total, to="end")
    return ends(net, "end", "length", 12)


def norm_that_is_an_output() -> Net:
    return ends(layer_norm()(), "norm", "length", 12)


def wide_norm() -> Net:
    """A LayerNormalization over two axes has a scale for each of their elements, not for each channel."""
    net = Net("squares")
    x = net.input("squares", ["batch", 12, 12])
    scale = net.const(net.rng.uniform(0.5, 1.5, (12, 12)))
    x = net.named("LayerNormalization", x, scale, to="norm", axis=1)
    weight = net.const(net.he((12, 6), 12), "weight")
    return ends(net, net.named("MatMul", x, weight, to="end"), 12, 6)


def gelu() -> Net:
    net, x = tokens()
    half = net.op("Mul", net.linear(x, (12, 16)), net.const(np.float32(0.5)))
    x = net.named("Mul", half, net.op("Erf", half), to="act")
    return last_product(net, x, 16)


def one_bias() -> Net:
    """One number is the bias of all columns."""
    net, x = rows()
    weights = [net.const(net.he(shape, 12), "weight") for shape in ((12, 16), (16, 6))]
    x = net.op("Relu", net.op("Gemm", x, weights[0], net.const(np.ones(1))))
    return ends(net, net.named("Gemm", x, weights[1], to="end"), 6)


def folded_rows() -> Net:
    """[batch, length, channels] as [batch * length, channels], as TensorFlow's exporters write it."""
    net, x = tokens()
    x = net.op("Relu", net.linear(x, (12, 16)))
    net.named("Reshape", x, net.const(np.array([-1, 16])), to="flat")
    return ends(net, net.gemm("flat", (16, 6), to="end"), 6)


def half_norm() -> Net:
    net = Net("half", dtype=np.float16)
    x = net.input("tokens", ["batch", "length", 12], onnx.TensorProto.FLOAT16)
    x = net.layernorm(x, 12)
    product = net.op("MatMul", x, net.const(net.he((12, 12), 12), "weight"))
    net.named("Add", product, net.op("Neg", x), to="end")
    net.output("end", ["batch", "length", 12], onnx.TensorProto.FLOAT16)
    return net


def left_product() -> Net:
    """The constant stands on the left: what it reads has its channels on the axis before the last."""
    net, x = tokens()
    x = net.op("Relu", net.linear(x, (12, 12)))
    x = net.op("Transpose", x, perm=[0, 2, 1])
    return ends(net, net.named("MatMul", net.const(net.he((6, 12), 12)), x, to="end"), 6, "length")


def stacked_weight() -> Net:
    """As many matrices as channels, so that sizes do not tell them apart."""
    net = Net("stack")
    x = net.op("Relu", net.linear(net.input("stack", [12, 5, 12]), (12, 12)))
    net.named("MatMul", x, net.const(net.he((12, 12, 6), 12)), to="end")
    net.output("end", [12, 5, 6])
    return net


def spread_rows() -> Net:
    """A constant that has a number for each row of what becomes a matrix, and none for its channels."""
    net = Net("spread")
    x = net.op("Relu", net.gemm(net.input("rows", [16, 12]), (12, 16)))
    spread = net.op("Mul", x, net.const(net.rng.uniform(0.5, 1.5, (1, 16, 1))))
    net.named("Add", net.op("Tanh", spread), net.gemm(x, (16, 16)), to="end")
    net.output("end", [1, 16, 16])
    return net
