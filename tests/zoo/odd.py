"""Signatures and contents that trip tools: several inputs and outputs, unused inputs, other float types."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from zoo.builder import Net, image_net


def unused_input():
    net, x = image_net("unused_input", 16)
    net.input("flag", [], TensorProto.INT64)
    net.head(net.op("Relu", net.conv(x, (16, 32))), 32)
    return net.model()


def many_inputs_outputs():
    net, x = image_net("many_inputs_outputs", 16)
    meta = net.input("meta", ["batch", 16])
    x = net.op("Relu", net.conv(x, (16, 32)))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    joined = net.op("Concat", pooled, net.op("Relu", net.gemm(meta, (16, 32))), axis=1)
    for name, width in (("logits", 16), ("box", 4)):
        net.gemm(joined, (64, width), to=name)
        net.output(name, ["batch", width])
    net.named("ArgMax", "logits", to="label", axis=1, keepdims=0)
    net.output("label", ["batch"], TensorProto.INT64)
    return net.model()


def no_weighted_op():
    net, x = image_net("no_weighted_op", 16)
    x = net.op("MaxPool", net.op("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    net.named("Softmax", net.op("Flatten", x, axis=1), to="out", axis=1)
    net.output("out", ["batch", 1024])
    return net.model()


def dynamic_weights():
    """The second convolution's kernel is computed from an input, so it cannot be quantized beforehand."""
    net, x = image_net("dynamic_weights", 16)
    kernel = net.input("kernel", [16, 16, 3, 3])
    x = net.op("Relu", net.conv(x, (16, 16)))
    scaled = net.op("Mul", kernel, net.const(np.float32(0.1)))
    x = net.op("Relu", net.op("Conv", x, scaled, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    net.head(x, 16)
    return net.model()


def half_precision():
    net = Net("half_precision", dtype=np.float16)
    x = net.input("image", ["batch", 16, 16, 16], TensorProto.FLOAT16)
    x = net.op("Relu", net.conv(x, (16, 32)))
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    net.gemm(x, (32, 16), to="logits")
    net.output("logits", ["batch", 16], TensorProto.FLOAT16)
    return net.model()


def fixed_batch():
    net = Net("fixed_batch")
    x = net.input("image", [2, 16, 16, 16])
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.output(net.conv(x, (32, 16), kernel=1, to="map"), [2, 16, 16, 16])
    return net.model()


def narrow_layers():
    """Layers with fewer than 16 channels on one side, which TensorRT runs faster in float."""
    net, x = image_net("narrow_layers", 3)
    x = net.op("Relu", net.conv(x, (3, 16)))
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.output(net.conv(x, (32, 4), kernel=1, to="box"), ["batch", 4, 16, 16])
    return net.model()


def data_dependent_shape():
    """NonZero: how many rows come out is known only when it runs, and with it the last dimension."""
    net = Net("data_dependent_shape")
    x = net.input("features", ["rows", 32])
    y = net.op("Relu", net.linear(x, (32, 16)))
    found = net.op("Transpose", net.op("NonZero", y), perm=[1, 0])
    values = net.op("GatherND", y, found)
    net.named("ReduceSum", values, net.const(np.array([0])), to="total", keepdims=1)
    net.output("total", [1])
    return net.model()
