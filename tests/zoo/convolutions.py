"""Convolutional patterns: chains, residuals, branches, squeeze-and-excite, activations, odd geometries."""

from __future__ import annotations

import numpy as np

from zoo.builder import image_net


def conv_relu_chain():
    net, x = image_net("conv_relu_chain", 8)
    for channels in ((8, 16), (16, 32)):
        x = net.op("Relu", net.conv(x, channels))
    net.head(x, 32)
    return net.model()


def strided_dilated_asymmetric():
    net, x = image_net("strided_dilated_asymmetric", 8)
    x = net.op("Relu", net.conv(x, (8, 16), strides=[2, 2], pads=[0, 0, 1, 1]))
    x = net.op("Relu", net.conv(x, (16, 16), dilations=[2, 2], pads=[2, 2, 2, 2]))
    x = net.op("Relu", net.conv(x, (16, 16), kernel=(1, 5), auto_pad="SAME_UPPER"))
    net.head(x, 16)
    return net.model()


def grouped_conv():
    net, x = image_net("grouped_conv", 16)
    x = net.op("Relu", net.conv(x, (16, 32), groups=4))
    net.head(net.op("Relu", net.conv(x, (32, 32), kernel=1)), 32)
    return net.model()


def conv_1d():
    net, _ = image_net("conv_1d")
    net.inputs.clear()
    x = net.input("signal", ["batch", 16, 64])
    x = net.op("Relu", net.conv(x, (16, 32), kernel=(5,)))
    x = net.op("MaxPool", x, kernel_shape=[2], strides=[2])
    net.head(net.op("Relu", net.conv(x, (32, 32), kernel=(3,))), 32)
    return net.model()


def depthwise_clip():
    """MobileNetV2's block: expand, depthwise, project, Clip 0..6 with its bounds as initializers."""
    net, x = image_net("depthwise_clip", 16)
    low, high = net.const(np.float32(0), "low"), net.const(np.float32(6), "high")
    y = net.op("Clip", net.conv(x, (16, 64), kernel=1), low, high)
    y = net.op("Clip", net.conv(y, (64, 64), groups=64), low, high)
    y = net.conv(y, (64, 16), kernel=1)
    net.head(net.op("Add", x, y), 16)
    return net.model()


def residual_add():
    net, x = image_net("residual_add", 16)
    y = net.op("Relu", net.conv(x, (16, 16)))
    x = net.op("Relu", net.op("Add", net.conv(y, (16, 16)), x))
    y = net.op("Relu", net.conv(x, (16, 16)))
    x = net.op("Relu", net.op("Add", net.conv(y, (16, 16)), x))
    net.head(x, 16)
    return net.model()


def residual_projection():
    net, x = image_net("residual_projection", 16)
    x = net.op("Relu", net.conv(x, (16, 16)))
    y = net.op("Relu", net.conv(x, (16, 32), strides=[2, 2], pads=[1, 1, 1, 1]))
    y = net.conv(y, (32, 32))
    shortcut = net.conv(x, (16, 32), kernel=1, strides=[2, 2], pads=[0, 0, 0, 0])
    net.head(net.op("Relu", net.op("Add", y, shortcut)), 32)
    return net.model()


def inception_concat():
    net, x = image_net("inception_concat", 16)
    branches = [net.op("Relu", net.conv(x, (16, 16), kernel=kernel)) for kernel in (1, 3, 5)]
    pooled = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    branches.append(net.op("Relu", net.conv(pooled, (16, 16), kernel=1)))
    x = net.op("Concat", *branches, axis=1)
    net.head(net.op("Relu", net.conv(x, (64, 32), kernel=1)), 32)
    return net.model()


def dense_concat():
    net, x = image_net("dense_concat", 16)
    width = 16
    for _ in range(3):
        y = net.op("Relu", net.conv(x, (width, 16)))
        x, width = net.op("Concat", x, y, axis=1), width + 16
    net.head(net.op("Relu", net.conv(x, (width, 32), kernel=1)), 32)
    return net.model()


def _squeeze_excite(net, x, channels, gate):
    s = net.op("GlobalAveragePool", x)
    s = net.op("Relu", net.conv(s, (channels, channels // 2), kernel=1))
    s = net.conv(s, (channels // 2, channels), kernel=1)
    return net.op("Mul", x, gate(s))


def squeeze_excite():
    net, x = image_net("squeeze_excite", 32)
    x = net.op("Relu", net.conv(x, (32, 32)))
    x = _squeeze_excite(net, x, 32, lambda s: net.op("Sigmoid", s))
    net.head(net.op("Relu", net.conv(x, (32, 32), kernel=1)), 32)
    return net.model()


def squeeze_excite_hard():
    """MobileNetV3: hard-sigmoid gate, hard-swish as its own operator and as Add, Clip, Mul, Div."""
    net, x = image_net("squeeze_excite_hard", 32)
    x = net.op("HardSwish", net.conv(x, (32, 32)))
    x = _squeeze_excite(net, x, 32, lambda s: net.op("HardSigmoid", s, alpha=1 / 6, beta=0.5))
    x = net.conv(x, (32, 32), kernel=1)
    shifted = net.op("Add", x, net.const(np.float32(3)))
    clipped = net.op("Clip", shifted, net.const(np.float32(0)), net.const(np.float32(6)))
    x = net.op("Div", net.op("Mul", x, clipped), net.const(np.float32(6)))
    net.head(x, 32)
    return net.model()


def silu():
    net, x = image_net("silu", 16)
    for channels in ((16, 32), (32, 32)):
        x = net.conv(x, channels)
        x = net.op("Mul", x, net.op("Sigmoid", x))
    net.head(x, 32)
    return net.model()


def leaky_and_prelu():
    net, x = image_net("leaky_and_prelu", 16)
    x = net.op("LeakyRelu", net.conv(x, (16, 32)), alpha=0.1)
    slope = net.const(net.rng.uniform(0.05, 0.3, (32, 1, 1)), "slope")
    x = net.op("PRelu", net.conv(x, (32, 32)), slope)
    net.head(x, 32)
    return net.model()


def conv_transpose():
    net, x = image_net("conv_transpose", 16)
    x = net.op("Relu", net.conv(x, (16, 32)))
    weight = net.const(net.he((32, 16, 2, 2), 32), "weight")
    bias = net.const(net.rng.normal(0, 0.1, 16), "bias")
    x = net.op("Relu", net.op("ConvTranspose", x, weight, bias, kernel_shape=[2, 2], strides=[2, 2]))
    net.output(net.conv(x, (16, 16), to="mask"), ["batch", 16, 32, 32])
    return net.model()


def _resize(net, x, mode, **attributes):
    return net.op(
        "Resize", x, "", net.const(np.array([1, 1, 2, 2], np.float32), "scales"), mode=mode, **attributes
    )


def resize_nearest_linear():
    net, x = image_net("resize_nearest_linear", 16)
    x = net.op("Relu", net.conv(x, (16, 16)))
    x = _resize(net, x, "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    x = net.op("Relu", net.conv(x, (16, 16)))
    x = _resize(net, x, "linear", coordinate_transformation_mode="half_pixel")
    net.output(net.conv(x, (16, 16), kernel=1, to="map"), ["batch", 16, 64, 64])
    return net.model()


def pools_and_shapes():
    """MaxPool, AveragePool, Pad, Slice, Split, Reshape, Transpose, Flatten around two convolutions."""
    net, x = image_net("pools_and_shapes", 16)
    x = net.op("Pad", x, net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"))
    x = net.op("Relu", net.conv(x, (16, 32), pads=[0, 0, 0, 0]))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    left, right = net.op("Split", x, net.const(np.array([16, 16])), axis=1, outputs=2)
    x = net.op("Concat", right, left, axis=1)
    starts, ends, axes = (net.const(np.array(v)) for v in ([1, 1], [7, 7], [2, 3]))
    x = net.op("Slice", x, starts, ends, axes)
    x = net.op("AveragePool", net.conv(x, (32, 16)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Transpose", x, perm=[0, 2, 3, 1])
    x = net.op("Reshape", x, net.const(np.array([0, 9, 16])))
    net.gemm(net.op("Flatten", x, axis=1), (144, 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def nhwc_input():
    """An image as TensorFlow stores it: the Transpose to channels first is part of the model."""
    net, _ = image_net("nhwc_input")
    net.inputs.clear()
    x = net.input("image", ["batch", 16, 16, 16])
    x = net.op("Transpose", x, perm=[0, 3, 1, 2])
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.head(net.op("Relu", net.conv(x, (32, 32))), 32)
    return net.model()


def dynamic_size():
    net, _ = image_net("dynamic_size")
    net.inputs.clear()
    x = net.input("image", ["batch", 16, "height", "width"])
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.output(net.conv(x, (32, 16), kernel=1, to="map"), ["batch", 16, "height", "width"])
    net.head(x, 32)
    return net.model()


def many_consumers():
    """One convolution feeds three nodes; its Relu is shared by two convolutions."""
    net, x = image_net("many_consumers", 16)
    trunk = net.conv(x, (16, 32))
    shared = net.op("Relu", trunk)
    branches = [net.conv(shared, (32, 16)), net.conv(shared, (32, 16), kernel=1)]
    gate = net.conv(net.op("Sigmoid", trunk), (32, 16), kernel=1)
    x = net.op("Add", net.op("Add", *branches), net.op("Mul", gate, net.conv(trunk, (32, 16), kernel=1)))
    net.head(x, 16)
    return net.model()


def output_consumed_inside():
    """A Relu that is a graph output and goes on; a convolution whose output is a graph output."""
    net, x = image_net("output_consumed_inside", 16)
    features = net.named("Relu", net.conv(x, (16, 32)), to="features")
    net.output("features", ["batch", 32, 16, 16])
    net.output(net.conv(features, (32, 16), kernel=1, to="mask"), ["batch", 16, 16, 16])
    net.head(net.op("Relu", "mask"), 16)
    return net.model()


def dead_channel():
    """Two output channels with all-zero weights: a quantizer that divides by their range fails."""
    net, x = image_net("dead_channel", 16)
    weight = net.he((32, 16, 3, 3), 144)
    weight[[3, 17]] = 0
    x = net.op("Relu", net.op("Conv", x, net.const(weight, "weight"), kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    net.head(net.op("Relu", net.conv(x, (32, 32), kernel=1)), 32)
    return net.model()
