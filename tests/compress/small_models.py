"""What tests of quantization share: a net made into a clean model, samples for it, and its real graph."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from jettison.compress.passes import PassResult, Workpiece
from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.quantize import QuantizeFull, place
from jettison.core.samples import Samples, samples_of
from jettison.core.targets import parse_target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner, session_of
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.clean import clean
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes
from zoo.builder import Net, image_net

MAP = ["batch", 16, 16, 16]
"""The output shape of a convolution over `image_net`'s input that keeps its size and channels."""
EQUAL_ABOVE_DB = 60.0
"""Two outputs that are both this near to the float ones are as good as equal: 0.1 % of the signal."""
PORTABLE_DB = 0.3
"""Kernel and simulation differ by the rounding of sums only. Source: the benchmark of portability."""


current_kernels = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason="ONNX Runtime 1.23, the last for Python 3.10, fuses such nodes otherwise",
)
"""For tests of what ONNX Runtime's optimizer makes of a file, as seen with 1.32."""


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def image(channels: int = 16, count: int = 16, seed: int = 0) -> Arrays:
    return {"image": normal(count, channels, 16, 16, seed=seed)}


def features(width: int = 32, count: int = 64, seed: int = 0) -> Arrays:
    return {"features": normal(count, width, seed=seed)}


def feature_net(width: int = 32) -> tuple[Net, str]:
    net = Net("features")
    return net, net.input("features", ["batch", width])


def model_of(net: Net) -> ir.Model:
    return clean(ir.from_proto(net.model()))


def samples_for(model: ir.Model, arrays: Arrays) -> Samples:
    return samples_of(arrays, specs=input_specs(model))


def calibrated(model: ir.Model, arrays: Arrays) -> Calibration:
    return calibrate(model, samples_for(model, arrays), threads=1)


def piece_of(model: ir.Model, target: str = "cpu") -> Workpiece:
    return Workpiece(model, parse_target(target), threads=1)


def quantized(model: ir.Model, arrays: Arrays, *, target: str = "cpu", **settings: Any) -> PassResult:
    piece, step = piece_of(model, target), QuantizeFull(**settings)
    assert step.check(piece) is None
    return step(piece, samples_for(model, arrays))


def run(model: ir.Model, arrays: Arrays, *, optimize: bool = True) -> Arrays:
    return OnnxRuntimeRunner(model_bytes(model), threads=1, optimize=optimize).run(arrays)


def quality_db(model: ir.Model, found: ir.Model, arrays: Arrays) -> tuple[float, float]:
    """SQNR against the float model: of the kernels that run, and of the exact simulation."""
    expected = run(model, arrays)
    figures = [sqnr_db(expected, run(found, arrays, optimize=optimize)) for optimize in (True, False)]
    assert figures[0] is not None
    assert figures[1] is not None
    return figures[0], figures[1]


def is_portable(kernel_db: float, simulation_db: float) -> bool:
    return min(kernel_db, simulation_db) > EQUAL_ABOVE_DB or abs(kernel_db - simulation_db) <= PORTABLE_DB


def real_graph(model: ir.Model) -> onnx.GraphProto:
    """The graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session_of(model_bytes(model), threads=1, optimized_path=path)
        return onnx.load(path).graph


def real_operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in real_graph(model).node)


FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose"}
)
"""Matrix operators that compute in float in ONNX Runtime's optimized graphs."""


def float_kernels(model: ir.Model) -> Counter[str]:
    return Counter({name: count for name, count in real_operators(model).items() if name in FLOAT_KERNELS})


def sites(model: ir.Model, dialect: Any = "cpu", keep: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """The plan in short: for each value that gets a pair, who reads it (`!` guarded), `->` for an output."""
    return {
        site.value: [
            *(f"{reader.node}:{reader.index}" for reader in site.readers),
            *(f"{reader.node}:{reader.index}!" for reader in site.guarded),
            *(["->"] if site.is_output else []),
        ]
        for site in place(model.graph, dialect, keep).sites
    }


def conv(net: Net, x: str, to: str, channels: tuple[int, int] = (16, 16), **attributes: Any) -> str:
    """A convolution called `node_<to>` that makes the value `to`."""
    return net.conv(x, channels, to=to, **attributes)


def clip(net: Net, x: str, low: float, high: float, *, to: str) -> str:
    return net.named("Clip", x, net.const(np.float32(low)), net.const(np.float32(high)), to=to)


def ties(model: ir.Model, dialect: Any = "cpu") -> tuple[tuple[str, ...], ...]:
    return place(model.graph, dialect).ties


@functools.cache
def residual_network() -> ir.Model:
    """Two blocks, the second with a projection, and a head: every operator has an integer kernel."""
    net, x = image_net("residual", 16)
    x = net.op("Relu", net.conv(x, (16, 32)))
    y = net.conv(net.op("Relu", net.conv(x, (32, 32))), (32, 32))
    x = net.op("Relu", net.op("Add", y, x))
    stride = {"strides": [2, 2]}
    y = net.conv(net.op("Relu", net.conv(x, (32, 64), **stride, pads=[1, 1, 1, 1])), (64, 64))
    shortcut = net.conv(x, (32, 64), kernel=1, **stride, pads=[0, 0, 0, 0])
    x = net.op("Relu", net.op("Add", y, shortcut))
    x = net.op("Relu", net.conv(x, (64, 64), kernel=1))
    net.head(x, 64)
    return model_of(net)


def two_convolutions(kind: str, *bounds: float) -> ir.Model:
    """Convolution a, an activation named act, convolution b."""
    net, x = image_net("two", 16)
    x = conv(net, x, "a")
    x = clip(net, x, *bounds, to="act") if bounds else net.named(kind, x, to="act")
    conv(net, x, "b")
    net.output("b", MAP)
    return model_of(net)
