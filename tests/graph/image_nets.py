"""Small nets of convolutions, through which factors of channels can be moved or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from zoo.builder import Net, image_net

Build = Callable[[], Net]


def ends(net: Net, value: str, *sizes: int | str) -> Net:
    net.output(value, ["batch", *sizes])
    return net


def image(channels: int = 8, **settings: Any) -> tuple[Net, str]:
    return image_net("image", channels, **settings)


def last_conv(net: Net, x: str, channels: int = 8, **attributes: Any) -> Net:
    """A convolution that ends the net: it gives every factor back."""
    return ends(net, net.conv(x, (channels, 6), kernel=1, to="end", **attributes), 6, "h", "w")


def act(kind: str, *constants: Any, channels: int = 8, **attributes: Any) -> Build:
    """Convolution, an operator whose output is `act`, convolution."""

    def build() -> Net:
        net, x = image()
        inputs = [net.const(constant) if constant is not None else "" for constant in constants]
        net.named(kind, net.conv(x, (8, channels)), *inputs, to="act", **attributes)
        return last_conv(net, "act", channels)

    return build


def plain() -> Net:
    net, x = image()
    return last_conv(net, net.conv(x, (8, 8), to="act"))


def depthwise() -> Net:
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 16), kernel=1), to="wide")
    x = net.named("Relu", net.conv(x, (16, 16), groups=16), to="deep")
    return last_conv(net, x, 16)


def grouped() -> Net:
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 16), groups=2), to="first")
    x = net.named("Relu", net.conv(x, (16, 12), groups=4), to="second")
    return last_conv(net, x, 12)


def transposed_conv() -> Net:
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 8)), to="before")
    weight = net.const(net.he((8, 6, 2, 2), 8), "weight")
    bias = net.const(net.rng.normal(0, 0.1, 12), "bias")
    y = net.op("ConvTranspose", x, weight, bias, kernel_shape=[2, 2], strides=[2, 2], group=2)
    return last_conv(net, net.named("Relu", y, to="behind"), 12)


def residual() -> Net:
    """Two blocks on one trunk: the trunk's two values share their factors, each branch has its own."""
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 8)), to="trunk")
    for number in (1, 2):
        y = net.named("Relu", net.conv(x, (8, 4)), to=f"branch{number}")
        x = net.named("Relu", net.op("Add", net.conv(y, (4, 8)), x), to=f"trunk{number}")
    return last_conv(net, x)


def residual_of_input() -> Net:
    net, x = image()
    y = net.named("Relu", net.conv(x, (8, 8)), to="branch")
    return last_conv(net, net.op("Relu", net.op("Add", net.conv(y, (8, 8)), x)))


def residual_of_itself() -> Net:
    """A convolution that reads a value and is added to it: its weight takes factors on both sides."""
    net, x = image()
    x = net.conv(x, (8, 8), to="trunk")
    return last_conv(net, net.named("Add", x, net.conv(x, (8, 8), kernel=1), to="sum"))


def concat() -> Net:
    net, x = image()
    branches = [net.op("Relu", net.conv(x, (8, 4), kernel=kernel)) for kernel in (1, 3)]
    return last_conv(net, net.op("Concat", *branches, axis=1))


def two_readers() -> Net:
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 8)), to="act")
    return last_conv(net, net.op("Sigmoid", net.op("Add", net.conv(x, (8, 8)), net.conv(x, (8, 8)))))


def reader_that_is_not_linear() -> Net:
    net, x = image()
    x = net.op("Relu", net.conv(x, (8, 8)))
    return last_conv(net, net.op("Add", net.conv(x, (8, 8)), net.op("Sigmoid", x)))


def gated_image() -> Net:
    """Squeeze and excite: the gate reads the value that it scales."""
    net, x = image()
    x = net.op("Relu", net.conv(x, (8, 8)))
    pooled = net.named("GlobalAveragePool", x, to="pooled")
    gate = net.op("Sigmoid", net.conv(pooled, (8, 8), kernel=1))
    return last_conv(net, net.named("Mul", x, gate, to="gated"))


def squared() -> Net:
    net, x = image()
    x = net.conv(x, (8, 8))
    return last_conv(net, net.op("Mul", x, x))


def pooled_head() -> Net:
    net, x = image()
    net.named("GlobalAveragePool", net.op("Relu", net.conv(x, (8, 8))), to="pooled")
    net.named("Flatten", "pooled", to="flat", axis=1)
    return ends(net, net.gemm("flat", (8, 6), to="end"), 6)


def flattened_image() -> Net:
    """Behind the Flatten a channel is 256 columns of the Gemm, which one axis cannot tell."""
    net, x = image()
    flat = net.op("Flatten", net.op("Relu", net.conv(x, (8, 8))), axis=1)
    return ends(net, net.gemm(flat, (8 * 256, 6), to="end"), 6)


def batch_norm() -> Net:
    net, x = image()
    x = net.named("Relu", net.batchnorm(net.op("Abs", x), 8), to="act")
    return last_conv(net, x)


def instance_norm() -> Net:
    net, x = image()
    scale, shift = (net.const(net.rng.uniform(0.5, 1.5, 8)) for _ in range(2))
    return last_conv(net, net.named("InstanceNormalization", x, scale, shift, to="norm"))


def joined(kind: str, *constants: Any, **attributes: Any) -> Build:
    """Two convolutions, the same operator behind each, and their sum: one is entered from behind."""

    def build() -> Net:
        net, x = image()
        inputs = [net.const(constant) for constant in constants]
        both = [net.op(kind, net.conv(x, (8, 8)), *inputs, **attributes) for _ in range(2)]
        net.named("Add", *both, to="sum")
        return net

    return build


def then_conv(build: Build) -> Build:
    return lambda: last_conv(build(), "sum")


def then_product(build: Build, *sizes: int) -> Build:
    def whole() -> Net:
        net = build()
        net.named("MatMul", "sum", net.const(net.he((8, 6), 8), "weight"), to="end")
        return ends(net, "end", *sizes, 6)

    return whole


def flat_images() -> Net:
    """[batch, channels, height, width] as [batch, channels, height * width], and a convolution over that."""
    net = joined("Reshape", np.array([0, 8, 256]))()
    weight = net.const(net.he((6, 8, 1), 8), "weight")
    return ends(net, net.named("Conv", "sum", weight, to="end"), 6, 256)


def dealt_out() -> Net:
    """The last axis is as long as that of channels was, and holds something else."""
    net, x = image()
    x = net.op("Reshape", net.op("Relu", net.conv(x, (8, 8))), net.const(np.array([0, 256, 8])))
    return ends(net, net.named("MatMul", x, net.const(net.he((8, 6), 8)), to="end"), 256, 6)


def pooled_across() -> Net:
    """Channels of the product lie along the width, over which the pool goes."""
    net, x = image()
    scale = net.const(net.rng.uniform(0.5, 1.5, 16))
    x = net.op("LayerNormalization", x, scale, axis=-1)
    x = net.op("MaxPool", x, kernel_shape=[1, 3], pads=[0, 1, 0, 1])
    return ends(net, net.named("MatMul", x, net.const(net.he((16, 6), 16)), to="end"), 8, 16, 6)


def channels_joined(kind: str, *constants: Any, left: int, **attributes: Any) -> Build:
    """An operator that makes other channels of those of the convolution."""

    def build() -> Net:
        net, x = image()
        inputs = [net.const(constant) if constant is not None else "" for constant in constants]
        x = net.op(kind, net.op("Relu", net.conv(x, (8, 8))), *inputs, **attributes)
        return last_conv(net, x, left)

    return build


def channels_last() -> Net:
    net, x = image()
    x = net.named("Transpose", net.op("Relu", net.conv(x, (8, 8))), to="last", perm=[0, 2, 3, 1])
    x = net.op("MatMul", x, net.const(net.he((8, 6), 8)))
    return ends(net, net.named("Tanh", x, to="end"), 16, 16, 6)


def added_constant(shape: tuple[int, ...]) -> Build:
    def build() -> Net:
        net, x = image()
        shift = net.const(net.rng.normal(0, 1, shape))
        return last_conv(net, net.named("Add", shift, net.conv(x, (8, 8)), to="act"))

    return build


def added_map() -> Net:
    """A map of one channel that is added to all of eight has no channels of its own to divide."""
    net, x = image()
    return last_conv(net, net.op("Add", net.conv(x, (8, 8)), net.conv(x, (8, 1))))


def scaled(kind: str, shape: tuple[int, ...]) -> Build:
    """A constant between two convolutions: it may take the factor itself."""

    def build() -> Net:
        net, x = image()
        scale = net.const(net.rng.uniform(0.5, 1.5, shape))
        x = net.named(kind, net.conv(x, (8, 8), to="first"), scale, to="scaled")
        return last_conv(net, x)

    return build


def scaled_beside(kind: str) -> Build:
    """A constant that gives the factor back to a Sigmoid, which could not take it."""

    def build() -> Net:
        net, x = image()
        x = net.named("Relu", net.conv(x, (8, 8)), to="act")
        scale = net.const(net.rng.uniform(0.5, 1.5, (8, 1, 1)))
        gate = net.op("Sigmoid", net.op(kind, x, scale))
        return last_conv(net, net.op("Mul", gate, net.op("Tanh", net.conv(x, (8, 8)))))

    return build


def divisor(numerator: Any) -> Build:
    """Halving what is divided by would double the quotient."""

    def build() -> Net:
        net, x = image()
        return last_conv(net, net.op("Div", net.const(numerator), net.conv(x, (8, 8))))

    return build


def shared_weight() -> Net:
    """One weight for two convolutions, of which one stands behind a Relu that could have factors."""
    net, x = image()
    weight = net.const(net.he((8, 8, 1, 1), 8), "shared")
    y = net.op("Conv", net.op("Relu", net.conv(x, (8, 8))), weight, kernel_shape=[1, 1])
    other = net.op("Conv", x, weight, kernel_shape=[1, 1])
    return ends(net, net.named("Add", y, other, to="end"), 8, 16, 16)


def shared_bias() -> Net:
    """Two layers add one bias; the first one's factor must not reach the second."""
    net, x = image()
    bias = net.const(net.rng.normal(0, 1, 8), "bias")
    weights = [net.const(net.he((8, 8, 1, 1), 8), "weight") for _ in range(2)]
    x = net.named("Relu", net.op("Conv", x, weights[0], bias, kernel_shape=[1, 1]), to="act")
    x = net.named("Conv", x, weights[1], bias, to="end", kernel_shape=[1, 1])
    return ends(net, x, 8, 16, 16)


def output_between() -> Net:
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 8)), to="features")
    ends(net, "features", 8, 16, 16)
    return last_conv(net, x)


def shape_is_read() -> Net:
    """The shape of a value, to which another is resized, has nothing to do with its factors."""
    net = Net("pyramid")
    x = net.input("image", ["batch", 8, "height", "width"])
    fine = net.named("Relu", net.conv(x, (8, 8)), to="fine")
    coarse = net.named("MaxPool", fine, to="pooled", kernel_shape=[2, 2], strides=[2, 2])
    coarse = net.named("Relu", net.conv(coarse, (8, 8)), to="coarse")
    wide = net.op("Resize", coarse, "", "", net.op("Shape", fine), mode="nearest")
    return last_conv(net, net.named("Add", fine, wide, to="sum"))


def turned(*, scaled: bool = False) -> Net:
    """As many rows as channels, which change places in one side of the sum, alone or behind a constant."""
    net, x = image()
    x = net.op("Relu", net.conv(x, (8, 16)))
    y = net.op("Mul", x, net.const(net.rng.uniform(0.5, 1.5, (16, 1, 1)))) if scaled else x
    return last_conv(net, net.op("Add", x, net.op("Transpose", y, perm=[0, 2, 1, 3])), 16)


def turned_and_scaled() -> Net:
    return turned(scaled=True)


def branch_reads() -> Net:
    """A branch of an If reads the value too, by a convolution of its own."""
    net, x = image()
    x = net.named("Relu", net.conv(x, (8, 8)), to="act")
    chosen = net.op("Greater", net.op("Tanh", net.input("number", [])), net.const(np.float32(0)))
    weights = [net.const(net.he((8, 8, 1, 1), 8), "weight") for _ in range(2)]
    then_branch, else_branch = (_branch(f"in_{weight}", weight) for weight in weights)
    y = net.op("If", chosen, then_branch=then_branch, else_branch=else_branch)
    return last_conv(net, net.op("Sigmoid", net.op("Add", net.conv(x, (8, 8)), y)))


def _branch(name: str, weight: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    node = helper.make_node("Conv", ["act", weight], [name], name=name, kernel_shape=[1, 1])
    return helper.make_graph([node], name, [], [output])


def half_precision() -> Net:
    net = Net("half", dtype=np.float16)
    x = net.input("image", ["batch", 8, 16, 16], onnx.TensorProto.FLOAT16)
    net.conv(net.op("Relu", net.conv(x, (8, 8))), (8, 8), to="end")
    net.output("end", ["batch", 8, 16, 16], onnx.TensorProto.FLOAT16)
    return net
