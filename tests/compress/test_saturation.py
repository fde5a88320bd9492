"""Saturation: plain static quantization loses on kernels without VNNI what ours does not.

VPMADDUBSW adds two products of unsigned 8-bit activations and signed 8-bit weights into 16 bits and
saturates. The models here provoke it: large activations, and neighbouring weights of one sign.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from small_models import feature_net, features, image, is_portable, model_of, quality_db, quantized

from jettison.core.tensors import Arrays
from jettison.graph.model import open_model
from jettison.graph.save import save_model
from zoo.builder import Net, image_net


def one_signed(net: Net, shape: tuple[int, ...]) -> str:
    """Weights whose neighbours along the kernel share a sign, by output channel: a low-pass filter bank."""
    signs = np.where(net.rng.random(shape[0]) < 0.5, -1, 1).reshape(-1, *[1] * (len(shape) - 1))
    return net.const(signs * net.rng.uniform(0.5, 1.0, shape) / np.prod(shape[1:]), "weight")


def convolutions() -> tuple[ir.Model, Arrays]:
    net, x = image_net("blur", 16)
    x = net.op("Sigmoid", net.op("Add", x, net.const(np.float32(3))))
    x = net.op("Relu", net.op("Conv", x, one_signed(net, (32, 16, 3, 3)), kernel_shape=[3, 3]))
    net.named("Conv", x, one_signed(net, (16, 32, 1, 1)), to="out", kernel_shape=[1, 1])
    net.output("out", ["batch", 16, 14, 14])
    return model_of(net), image(16, 32)


def grouped() -> tuple[ir.Model, Arrays]:
    net, x = image_net("grouped", 16)
    x = net.op("Sigmoid", net.op("Add", x, net.const(np.float32(3))))
    net.named("Conv", x, one_signed(net, (16, 4, 3, 3)), to="out", kernel_shape=[3, 3], group=4)
    net.output("out", ["batch", 16, 14, 14])
    return model_of(net), image(16, 32)


def products() -> tuple[ir.Model, Arrays]:
    net, x = feature_net()
    x = net.op("Sigmoid", net.op("Add", x, net.const(np.float32(3))))
    x = net.op("Gemm", x, one_signed(net, (64, 32)), net.const(net.rng.normal(0, 0.1, 64)), transB=1)
    x = net.op("Relu", x)
    weight = net.const(np.ascontiguousarray(np.abs(net.he((32, 64), 64)).T), "weight")
    net.named("MatMul", x, weight, to="out")
    net.output("out", ["batch", 32])
    return model_of(net), features()


CASES = {"Conv": convolutions, "grouped Conv": grouped, "Gemm and MatMul": products}


def plainly_quantized(model: ir.Model, arrays: Arrays, folder: Path) -> ir.Model:
    """What ONNX Runtime's own quantizer makes with MinMax ranges, UINT8 activations and INT8 weights."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([arrays])

        def get_next(self) -> Arrays | None:
            return next(self.rows, None)

    save_model(model, folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "plain.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return open_model(folder / "plain.onnx")


def processor_flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


SATURATES = "avx2" in processor_flags() and not {"avx512_vnni", "avx_vnni"} & processor_flags()


@pytest.mark.parametrize("method", ["max", "mse"])
@pytest.mark.parametrize("name", CASES)
def test_our_kernels_compute_what_the_graph_says_on_any_processor(name: str, method: str) -> None:
    model, arrays = CASES[name]()
    kernel_db, simulation_db = quality_db(model, quantized(model, arrays, ranges=method).model, arrays)
    assert is_portable(kernel_db, simulation_db)
    assert kernel_db > 30


@pytest.mark.skipif(not SATURATES, reason="this processor adds in 32 bits, so nothing saturates here")
@pytest.mark.parametrize("name", CASES)
def test_plain_quantization_saturates_where_ours_does_not(name: str, tmp_path: Path) -> None:
    model, arrays = CASES[name]()
    kernel_db, simulation_db = quality_db(model, plainly_quantized(model, arrays, tmp_path), arrays)
    assert simulation_db - kernel_db > 10
    assert quality_db(model, quantized(model, arrays).model, arrays)[0] > kernel_db + 10
