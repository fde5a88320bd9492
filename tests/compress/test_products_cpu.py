"""The `cpu` dialect: which matrix products run on integers, whatever follows them."""

import numpy as np
import onnx_ir as ir
import pytest
from small_models import (
    clip,
    feature_net,
    features,
    float_kernels,
    is_portable,
    model_of,
    quality_db,
    quantized,
    real_operators,
)

from jettison.compress.quantization.placement import LayerDecision
from jettison.compress.quantization.quantize import place
from zoo.builder import Net, image_net


def decision(model: ir.Model) -> LayerDecision:
    (found,) = place(model.graph, "cpu").layers
    return found


def gemm(*, shape: tuple[int, ...] = (24,), tail: str = "Abs", **attributes: float) -> ir.Model:
    net, x = feature_net()
    net.inputs.clear()
    x = net.input("features", [64, 32])
    bias = [net.const(net.rng.normal(0, 0.1, shape))] if shape != (0,) else []
    x = net.named("Gemm", x, net.const(net.he((24, 32), 32)), *bias, to="y", transB=1, **attributes)
    x = clip(net, x, 0, 6, to="act") if tail == "Clip" else net.named(tail, x, to="act")
    net.named("Tanh", x, to="out")
    net.output("out", [64, 24])
    return model_of(net)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"beta": 2.0}, "its beta beside a bias are what integer kernels cannot do"),
        ({"alpha": 0.5, "beta": 2.0}, "its alpha and beta beside a bias are what integer kernels cannot do"),
        ({"shape": (64, 24)}, "its bias differs from row to row"),
        ({"shape": (64, 1)}, "its bias differs from row to row"),
    ],
    ids=str,
)
def test_a_gemm_that_no_integer_kernel_computes_stays_in_float(settings, reason: str) -> None:
    model = gemm(**settings)
    assert decision(model) == LayerDecision(node="node_y", kind="Gemm", quantized=False, reason=reason)


@pytest.mark.parametrize("tail", ["Abs", "Sigmoid", "Relu", "Clip", "LeakyRelu"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"shape": (1, 24)}, {"shape": (1,)}, {"shape": ()}, {"shape": (0,), "alpha": 0.5}],
    ids=str,
)
def test_any_other_gemm_runs_on_integers_whatever_follows(settings, tail: str) -> None:
    model = gemm(tail=tail, **settings)
    found = quantized(model, features()).model
    assert real_operators(found)["QGemm"] == 1
    assert not float_kernels(found)
    assert is_portable(*quality_db(model, found, features()))


@pytest.mark.parametrize("tail", ["Abs", "Relu", "Sigmoid"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [2, 3])
def test_a_product_runs_on_integers_with_or_without_an_added_bias(rank: int, bias: bool, tail: str) -> None:
    """ONNX Runtime joins a product of two dimensions and its bias into a Gemm, and then runs it in float."""
    net = Net("product")
    x = net.input("features", ["batch", *[8] * (rank - 2), 32])
    net.named("Abs", net.op(tail, net.linear(x, (32, 24), bias=bias)), to="out")
    net.output("out", ["batch", *[8] * (rank - 2), 24])
    model = model_of(net)
    arrays = {
        "features": np.random.default_rng(0).normal(size=(16, *[8] * (rank - 2), 32)).astype(np.float32)
    }
    found = quantized(model, arrays).model
    assert not float_kernels(found)
    assert is_portable(*quality_db(model, found, arrays))


def test_a_product_of_two_activations_is_no_layer() -> None:
    net = Net("attention")
    x = net.input("tokens", ["batch", 8, 32])
    query, key = net.linear(x, (32, 16), bias=False), net.linear(x, (32, 16), bias=False)
    net.named("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1]), to="scores")
    net.output("scores", ["batch", 8, 8])
    found = place(model_of(net).graph, "cpu")
    assert [layer.kind for layer in found.layers] == ["MatMul", "MatMul"]
    assert found.quantized == {"node_matmul_2", "node_matmul_4"}


def test_a_transposed_convolution_stays_in_float_with_its_reason() -> None:
    net, x = image_net("up", 16)
    net.named("ConvTranspose", x, net.const(net.he((16, 8, 2, 2), 16)), to="up", kernel_shape=[2, 2])
    net.output("up", ["batch", 8, 17, 17])
    assert decision(model_of(net)).reason == (
        "ONNX Runtime's CPU provider has no integer kernel for transposed convolutions"
    )
