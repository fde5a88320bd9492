"""A short way to write small ONNX models with seeded, realistic weights (He initialization)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


@dataclass
class Net:
    """A model under construction; each method returns the names of the values it makes."""

    name: str
    opset: int = 17
    ir_version: int = 8
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    dtype: type = np.float32

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.count = 0

    def fresh(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def input(self, name, shape, dtype=FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value, shape, dtype=FLOAT):
        self.outputs.append(helper.make_tensor_value_info(value, dtype, shape))

    def const(self, array, stem="const"):
        """An initializer with that content; float arrays take the net's float type."""
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        name = self.fresh(stem)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def he(self, shape, fan_in):
        """He-initialized weights. Source: He et al., arXiv 1502.01852, section 2.2."""
        return self.rng.normal(0, np.sqrt(2 / fan_in), shape).astype(self.dtype)

    def op(self, kind, *inputs, outputs=1, name=None, domain="", **attributes):
        """A node; the name of its output, or a tuple of names."""
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        node = helper.make_node(
            kind, list(inputs), names, name=name or f"node_{names[0]}", domain=domain, **attributes
        )
        self.nodes.append(node)
        return names[0] if outputs == 1 else tuple(names)

    def named(self, kind, *inputs, to, **attributes):
        """A node whose output has the given name (for graph outputs)."""
        self.nodes.append(helper.make_node(kind, list(inputs), [to], name=f"node_{to}", **attributes))
        return to

    def conv(self, x, channels, *, kernel=3, groups=1, bias=True, to=None, **attributes):
        """A convolution from `channels[0]` to `channels[1]`, padded to the same size unless told."""
        source, target = channels
        sizes = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        shape = (target, source // groups, *sizes)
        weight = self.const(self.he(shape, int(np.prod(shape[1:]))), "weight")
        inputs = [x, weight]
        if bias:
            inputs.append(self.const(self.rng.normal(0, 0.1, target), "bias"))
        if not {"pads", "auto_pad"} & set(attributes):
            attributes["pads"] = [size // 2 for size in sizes] * 2
        attributes = {"kernel_shape": sizes, "group": groups, **attributes}
        if to is not None:
            return self.named("Conv", *inputs, to=to, **attributes)
        return self.op("Conv", *inputs, **attributes)

    def gemm(self, x, sizes, *, to=None, **attributes):
        """A Gemm from `sizes[0]` to `sizes[1]` features, weights stored by transB (1 unless told)."""
        source, target = sizes
        attributes = {"transB": 1, **attributes}
        weight = self.he((target, source), source)
        inputs = [x, self.const(weight if attributes["transB"] else weight.T, "weight")]
        inputs.append(self.const(self.rng.normal(0, 0.1, target), "bias"))
        if to is not None:
            return self.named("Gemm", *inputs, to=to, **attributes)
        return self.op("Gemm", *inputs, **attributes)

    def linear(self, x, sizes, *, bias=True):
        """MatMul with constant weights, and an Add of the bias: how linear layers over 3-D are exported."""
        source, target = sizes
        y = self.op("MatMul", x, self.const(self.he((source, target), source), "weight"))
        return self.op("Add", y, self.const(self.rng.normal(0, 0.1, target), "bias")) if bias else y

    def batchnorm(self, x, channels, **attributes):
        """A BatchNormalization with statistics that are not trivial."""
        gamma = self.const(self.rng.uniform(0.5, 1.5, channels), "gamma")
        beta = self.const(self.rng.normal(0, 0.2, channels), "beta")
        mean = self.const(self.rng.normal(0, 0.3, channels), "mean")
        variance = self.const(self.rng.uniform(0.5, 2.0, channels), "variance")
        return self.op("BatchNormalization", x, gamma, beta, mean, variance, epsilon=1e-4, **attributes)

    def layernorm(self, x, width):
        """LayerNormalization over the last axis, opset 17."""
        scale = self.const(self.rng.uniform(0.8, 1.2, width), "scale")
        return self.op(
            "LayerNormalization", x, scale, self.const(np.zeros(width), "shift"), axis=-1, epsilon=1e-5
        )

    def head(self, x, channels, classes=16, to="logits"):
        """Global pooling, Flatten and a Gemm: the usual end of a classifier."""
        pooled = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        self.gemm(pooled, (channels, classes), to=to)
        self.output(to, ["batch", classes])

    def model(self, functions=()):
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(domain, 1) for domain in sorted({f.domain for f in functions})]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=self.ir_version, functions=functions
        )


def image_net(name, channels=16, **settings):
    """A net that already has the input `image`, (batch, channels, 16, 16), and its name."""
    net = Net(name, **settings)
    return net, net.input("image", ["batch", channels, 16, 16])
