"""The pass `{quantize: int4}`: what it takes, refuses, writes, and what engines make of it."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError
from small_models import (
    current_kernels,
    feature_net,
    features,
    model_of,
    normal,
    piece_of,
    quality_db,
    real_operators,
    run,
    samples_for,
)
from zoo_cases import zoo_case

from jettison.compress.passes import Pass, PassResult, Refusal
from jettison.compress.quantization.block_weights import INT4
from jettison.compress.quantization.cast import CastFloat16
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.shares import precision_by_node
from jettison.graph.model import opset_of
from jettison.graph.save import model_bytes, save_model, weight_bytes
from zoo.builder import Net
from zoo.session import cleaned

needs_compiler = pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")
FUSED_DB = 0.3
"""ONNX Runtime's kernel rounds activations to INT8, which leaves 46 dB: little beside the noise of 4 bits."""


def refused(model: ir.Model, target: str = "cpu", **settings: object) -> Refusal:
    refusal = QuantizeInt4.model_validate(settings).check(piece_of(model, target))
    assert refusal is not None
    return refusal


def applied(
    model: ir.Model, arrays: dict[str, np.ndarray], target: str = "cpu", **settings: object
) -> PassResult:
    step, piece, before = QuantizeInt4.model_validate(settings), piece_of(model, target), model_bytes(model)
    assert step.check(piece) is None
    result = step(piece, samples_for(model, arrays))
    assert model_bytes(model) == before, "the model given stays as it is"
    onnx.checker.check_model(model_bytes(result.model), full_check=True)
    return result


def made(name: str, target: str = "cpu", **settings: object) -> PassResult:
    return applied(zoo_case(name).model, zoo_case(name).inputs, target, **settings)


def reasons(result: PassResult) -> dict[str, str]:
    return {layer.node: layer.reason for layer in result.layers}


def stored(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "DequantizeLinear"]


@functools.cache
def linear(inputs: int = 256, outputs: int = 64, bias: bool = True) -> ir.Model:
    """One linear layer over rows of features, a Relu and a Tanh."""
    net, x = feature_net(inputs)
    sizes = (inputs, outputs)
    y = net.op("Relu", net.gemm(x, sizes) if bias else net.linear(x, sizes, bias=False))
    net.named("Tanh", y, to="y")
    net.output("y", ["batch", outputs])
    return model_of(net)


def test_the_pass_is_its_configuration() -> None:
    step = QuantizeInt4(block=32, clip="none")
    assert isinstance(step, Pass)
    assert QuantizeInt4.model_validate_json(step.model_dump_json()) == step
    assert QuantizeInt4().model_dump() == {
        "quantize": "int4", "block": 128, "clip": "awq", "keep_float": (),
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"block": 48}, {"block": 8}, {"clip": "mse"}, {"bits": 4}], ids=str)
def test_a_wrong_key_or_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QuantizeInt4.model_validate(wrong)


def test_turing_is_refused_with_the_way_out() -> None:
    assert str(refused(linear(), "sm75")) == (
        "TensorRT compiles INT4 weights from Ampere (sm80) on, not for Turing (sm75). "
        "Use {quantize: full} or {quantize: float16}"
    )


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "sm86", "sm120"])
def test_other_targets_are_taken(target: str) -> None:
    assert QuantizeInt4().check(piece_of(linear(), target)) is None


def test_a_model_of_convolutions_is_refused() -> None:
    assert str(refused(cleaned("fixed_batch"))) == (
        "Conv: INT4 weights serve matrix products only. "
        "Use {quantize: full}, or {quantize: float16} for a file of half the size"
    )


def test_a_model_without_weights_is_refused() -> None:
    assert refused(cleaned("no_weighted_op")).reasons == ("the model has no layer with constant weights",)


def test_a_model_that_is_quantized_already_is_refused() -> None:
    refusal = refused(applied(linear(), features(256)).model)
    assert refusal.reasons[0].startswith("the model is quantized already")


def test_a_pattern_that_matches_no_layer_is_refused() -> None:
    refusal = refused(cleaned("gemm_only"), keep_float=["x*"])
    assert refusal.reasons == ("keep_float: 'x*' matches no weighted layer",)
    assert refusal.instead == "Layers are node_gemm_3, node_scores"


def test_a_layer_is_kept_in_float_as_asked() -> None:
    found = reasons(made("gemm_only", keep_float=["node_scores"]))
    assert found == {"node_gemm_3": "INT4 weights in blocks of 32", "node_scores": "left in float as asked"}


def test_an_operator_that_cannot_be_raised_to_the_opset_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    from jettison.compress.quantization import weight_only
    from jettison.core.errors import ModelError

    def fails(model: ir.Model, version: int) -> ir.Model:
        raise ModelError("model", detail=f"no operator at {version}", fix="Export it again")

    monkeypatch.setattr(weight_only, "raise_opset", fails)
    assert str(refused(linear())) == "no operator at 21. Export it again"


# Blocks


@pytest.mark.parametrize(("inputs", "block"), [(256, 128), (192, 64), (96, 32), (48, 16)])
def test_a_layer_gets_the_longest_block_that_divides_its_inputs(inputs: int, block: int) -> None:
    """A shorter last block is what TensorRT refuses: another test compiles one."""
    result = applied(linear(inputs), features(inputs))
    assert set(reasons(result).values()) == {f"INT4 weights in blocks of {block}"}
    [weight] = stored(result.model)
    assert weight.attributes.get_int("block_size") == block
    assert weight.inputs[1].shape == ir.Shape([inputs // block, 64])


def test_inputs_that_no_block_divides_stay_in_float() -> None:
    model = linear(40)
    assert refused(model).reasons == ("Gemm: its 40 inputs are no multiple of 16, the smallest block",)


def test_an_odd_number_of_channels_stays_in_float_on_a_gpu() -> None:
    assert refused(linear(64, 33), "sm86").reasons == (
        "Gemm: its 33 channels are an odd number, and TensorRT keeps two to a byte",
    )
    assert QuantizeInt4().check(piece_of(linear(64, 33))) is None


def test_weights_take_four_bits_and_a_scale_for_each_block() -> None:
    model = linear()
    result = applied(model, features(256))
    [weight] = stored(result.model)
    assert weight.inputs[0].const_value.numpy().dtype == INT4
    assert weight.inputs[0].const_value.nbytes == 256 * 64 // 2
    assert len(weight.inputs) == 2, "no zero point: it is 0"
    assert weight_bytes(result.model) < 0.16 * weight_bytes(model)
    assert opset_of(result.model) == 21


@pytest.mark.parametrize("clip", ["none", "awq"])
def test_the_file_computes_with_the_rounded_weights(clip: str) -> None:
    model = linear(bias=False)
    result = applied(model, features(256), clip=clip)
    [weight] = stored(result.model)
    values, scales = (value.const_value.numpy().astype(np.float32) for value in weight.inputs)
    x = features(256, 8, seed=1)["features"]
    expected = np.tanh(np.maximum(x @ (values * np.repeat(scales, 128, axis=0)), 0))
    np.testing.assert_allclose(run(result.model, {"features": x}, optimize=False)["y"], expected, atol=1e-5)


def test_without_clipping_no_sample_is_read() -> None:
    step, piece = QuantizeInt4(clip="none"), piece_of(linear())
    assert step(piece, None).model is not piece.model  # type: ignore[arg-type]  # no sample is read


def test_clipping_helps_on_inputs_that_calibration_did_not_see() -> None:
    model, figures = linear(), {}
    loudness = np.geomspace(0.1, 2, 256, dtype=np.float32)
    loud, unseen = ({"features": features(256, 512, seed=seed)["features"] * loudness} for seed in (0, 1))
    for clip in ("none", "awq"):
        figures[clip] = quality_db(model, applied(model, loud, clip=clip).model, unseen)[1]
    assert figures["awq"] > figures["none"] + 0.5


# Forms of a layer


def gemm(**attributes: float) -> tuple[ir.Model, dict[str, np.ndarray]]:
    net, x = feature_net(64)
    net.gemm(x, (64, 32), to="y", **attributes)
    net.output("y", ["batch", 32])
    return model_of(net), features(64)


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 0}, {"alpha": 0.5}, {"beta": 2.0}, {"alpha": 1.5, "beta": 0.5}], ids=str
)
@current_kernels
def test_every_form_of_gemm_becomes_one_that_onnx_runtime_multiplies_from_four_bits(
    attributes: dict[str, float],
) -> None:
    model, arrays = gemm(**attributes)
    result = applied(model, arrays, block=16)
    assert real_operators(result.model) == Counter({"MatMulNBits": 1})
    kernel, simulation = quality_db(model, result.model, arrays)
    assert simulation > 17, "four bits leave 17 to 20 dB; a transposed weight or a lost factor leaves none"
    assert abs(kernel - simulation) < FUSED_DB


@pytest.mark.parametrize("shape", [(1,), (1, 32), ()], ids=str)
@current_kernels
def test_a_bias_of_another_shape_is_spread_over_the_channels(shape: tuple[int, ...]) -> None:
    net, x = feature_net(64)
    weight = net.const(net.he((64, 32), 64), "weight")
    net.named("Gemm", x, weight, net.const(normal(*shape) + 1, "bias"), to="y", beta=0.5)
    net.output("y", ["batch", 32])
    model = model_of(net)
    result = applied(model, features(64), block=16)
    assert real_operators(result.model) == Counter({"MatMulNBits": 1})
    assert quality_db(model, result.model, features(64))[1] > 17


def test_a_bias_that_differs_from_row_to_row_keeps_its_layer_in_float() -> None:
    net, x = Net("rows"), "features"
    net.input(x, [4, 64])
    net.named("Gemm", x, net.const(net.he((64, 32), 64)), net.const(normal(4, 32)), to="y")
    net.output("y", [4, 32])
    assert refused(model_of(net)).reasons == ("Gemm: its bias differs from row to row",)


def test_products_over_more_than_two_dimensions_are_multiplied_from_four_bits_too() -> None:
    result = made("matmul_bias")
    operators = real_operators(result.model)
    assert operators["MatMulNBits"] == 2
    assert operators["DequantizeLinear"] == 0
    kernel, simulation = quality_db(
        zoo_case("matmul_bias").model, result.model, zoo_case("matmul_bias").inputs
    )
    assert abs(kernel - simulation) < FUSED_DB


def twice(with_reader: bool = False) -> ir.Model:
    """Two layers with one weight, and perhaps a Gather from it."""
    net, x = feature_net(32)
    weight = net.const(net.he((32, 32), 32), "weight")
    y = net.op("MatMul", net.op("Sin", net.op("MatMul", x, weight, name="first")), weight, name="second")
    if with_reader:
        row = net.op("ArgMax", x, axis=1, keepdims=0)
        y = net.op("Add", y, net.op("Gather", weight, row, name="embedding"))
    net.named("Tanh", y, to="y")
    net.output("y", ["batch", 32])
    return model_of(net)


@current_kernels
def test_a_shared_weight_is_stored_once_for_a_gpu_and_for_each_layer_on_the_cpu() -> None:
    """ONNX Runtime 1.32 multiplies from four bits only where no other product reads them."""
    results = {target: applied(twice(), features(32), target) for target in ("cpu", "sm86")}
    assert {target: len(stored(found.model)) for target, found in results.items()} == {"cpu": 2, "sm86": 1}
    assert real_operators(results["cpu"].model)["MatMulNBits"] == 2
    assert real_operators(results["sm86"].model)["MatMulNBits"] == 0


def test_a_weight_that_another_operator_reads_stays_in_float() -> None:
    assert refused(twice(with_reader=True)).reasons == ("MatMul: Gather 'embedding' reads its weight too",)


def test_a_weight_is_kept_where_one_of_its_layers_is_kept() -> None:
    assert refused(twice(), keep_float=["first"]).reasons == (
        "MatMul: MatMul 'first' reads its weight too", "MatMul: left in float as asked",
    )  # fmt: skip


def test_equal_inputs_give_equal_bytes() -> None:
    assert model_bytes(made("attention_layernorm").model) == model_bytes(made("attention_layernorm").model)


def test_every_other_layer_is_reported_in_float_with_the_reason() -> None:
    result = made("conv_relu_chain")
    assert {(layer.kind, layer.quantized, layer.reason) for layer in result.layers} == {
        ("Conv", False, "INT4 weights serve matrix products only"),
        ("Gemm", True, "INT4 weights in blocks of 32"),
    }


def test_notes_say_what_it_is_good_for() -> None:
    assert made("matmul_bias", "sm86").notes == (
        "TensorRT multiplies in float: less memory to read, no faster arithmetic",
    )
    assert made("matmul_bias").notes == (
        "ONNX Runtime's kernel rounds what such a product reads to INT8 by itself (46 dB)",
    )


@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
@current_kernels
def test_products_that_onnx_runtime_does_not_multiply_from_four_bits_are_told(clamp: str) -> None:
    net, x = feature_net(32)
    bounds = [net.const(np.float32(bound)) for bound in (0, 6)] if clamp == "Clip" else []
    y = net.op(clamp, net.gemm(x, (32, 32)), *bounds)
    net.gemm(y, (32, 32), to="scores")
    net.output("scores", ["batch", 32])
    result = applied(model_of(net), features(32))
    operators = real_operators(result.model)
    assert (operators["MatMulNBits"], operators["DequantizeLinear"]) == (1, 1)
    first = result.layers[0].node
    assert result.notes[1:] == (
        "in front of a Relu or Clip ONNX Runtime (1.32) unpacks the weights at each run, which is slower "
        f"than float; layers: {first}",
    )


# TensorRT


def half(name: str) -> ir.Model:
    result = CastFloat16()(piece_of(made(name, "sm86").model, "sm86"), zoo_case(name).samples)
    said = {layer.reason for layer in result.layers if layer.kind in ("Gemm", "MatMul")}
    assert "computes in float16 with INT4 weights" in said
    return result.model


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize("name", ["gemm_forms", "attention_layernorm"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensorrt_compiles_it_and_multiplies_in_float(name: str, dtype: str, tmp_path: Path) -> None:
    model = made(name, "sm86").model if dtype == "float32" else half(name)
    save_model(model, tmp_path / "model.onnx")
    report = preflight(tmp_path / "model.onnx", parse_target("sm86"))
    assert (report.outcome, report.refusals) == ("compiles", ())
    assert any("int4" in layer.constants for layer in report.layers), (
        "weights stay in 4 bits until they are read"
    )
    names = [node.name or "" for node in model.graph if node.op_type in ("Gemm", "MatMul")]
    assert set(precision_by_node(report.layers, names).values()) == {dtype}


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize(
    ("target", "inputs", "why"),
    [("sm75", 32, "int4"), ("sm86", 40, "must divide into whole blocks")],
)
def test_tensorrt_refuses_what_the_pass_refuses(target: str, inputs: int, why: str, tmp_path: Path) -> None:
    model = applied(linear(64), features(64), block=16).model
    if inputs == 40:
        [weight] = stored(model)
        weight.attributes["block_size"] = ir.AttrInt64("block_size", 24)
        weight.replace_input_with(1, weight.inputs[1])
        scales = weight.inputs[1].const_value.numpy()[:3]
        weight.inputs[1].const_value = ir.tensor(scales, name=weight.inputs[1].name)
        weight.inputs[1].shape = ir.Shape(scales.shape)
    save_model(model, tmp_path / "model.onnx")
    report = preflight(tmp_path / "model.onnx", parse_target(target))
    assert report.outcome == "refused"
    assert why in report.refusals[0].description
