"""The pass `{quantize: float8}`: what it takes, refuses, writes, and what TensorRT's compiler makes of it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError
from small_models import (
    conv,
    current_kernels,
    image,
    model_of,
    normal,
    piece_of,
    real_operators,
    residual_network,
    run,
    samples_for,
    sites,
)
from zoo_cases import zoo_calibration, zoo_case

from jettison.compress.passes import Pass, PassResult, Refusal, Workpiece
from jettison.compress.quantization.cast import CastFloat16
from jettison.compress.quantization.float8 import QuantizeFloat8, activation_scales, quantize_float8
from jettison.compress.quantization.float8_scales import FLOAT8
from jettison.compress.quantization.placement_tensorrt import place_for_tensorrt
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import shapes_of
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import PreflightReport
from jettison.engines.tensorrt.shares import precision_by_node
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.macs import macs_by_node
from jettison.graph.save import model_bytes, save_model, weight_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned

needs_compiler = pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")


def refused(model: ir.Model, target: str = "sm89", **settings: object) -> Refusal:
    refusal = QuantizeFloat8.model_validate(settings).check(piece_of(model, target))
    assert refusal is not None
    return refusal


def made(name: str, target: str = "sm89", **settings: object) -> PassResult:
    step = QuantizeFloat8.model_validate(settings)
    piece = Workpiece(zoo_case(name).model, parse_target(target), 1, None, lambda *_: zoo_calibration(name))
    assert step.check(piece) is None
    return step(piece, zoo_case(name).samples)


def kept(result: PassResult) -> dict[str, str]:
    return {layer.kind: layer.reason for layer in result.layers if not layer.quantized}


def test_the_pass_is_its_configuration() -> None:
    step = QuantizeFloat8(ranges="mse")
    assert isinstance(step, Pass)
    assert QuantizeFloat8.model_validate_json(step.model_dump_json()) == step
    assert QuantizeFloat8().model_dump() == {"quantize": "float8", "ranges": "max", "keep_float": ()}


@pytest.mark.parametrize("wrong", [{"ranges": "kl"}, {"percentile": 99.9}, {"quantize": "full"}], ids=str)
def test_a_wrong_key_or_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QuantizeFloat8.model_validate(wrong)


def test_the_cpu_is_refused_with_the_way_out() -> None:
    assert str(refused(residual_network(), "cpu")) == (
        "ONNX Runtime has no FP8 kernels for the CPU, and its optimizations drop a Relu in front of FP8 "
        "pairs. Use {quantize: full}, or {quantize: int4} for a smaller file"
    )


def test_a_target_that_names_no_gpu_is_refused() -> None:
    assert str(refused(residual_network(), "tensorrt")) == (
        "the target `tensorrt` is any GPU from Ampere on, and FP8 begins with Ada (sm89). "
        "Name the GPU, such as sm89 or sm120, or use {quantize: full}"
    )


@pytest.mark.parametrize(
    ("target", "generation"),
    [("sm75", "Turing (T4)"), ("sm86", "Ampere (A10, RTX 30)"), ("sm87", "Ampere (Jetson Orin)")],
)
def test_gpus_before_ada_are_refused(target: str, generation: str) -> None:
    assert str(refused(residual_network(), target)) == (
        f"{target}, {generation}, has no FP8 arithmetic, which begins with Ada (sm89). Use {{quantize: full}}"
    )


@pytest.mark.parametrize("target", ["sm89", "sm90", "sm100", "sm120"])
def test_gpus_from_ada_on_are_taken(target: str) -> None:
    assert QuantizeFloat8().check(piece_of(residual_network(), target)) is None


def test_a_model_without_weights_is_refused() -> None:
    assert str(refused(cleaned("no_weighted_op"))) == (
        "the model has no layer with constant weights. "
        "Use {quantize: full} or {quantize: float16} on the float32 original"
    )


def test_a_model_that_is_quantized_already_is_refused() -> None:
    refusal = refused(made("residual_add").model)
    assert refusal.reasons[0].startswith("the model is quantized already")


def test_a_pattern_that_matches_no_layer_is_refused() -> None:
    refusal = refused(cleaned("gemm_only"), keep_float=["x*"])
    assert refusal.reasons == ("keep_float: 'x*' matches no weighted layer",)
    assert refusal.instead == "Layers are node_gemm_3, node_scores"


def test_layers_are_kept_in_float_as_asked() -> None:
    assert kept(made("residual_add", keep_float=["node_logits"])) == {"Gemm": "left in float as asked"}


@functools.cache
def odd_layers() -> ir.Model:
    """A stem, a depthwise, a 7 x 7 and a usual convolution, one of thin groups, and two products."""
    net, x = image_net("odd", 3)
    x = net.op("Relu", conv(net, x, "stem", (3, 32)))
    x = net.op("Relu", conv(net, x, "depthwise", (32, 32), groups=32))
    x = net.op("Relu", conv(net, x, "wide", (32, 32), kernel=7))
    x = net.op("Relu", conv(net, x, "usual", (32, 32)))
    x = net.op("Relu", conv(net, x, "grouped", (32, 32), groups=4))
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    x = net.op("Relu", net.gemm(x, (32, 16), to="product"))
    net.gemm(x, (16, 4), to="narrow")
    net.output("narrow", ["batch", 4])
    return model_of(net)


def test_layers_that_gain_nothing_in_fp8_stay_in_float_with_the_reason() -> None:
    placement = QuantizeFloat8().placement(piece_of(odd_layers(), "sm89"))
    assert {layer.node: layer.reason for layer in placement.layers} == {
        "node_stem": "3 input and 32 output channels are too few for FP8 tensor cores (at least 16 each)",
        "node_depthwise": "TensorRT has no depthwise FP8 kernel: it would fill each channel up to four",
        "node_wide": "a kernel of 49 positions is too large for FP8 (32 at most)",
        "node_usual": "FP8 carries it",
        "node_grouped": (
            "8 input and 8 output channels in each group are too few for FP8 tensor cores (at least 16 each)"
        ),
        "node_product": "FP8 carries it",
        "node_narrow": (
            "a product of 16 inputs and 4 channels is too small for FP8 tensor cores (at least 16 each)"
        ),
    }
    assert placement.quantized == {"node_usual", "node_product"}


def test_a_model_of_such_layers_alone_is_refused_with_their_reasons() -> None:
    net, x = image_net("stem", 3)
    conv(net, x, "stem", (3, 16))
    net.output("stem", ["batch", 16, 16, 16])
    assert str(refused(model_of(net))) == (
        "Conv: 3 input and 16 output channels are too few for FP8 tensor cores (at least 16 each). "
        "Use {quantize: full} or {quantize: float16} on the float32 original"
    )


def test_pairs_stand_where_int8_has_them_for_tensorrt() -> None:
    """The shortcut of a residual addition has one, the convolution's branch has none."""
    model = residual_network()
    placement = QuantizeFloat8().placement(piece_of(model, "sm89"))
    found = {site.value: [f"{r.node}:{r.index}" for r in site.readers] for site in placement.sites}
    assert found == sites(model, "tensorrt")
    assert placement.ties == place_for_tensorrt(model.graph, frozenset()).ties


def test_weights_and_activations_are_stored_in_e4m3() -> None:
    model, before = residual_network(), model_bytes(residual_network())
    result = QuantizeFloat8()(piece_of(model, "sm89"), samples_for(model, image()))
    onnx.checker.check_model(model_bytes(result.model), full_check=True)
    assert model_bytes(model) == before, "the model given stays as it is"
    for node in result.model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert node.inputs[2].dtype == ir.DataType.FLOAT8E4M3FN
            assert not node.inputs[2].const_value.numpy().astype(float).any()
        if node.op_type in ("Conv", "Gemm"):
            stored = node.inputs[1].producer()
            assert stored.inputs[0].const_value.numpy().dtype == FLOAT8
            assert stored.inputs[1].shape == ir.Shape([stored.inputs[0].shape[0]]), "a scale for each channel"
    assert weight_bytes(result.model) < 0.28 * weight_bytes(model)
    assert result.notes == ("needs a GPU from Ada (sm89) on",)
    assert result.simulation is None


def test_a_weight_that_layers_share_is_stored_once() -> None:
    stored = [
        value
        for value in made("shared_weight").model.graph.initializers.values()
        if value.dtype == ir.DataType.FLOAT8E4M3FN and len(value.shape) == 4
    ]
    assert len(stored) == 1
    assert len(stored[0].uses()) == 1


def test_equal_inputs_give_equal_bytes() -> None:
    assert model_bytes(made("inception_concat").model) == model_bytes(made("inception_concat").model)


# What the file computes


def pair_alone(before: str = "") -> tuple[ir.Model, np.float32]:
    """x, perhaps through an operator, rounded to FP8 and back in front of a product by the unit matrix."""
    net = Net("pair", opset=19)
    x = net.input("features", ["batch", 16])
    x = net.op(before, x) if before else x
    net.named("MatMul", x, net.const(np.eye(16, dtype=np.float32), "unit"), to="y")
    net.output("y", ["batch", 16])
    model = model_of(net)
    placement = QuantizeFloat8().placement(piece_of(model, "sm89"))
    scale = np.float32(0.01)
    scales = {site.value: np.asarray(scale) for site in placement.sites}
    return quantize_float8(model, placement, scales), scale


def test_onnx_runtime_without_optimizations_computes_what_fp8_would() -> None:
    """Nearest, ties to even, saturating at 448 steps, subnormal numbers too, as numpy computes it."""
    model, scale = pair_alone()
    grid = np.arange(127, dtype=np.uint8).view(FLOAT8).astype(np.float32)
    ties = (grid[1:] + grid[:-1]) / 2
    values = np.concatenate([grid, ties, [449, 464, 465, 1e6], normal(47, scale=100)]).astype(np.float32)
    x = (np.concatenate([values, -values]) * scale).reshape(-1, 16)
    expected = np.clip(x / scale, -448, 448).astype(FLOAT8).astype(np.float32) * scale
    np.testing.assert_allclose(run(model, {"features": x}, optimize=False)["y"], expected, rtol=1e-6)


@current_kernels
def test_onnx_runtimes_optimizations_change_it_which_is_why_they_are_off() -> None:
    model, _ = pair_alone("Relu")
    x = np.full((1, 16), -1, np.float32)
    assert not run(model, {"features": x}, optimize=False)["y"].any()
    assert "Relu" not in real_operators(model)
    assert run(model, {"features": x})["y"].min() < -0.9, "the Relu is gone, and nothing takes its place"


@pytest.mark.parametrize("ranges", ["max", "mse"])
def test_ranges_reach_activations_and_weights(ranges: str) -> None:
    """Three bits of mantissa leave 31 dB of one rounded tensor, whatever the scale."""
    case = zoo_case("attention_layernorm")
    found = run(made("attention_layernorm", ranges=ranges).model, case.inputs, optimize=False)
    figure = sqnr_db(case.outputs, found)
    assert figure is not None
    assert figure > 24


def test_mse_is_nearer_where_channels_have_few_weights() -> None:
    case = zoo_case("batchnorm_alone")
    figures = [
        sqnr_db(case.outputs, run(made("batchnorm_alone", ranges=ranges).model, case.inputs, optimize=False))
        for ranges in ("max", "mse")
    ]
    assert figures[1] > figures[0] + 1  # type: ignore[operator]


def test_long_tails_cost_less_than_with_integers() -> None:
    net = Net("tails")
    x = net.input("features", ["batch", 32])
    net.named("MatMul", x, net.const(net.he((32, 32), 32), "weight"), to="y")
    net.output("y", ["batch", 32])
    model = model_of(net)
    arrays = {"features": np.random.default_rng(0).standard_t(2, (256, 32)).astype(np.float32)}
    expected, figures = run(model, arrays), []
    for step in (QuantizeFloat8(), QuantizeFull()):
        found = step(piece_of(model, "sm89"), samples_for(model, arrays)).model
        figures.append(sqnr_db(expected, run(found, arrays, optimize=False)))
    assert figures[0] > figures[1] + 3  # type: ignore[operator]


def test_float16_behind_it_casts_the_rest_and_keeps_every_fp8_number() -> None:
    net, x = image_net("quiet", 16)
    weight = net.const(normal(32, 16, 3, 3, scale=0.001), "weight")
    x = net.op("Conv", net.op("Mul", x, net.const(np.float32(1e-3))), weight, kernel_shape=(3, 3))
    net.head(net.op("Mul", net.op("Relu", x), net.const(np.float32(1e4))), 32)
    model, arrays = model_of(net), image()
    samples = samples_for(model, arrays)
    eighth = QuantizeFloat8()(piece_of(model, "sm89"), samples).model
    half = CastFloat16()(piece_of(eighth, "sm89"), samples)
    assert {layer.reason for layer in half.layers} == {"FP8 carries it, float16 around it"}
    stored = [
        [value.const_value.numpy() for value in found.graph.initializers.values() if len(value.shape) == 4]
        for found in (eighth, half.model)
    ]
    np.testing.assert_array_equal(*[arrays[0].view(np.uint8) for arrays in stored])
    scales = [node.inputs[1] for node in half.model.graph if node.op_type == "DequantizeLinear"]
    assert {scale.dtype for scale in scales} == {ir.DataType.FLOAT16}
    assert min(scale.const_value.numpy().min() for scale in scales) >= 2.0**-14


# TensorRT's compiler


def compiled(
    model: ir.Model, target: str, folder: Path, macs: dict[str, int] | None = None
) -> PreflightReport:
    save_model(model, folder / "model.onnx")
    return preflight(folder / "model.onnx", parse_target(target), macs=macs)


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize("target", ["sm89", "sm120"])
@pytest.mark.parametrize(
    "name",
    ["conv_relu_chain", "conv_1d", "depthwise_clip", "residual_projection", "dense_concat", "conv_transpose",
     "gemm_forms", "attention_layernorm", "narrow_layers"],
)  # fmt: skip
def test_tensorrt_computes_exactly_the_reported_layers_in_fp8(name: str, target: str, tmp_path: Path) -> None:
    result = made(name, target)
    macs = macs_by_node(zoo_case(name).model, shapes_of(zoo_case(name).model))
    report = compiled(result.model, target, tmp_path, macs)
    assert (report.outcome, report.refusals) == ("compiles", ())
    fast = {layer.node for layer in result.layers if layer.quantized}
    expected = sum(count for node, count in macs.items() if node in fast) / sum(macs.values())
    assert report.mac_shares["float8_e4m3fn"] == pytest.approx(expected)


@pytest.mark.rtx
@needs_compiler
def test_tensorrt_refuses_fp8_on_ampere_as_the_pass_does(tmp_path: Path) -> None:
    report = compiled(made("gemm_only").model, "sm86", tmp_path)
    assert report.outcome == "refused"
    assert "fp8_e4m3" in report.refusals[0].description


@pytest.mark.rtx
@needs_compiler
def test_tensorrt_computes_transposed_convolutions_in_float_all_the_same(tmp_path: Path) -> None:
    """Why the pass leaves them out: with pairs on both inputs they would only lose accuracy."""
    case = zoo_case("conv_transpose")
    placement = place_for_tensorrt(case.model.graph, frozenset())
    scales = activation_scales(zoo_calibration("conv_transpose"), placement, "max")
    report = compiled(quantize_float8(case.model, placement, scales), "sm89", tmp_path)
    name = next(node.name for node in case.model.graph if node.op_type == "ConvTranspose")
    assert precision_by_node(report.layers, [name or ""]) == {name: "float32"}


@pytest.mark.rtx
@needs_compiler
def test_tensorrt_computes_in_fp8_and_float16_and_nothing_else(tmp_path: Path) -> None:
    model = zoo_case("attention_layernorm")
    half = CastFloat16()(piece_of(made("attention_layernorm").model, "sm89"), model.samples).model
    names = [node.name or "" for node in half.graph if node.op_type in ("Gemm", "MatMul")]
    precisions = precision_by_node(compiled(half, "sm89", tmp_path).layers, names)
    assert set(precisions.values()) == {"float8_e4m3fn", "float16"}
