"""What cleaning folds or resolves: BatchNormalization, Identity, Dropout, If, constants, functions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.builder import image_net


def batchnorm_after_conv():
    net, x = image_net("batchnorm_after_conv", 16)
    x = net.op("Relu", net.batchnorm(net.conv(x, (16, 32), bias=False), 32))
    x = net.op("Relu", net.batchnorm(net.conv(x, (32, 32), groups=32), 32))
    net.head(net.op("Relu", net.batchnorm(net.conv(x, (32, 32), kernel=1), 32)), 32)
    return net.model()


def batchnorm_alone():
    """A BatchNormalization in front of the first convolution, which has nothing to fold into."""
    net, x = image_net("batchnorm_alone", 16)
    x = net.op("Relu", net.conv(net.batchnorm(x, 16), (16, 32)))
    net.head(x, 32)
    return net.model()


def batchnorm_transpose_gemm():
    """BatchNormalization after a grouped ConvTranspose and after Gemm with alpha, beta and both transB."""
    net, x = image_net("batchnorm_transpose_gemm", 16)
    weight = net.const(net.he((16, 8, 2, 2), 16), "weight")
    x = net.op("ConvTranspose", x, weight, kernel_shape=[2, 2], strides=[2, 2], group=2)
    x = net.op("Relu", net.batchnorm(x, 16))
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    x = net.op("Relu", net.batchnorm(net.gemm(x, (16, 32), alpha=0.5, beta=2.0), 32))
    net.named("Relu", net.batchnorm(net.gemm(x, (32, 16), transB=0), 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def batchnorm_through_constants():
    """Identity between convolution and BatchNormalization, whose gamma comes from a Constant and a Mul."""
    net, x = image_net("batchnorm_through_constants", 16)
    x = net.op("Identity", net.conv(x, (16, 32)))
    gamma = net.op(
        "Constant", value=numpy_helper.from_array(net.rng.uniform(0.5, 1.5, 32).astype(np.float32))
    )
    gamma = net.op("Mul", gamma, net.const(np.float32(1.5)))
    rest = [net.const(net.rng.uniform(0.1, 1.0, 32)) for _ in range(3)]
    net.head(net.op("Relu", net.op("BatchNormalization", x, gamma, *rest)), 32)
    return net.model()


def batchnorm_shared_weight():
    """Two convolutions share weights and only one is followed by BatchNormalization."""
    net, x = image_net("batchnorm_shared_weight", 16)
    weight = net.const(net.he((16, 16, 3, 3), 144), "weight")
    bias = net.const(net.rng.normal(0, 0.1, 16), "bias")
    geometry = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    x = net.op("Relu", net.batchnorm(net.op("Conv", x, weight, bias, **geometry), 16))
    net.head(net.op("Relu", net.op("Conv", x, weight, bias, **geometry)), 16)
    return net.model()


def shared_weight():
    net, x = image_net("shared_weight", 16)
    weight = net.const(net.he((16, 16, 3, 3), 144), "weight")
    for _ in range(2):
        x = net.op("Relu", net.op("Conv", x, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    net.head(x, 16)
    return net.model()


def identity_chain():
    net, x = image_net("identity_chain", 16)
    x = net.conv(net.op("Identity", net.op("Identity", x)), (16, 32))
    x = net.op("Relu", net.op("Identity", net.op("Identity", x)))
    x = net.op("Dropout", x, net.const(np.float32(0.5)))
    net.head(x, 32, to="scores")
    net.named("Identity", "scores", to="logits")
    net.outputs[0].name = "logits"
    return net.model()


def indirect_weights():
    """Weights through a Constant node, an Identity, a Transpose and a Reshape."""
    net, x = image_net("indirect_weights", 16)
    geometry = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    constant = net.op("Constant", value=numpy_helper.from_array(net.he((16, 16, 3, 3), 144)))
    x = net.op("Relu", net.op("Conv", x, constant, **geometry))
    through = net.op("Identity", net.const(net.he((32, 16, 3, 3), 144), "weight"))
    x = net.op("Relu", net.op("Conv", x, through, **geometry))
    turned = net.op("Transpose", net.const(net.he((3, 3, 32, 32), 288), "weight"), perm=[3, 2, 0, 1])
    x = net.op("Relu", net.op("Conv", x, turned, **geometry))
    flat = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    weight = net.op("Reshape", net.const(net.he((32 * 16,), 32), "weight"), net.const(np.array([32, 16])))
    net.named("MatMul", flat, weight, to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def _branch(name, kind, x):
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    node = helper.make_node(kind, [x], [f"{name}_out"], name=f"{name}_{kind}")
    return helper.make_graph([node], name, [], [out])


def if_constant():
    net, x = image_net("if_constant", 16)
    x = net.conv(x, (16, 32))
    condition = net.op("Constant", value=numpy_helper.from_array(np.array(True)))
    x = net.op(
        "If", condition, then_branch=_branch("then", "Relu", x), else_branch=_branch("other", "Tanh", x)
    )
    net.head(net.op("Relu", net.conv(x, (32, 32), kernel=1)), 32)
    return net.model()


def if_on_data():
    """The branch depends on the mean of the input, and the convolution before it is used inside."""
    net, x = image_net("if_on_data", 16)
    y = net.conv(x, (16, 32))
    mean = net.op("ReduceMean", x, keepdims=0)
    condition = net.op("Greater", mean, net.const(np.float32(0)))
    y = net.op(
        "If", condition, then_branch=_branch("then", "Relu", y), else_branch=_branch("other", "Tanh", y)
    )
    net.head(net.op("Relu", net.conv(y, (32, 32), kernel=1)), 32)
    return net.model()


def shape_arithmetic():
    """Flatten as PyTorch's old exporter wrote it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    net, x = image_net("shape_arithmetic", 16)
    x = net.op("Relu", net.conv(x, (16, 32), strides=[2, 2], pads=[1, 1, 1, 1]))
    x = net.op("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4])
    batch = net.op("Gather", net.op("Shape", x), net.const(np.array(0)), axis=0)
    rows = net.op("Unsqueeze", batch, net.const(np.array([0])))
    shape = net.op("Concat", rows, net.const(np.array([-1])), axis=0)
    net.gemm(net.op("Reshape", x, shape), (128, 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def local_function():
    """A block written as a function of the model, called twice."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z"], name="relu"),
    ]
    function = helper.make_function(
        "blocks", "ConvRelu", ["x", "w"], ["z"], nodes, [helper.make_opsetid("", 17)]
    )
    net, x = image_net("local_function", 16)
    for _ in range(2):
        x = net.op("ConvRelu", x, net.const(net.he((16, 16, 3, 3), 144), "weight"), domain="blocks")
    net.head(x, 16)
    return net.model(functions=[function])


def unused_parts():
    """A node, an optional output and an initializer that nothing uses, in a model without node names."""
    net, x = image_net("unused_parts", 16)
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.const(np.zeros(7, np.float32), "unused")
    net.op("Sigmoid", x)
    pooled, _ = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
    net.head(pooled, 32)
    model = net.model()
    for node in model.graph.node:
        node.name = ""
    return onnx.shape_inference.infer_shapes(model)
