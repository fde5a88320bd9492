"""Models as old or careless exporters wrote them: old opsets and IR, dimensions without names."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from zoo.builder import Net, image_net


def opset_9():
    """Clip with attributes, Upsample, Dropout and BatchNormalization of opset 9."""
    net, x = image_net("opset_9", 16, opset=9, ir_version=4)
    x = net.op("Clip", net.batchnorm(net.conv(x, (16, 32)), 32), min=0.0, max=6.0)
    x = net.op("Upsample", x, net.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    x = net.op("Dropout", net.op("Relu", net.conv(x, (32, 32), kernel=1)), ratio=0.3)
    net.head(x, 32, to="scores")
    net.named("Softmax", "scores", to="logits", axis=1)
    net.outputs[0].name = "logits"
    return net.model()


def opset_11():
    """Squeeze, Unsqueeze, Split, Pad and ReduceSum with axes as attributes where opset 13 has inputs."""
    net, x = image_net("opset_11", 16, opset=11, ir_version=6)
    x = net.op("Pad", x, net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    x = net.op("Relu", net.conv(x, (16, 32), pads=[0, 0, 0, 0]))
    left, right = net.op("Split", x, axis=1, split=[16, 16], outputs=2)
    x = net.op("ReduceSum", net.op("Mul", left, right), axes=[2, 3], keepdims=0)
    x = net.op("Squeeze", net.op("Unsqueeze", x, axes=[2]), axes=[2])
    x = net.op("Mul", x, net.const(np.float32(1e-3)))
    net.named("Softmax", net.gemm(x, (16, 16)), to="logits", axis=1)
    net.output("logits", ["batch", 16])
    return net.model()


def initializers_as_inputs():
    """IR 3: every initializer is also a graph input."""
    net, x = image_net("initializers_as_inputs", 16, opset=9, ir_version=3)
    x = net.op("Relu", net.batchnorm(net.conv(x, (16, 32)), 32))
    net.head(x, 32)
    model = net.model()
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return model


def _with_dimensions(name, first, size):
    net = Net(name)
    x = net.input("image", [first, 16, size, size])
    x = net.op("Relu", net.conv(x, (16, 32)))
    net.output(net.conv(x, (32, 16), kernel=1, to="map"), [first, 16, size, size])
    return net.model()


def question_mark_dimensions():
    """All open dimensions are called `?`, though batch and size differ."""
    return _with_dimensions("question_mark_dimensions", "?", "?")


def unnamed_dimensions():
    return _with_dimensions("unnamed_dimensions", None, None)


def negative_dimensions():
    """-1 for open dimensions: not ONNX, but written and run."""
    model = _with_dimensions("negative_dimensions", "open", "open")
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = -1
    return model


def double_precision_constant():
    """A float64 detour in the middle, as NumPy's defaults leave behind."""
    net, x = image_net("double_precision_constant", 16)
    x = net.op("Cast", net.conv(x, (16, 32)), to=TensorProto.DOUBLE)
    x = net.op("Mul", x, net.op("Cast", net.const(np.float32(0.5)), to=TensorProto.DOUBLE))
    x = net.op("Relu", net.op("Cast", x, to=TensorProto.FLOAT))
    net.head(x, 32)
    return net.model()
