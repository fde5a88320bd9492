"""The audit names what is quantized yet computed in float, and why, by the compiler's own list of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from breakers import BREAKERS, FLOAT32, SCALES, dequantize, good, integers, model, node, pair

from jettison.core.targets import parse_target
from jettison.engines.tensorrt.audit import fallbacks
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import AuditedLayer

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed"),
]
SM86 = parse_target("sm86")


def audited(folder: Path, proto: onnx.ModelProto) -> list[AuditedLayer]:
    onnx.save(proto, folder / "model.onnx")
    report = preflight(folder / "model.onnx", SM86)
    assert report.compiles
    return list(fallbacks(ir.from_proto(proto), report.layers, SM86))


def transposed() -> onnx.ModelProto:
    weight = {"w": integers(16, 16, 3, 3), "sw": np.full(16, 0.001, FLOAT32), "zw": np.zeros(16, np.int8)}
    nodes = [
        *pair("x"),
        dequantize("w", "w_dq", "sw", "zw", axis=1),
        node("ConvTranspose", ["x_dq", "w_dq"], "y"),
    ]
    return model(nodes, {**SCALES, **weight})


def test_a_convolution_in_integers_is_not_named(tmp_path: Path) -> None:
    assert audited(tmp_path, good()) == []


@pytest.mark.parametrize(
    ("proto", "found", "reason"),
    [
        (transposed(), "y", "TensorRT-RTX has no integer kernel for ConvTranspose"),
        (BREAKERS["T118"].build(), "y", "T118: scales for each channel are for weights"),
        (BREAKERS["T208"].build(), "y", "T208: with one of the two in float the layer runs in float"),
    ],
)
def test_what_falls_back_is_named_with_the_reason(
    tmp_path: Path, proto: onnx.ModelProto, found: str, reason: str
) -> None:
    layers = audited(tmp_path, proto)
    assert [(layer.node, layer.computed_in) for layer in layers] == [(found, "float32")]
    assert layers[0].reason.startswith(reason)


def test_int4_weights_are_meant_to_be_decompressed(tmp_path: Path) -> None:
    stored = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [64, 32], [3] * 2048)
    zero = onnx.helper.make_tensor("zw", onnx.TensorProto.INT4, [2, 32], [0] * 64)
    nodes = [dequantize("w", "w_dq", "sw", "zw", axis=0, block_size=32), node("MatMul", ["x", "w_dq"], "y")]
    scales = {"sw": np.full((2, 32), 0.01, FLOAT32)}
    assert audited(tmp_path, model(nodes, {"w": stored, "zw": zero, **scales}, shape=("N", 64))) == []
