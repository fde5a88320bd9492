"""Linear layers, attention, embeddings and recurrent layers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from zoo.builder import Net


def _tokens(name, width=32, **settings):
    net = Net(name, **settings)
    return net, net.input("tokens", ["batch", "length", width])


def gemm_only():
    net = Net("gemm_only")
    x = net.input("features", ["batch", 32])
    x = net.op("Relu", net.gemm(x, (32, 64)))
    net.gemm(x, (64, 16), to="scores")
    net.output("scores", ["batch", 16])
    return net.model()


def gemm_forms():
    """transB 0 and 1, alpha and beta that are not 1, no bias."""
    net = Net("gemm_forms")
    x = net.input("features", ["batch", 32])
    x = net.op("Relu", net.gemm(x, (32, 64), transB=0))
    x = net.op("Relu", net.gemm(x, (64, 32), alpha=0.5, beta=2.0))
    weight = net.const(net.he((32, 16), 32), "weight")
    net.named("Gemm", x, weight, to="scores", alpha=1.5)
    net.output("scores", ["batch", 16])
    return net.model()


def matmul_bias():
    net, x = _tokens("matmul_bias")
    x = net.op("Relu", net.linear(x, (32, 64)))
    y = net.linear(x, (64, 32))
    net.named("Tanh", y, to="out")
    net.output("out", ["batch", "length", 32])
    return net.model()


def _split_heads(net, x, heads, width):
    x = net.op("Reshape", x, net.const(np.array([0, 0, heads, width // heads])))
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


def _attention(net, x, width, heads=2):
    q, k, v = (_split_heads(net, net.linear(x, (width, width)), heads, width) for _ in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Div", scores, net.const(np.float32(np.sqrt(width / heads))))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.const(np.array([0, 0, width])))
    return net.linear(y, (width, width))


def _gelu(net, x):
    erf = net.op("Erf", net.op("Div", x, net.const(np.float32(np.sqrt(2)))))
    half = net.op("Mul", x, net.const(np.float32(0.5)))
    return net.op("Mul", half, net.op("Add", erf, net.const(np.float32(1))))


def _decomposed_layernorm(net, x, width):
    axes = {"axes": [-1]}
    centred = net.op("Sub", x, net.op("ReduceMean", x, **axes))
    variance = net.op("ReduceMean", net.op("Pow", centred, net.const(np.float32(2))), **axes)
    deviation = net.op("Sqrt", net.op("Add", variance, net.const(np.float32(1e-5))))
    scale = net.const(net.rng.uniform(0.8, 1.2, width), "scale")
    return net.op("Add", net.op("Mul", net.op("Div", centred, deviation), scale), net.const(np.zeros(width)))


def _block(net, x, norm):
    width = 32
    x = net.op("Add", x, _attention(net, norm(net, x, width), width))
    y = net.linear(_gelu(net, net.linear(norm(net, x, width), (width, 64))), (64, width))
    x = net.op("Add", x, y)
    net.gemm(net.op("ReduceMean", x, axes=[1], keepdims=0), (width, 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def attention_layernorm():
    net, x = _tokens("attention_layernorm")
    return _block(net, x, lambda net, x, width: net.layernorm(x, width))


def attention_decomposed():
    net, x = _tokens("attention_decomposed", opset=13)
    return _block(net, x, _decomposed_layernorm)


def embedding():
    """Token ids (int64) through Gather; the ids are below 50."""
    net = Net("embedding")
    ids = net.input("ids", ["batch", "length"], TensorProto.INT64)
    x = net.op("Gather", net.const(net.he((50, 32), 2), "table"), ids, axis=0)
    x = net.op("Relu", net.linear(x, (32, 64)))
    net.gemm(net.op("ReduceMean", x, axes=[1], keepdims=0), (64, 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def _recurrent(kind, gates):
    net, x = _tokens(kind.lower())
    hidden = 16
    x = net.op("Transpose", x, perm=[1, 0, 2])
    w = net.const(net.he((1, gates * hidden, 32), 64), "w")
    r = net.const(net.he((1, gates * hidden, hidden), 32), "r")
    y = net.op(kind, x, w, r, net.const(np.zeros((1, 2 * gates * hidden))), hidden_size=hidden, outputs=2)[1]
    net.gemm(net.op("Squeeze", y, net.const(np.array([0]))), (hidden, 16), to="logits")
    net.output("logits", ["batch", 16])
    return net.model()


def lstm():
    return _recurrent("LSTM", 4)


def gru():
    return _recurrent("GRU", 3)
