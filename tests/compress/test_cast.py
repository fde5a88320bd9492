"""The passes `{quantize: float16}` and `{quantize: bfloat16}`: islands, refusals, INT8 beside FP16."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.cast import CastBfloat16, CastFloat16, CastModel, prepared
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.errors import SamplesError
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.shares import precision_by_node
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.cast import cast_nodes, simulate_cast, without_activation_pairs
from jettison.graph.cast_plan import plan_cast
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, opset_of, output_specs
from jettison.graph.save import model_bytes, save_model, weight_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned, run
from zoo.table import ZOO

SMALLEST_NORMAL = 2.0**-14
MATRIX = ("Conv", "Gemm", "MatMul")


def model_of(net: Net) -> ir.Model:
    return clean(ir.from_proto(net.model()))


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def piece_of(model: ir.Model, target: str = "tensorrt") -> Workpiece:
    return Workpiece(model, parse_target(target), threads=1)


def applied(
    model: ir.Model,
    arrays: dict[str, np.ndarray],
    settings: CastModel | None = None,
    target: str = "tensorrt",
) -> PassResult:
    """The result of the pass, whose output ONNX's checker takes and whose signature is the model's."""
    settings, piece = settings or CastFloat16(), piece_of(model, target)
    assert settings.check(piece) is None
    before = model_bytes(model)
    result = settings(piece, samples_of(arrays, specs=input_specs(model)))
    assert model_bytes(model) == before, "the model given stays as it is"
    onnx.checker.check_model(onnx.load_from_string(model_bytes(result.model)), full_check=True)
    assert input_specs(result.model) == input_specs(model)
    assert output_specs(result.model) == output_specs(model)
    return result


def islands(result: PassResult) -> dict[str, str]:
    return {layer.node: layer.reason for layer in result.layers if not layer.quantized}


def damage_db(model: ir.Model, arrays: dict[str, np.ndarray], keep: frozenset[str] = frozenset()) -> float:
    """SQNR of the simulated float16 form of the model against the model."""
    simulated = simulate_cast(model, "float16", keep)
    figure = sqnr_db(run(model_bytes(model), arrays), run(model_bytes(simulated), arrays))
    assert figure is not None
    return figure


@functools.cache
def loud() -> ir.Model:
    """Two layers between which values of about a million pass through a Relu."""
    net, x = image_net("loud", 16)
    x = net.op("Mul", net.conv(x, (16, 16)), net.const(np.float32(3e5)), name="louder")
    x = net.op("Relu", x, name="between")
    x = net.op("Mul", x, net.const(np.float32(1 / 3e5)), name="softer")
    net.head(net.op("Relu", net.conv(x, (16, 32))), 32)
    return model_of(net)


def test_values_beyond_the_range_stay_in_float32():
    """The constants too: 300,000 is no float16, and 1/300,000 is a subnormal one that is 0.2 % off."""
    arrays = {"image": normal(8, 16, 16, 16)}
    result = applied(loud(), arrays)
    kept = islands(result)
    assert set(kept) == {"louder", "between", "softer"}
    assert "reaches" in kept["between"]
    assert "on the samples, float16 ends at 65,504" in kept["between"]
    assert damage_db(loud(), arrays) < 20, "without the island the values become infinite"
    assert damage_db(loud(), arrays, frozenset(kept)) > 60


def test_range_is_watched_with_headroom():
    """Values at a third of the range: unseen inputs may well double them."""
    net, x = image_net("near", 16)
    x = net.op("Mul", net.op("Tanh", x), net.const(np.float32(22000)), name="near_the_end")
    net.named("Mul", x, net.const(np.float32(1e-3)), to="y")
    net.output("y", ["batch", 16, 16, 16])
    result = applied(model_of(net), {"image": normal(8, 16, 16, 16)})
    assert set(islands(result)) == {"near_the_end", "node_y"}


def test_bfloat16_needs_no_island_for_large_values():
    result = applied(loud(), {"image": normal(8, 16, 16, 16)}, CastBfloat16())
    assert islands(result) == {}
    assert opset_of(result.model) == 22
    assert "opset 22, the first one with bfloat16 convolutions" in result.notes
    assert weight_bytes(result.model) < 0.52 * weight_bytes(loud())


@functools.cache
def cancelling() -> ir.Model:
    """(x + 1000) - 1000 inside a small net: a difference of which float16 leaves little."""
    net, x = image_net("cancelling", 16)
    x = net.op("Mul", net.op("Relu", net.conv(x, (16, 16))), net.const(np.float32(0.1)))
    x = net.op("Add", x, net.const(np.float32(1000)), name="sum")
    x = net.op("Sub", x, net.const(np.float32(1000)), name="difference")
    for _ in range(6):
        x = net.op("Relu", net.conv(x, (16, 16)))
    net.head(x, 16)
    return model_of(net)


def test_rounding_that_the_outputs_show_is_found_and_stays_in_float32():
    arrays = {"image": normal(16, 16, 16, 16)}
    assert damage_db(cancelling(), arrays) < 35
    result = applied(cancelling(), arrays)
    kept = islands(result)
    assert {"sum", "difference"} <= set(kept)
    assert len(kept) <= 4, "the island is small"
    assert set(kept.values()) == {"computes in float32: its rounding shows in the outputs"}
    assert damage_db(cancelling(), arrays, frozenset(kept)) > 40
    assert any("without islands" in note for note in result.notes)
    assert any(note.startswith(f"{len(kept)} nodes kept in float32: ") for note in result.notes)


def test_model_that_no_island_mends_says_so():
    result = applied(
        cleaned("conv_relu_chain"), ZOO["conv_relu_chain"].inputs(8), CastFloat16(least_sqnr_db=120)
    )
    assert any("below the 120 dB asked for" in note for note in result.notes)


def test_asked_nodes_stay_in_float32():
    model = cleaned("residual_add")
    name = next(node.name for node in model.graph if node.op_type == "Gemm")
    result = applied(model, ZOO["residual_add"].inputs(8), CastFloat16(keep_float=(name,)))
    assert islands(result) == {name: "computes in float32: left as asked"}
    assert {layer.kind for layer in result.layers} == {"Conv", "Gemm"}


def test_masked_logits_stay_in_float16():
    """float32's lowest number masks keys; a row that is masked everywhere must not become NaN."""
    net = Net("masked", opset=19)
    x, allowed = net.input("x", ["batch", 8, 16]), net.input("allowed", ["batch", 1, 8])
    scores = net.op("MatMul", net.linear(x, (16, 16)), net.op("Transpose", x, perm=[0, 2, 1]))
    lowest = np.float32(np.finfo(np.float32).min)
    mask = net.op("Mul", net.op("Sub", net.const(np.float32(1)), allowed), net.const(lowest, "lowest"))
    weights = net.op("Softmax", net.op("Add", scores, mask), axis=-1)
    net.named("MatMul", weights, x, to="y")
    net.output("y", ["batch", 8, 16])
    model = model_of(net)
    keys = (np.random.default_rng(1).random((16, 1, 8)) < 0.7).astype(np.float32)
    keys[0] = 0
    arrays = {"x": normal(16, 8, 16), "allowed": keys}
    result = applied(model, arrays)
    assert islands(result) == {}
    assert "constants that stand for infinity became 8188" in result.notes
    simulated = simulate_cast(prepared(model, "float16"), "float16")
    reference, found = run(model_bytes(model), arrays)["y"], run(model_bytes(simulated), arrays)["y"]
    np.testing.assert_allclose(found[1:], reference[1:], atol=0.02)  # logits near 16 round by 2^-7 = 0.008
    assert np.isfinite(found).all()


def test_result_is_a_fixed_point():
    result = applied(loud(), {"image": normal(8, 16, 16, 16)})
    again = cast_nodes(result.model, "float16", frozenset(islands(result)))
    assert model_bytes(again) == model_bytes(result.model)


def test_nan_in_float32_is_told_and_not_searched_for():
    net = Net("broken", opset=19)
    net.named("Relu", net.op("Sqrt", net.input("x", ["n"]), name="root"), to="y")
    net.output("y", ["n"])
    with pytest.raises(SamplesError, match=r"value 'sqrt_1' became NaN\. Check the model in float"):
        applied(model_of(net), {"x": np.array([-1, 4, 9], np.float32)})


def test_float16_on_the_cpu_is_allowed_and_honest():
    result = applied(cleaned("residual_add"), ZOO["residual_add"].inputs(8), target="cpu")
    assert result.notes[0].startswith("a smaller file, not a faster model")
    assert weight_bytes(result.model) < 0.52 * weight_bytes(cleaned("residual_add"))


@pytest.mark.parametrize(
    ("settings", "name", "target", "reason", "instead"),
    [
        (CastBfloat16(), "silu", "cpu", "no bfloat16 kernels", "{quantize: full}"),
        (CastBfloat16(), "silu", "sm75", "Turing (sm75) has no bfloat16 arithmetic", "{quantize: float16}"),
        (CastFloat16(), "half_precision", "sm89", "no node that computes in float32", "Leave the pass out"),
        (
            CastFloat16(keep_float=("nothing*",)),
            "silu",
            "sm89",
            "'nothing*' matches no node",
            "Nodes are node_conv",
        ),
    ],
)
def test_refusals_give_the_reason_and_the_way_out(settings, name, target, reason, instead):
    refusal = settings.check(piece_of(cleaned(name), target))
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reasons[0]
    assert instead in refusal.instead


@pytest.mark.parametrize("target", ["tensorrt", "sm80", "sm89", "sm120"])
def test_bfloat16_applies_from_ampere_on(target):
    assert CastBfloat16().check(piece_of(cleaned("silu"), target)) is None


# INT8 with 16-bit floats around it


@functools.cache
def quantized(name: str, target: str = "tensorrt") -> ir.Model:
    model = cleaned(name)
    samples = samples_of(ZOO[name].inputs(8), specs=input_specs(model))
    return QuantizeFull()(piece_of(model, target), samples).model


def scales(model: ir.Model) -> list[tuple[str, np.ndarray]]:
    pairs = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    return [(node.inputs[1].dtype.name, node.inputs[1].const_value.numpy()) for node in pairs]


@pytest.mark.parametrize("settings", [CastFloat16(), CastBfloat16()], ids=lambda found: found.quantize)
@pytest.mark.parametrize("name", ["residual_add", "depthwise_clip", "dead_channel", "attention_layernorm"])
def test_quantized_model_gets_16_bit_scales_around_the_same_integers(name, settings):
    model = quantized(name)
    result = applied(model, ZOO[name].inputs(8), settings)
    assert {dtype for dtype, _ in scales(result.model)} == {settings.quantize.upper()}
    for node in result.model.graph:
        if node.op_type in MATRIX and node.inputs[0].producer().op_type == "DequantizeLinear":
            weight = node.inputs[1].producer()
            assert weight.op_type == "DequantizeLinear", "no Cast stands between a pair and its layer"
            assert weight.inputs[0].dtype == ir.DataType.INT8
    carried = [layer for layer in result.layers if layer.reason.startswith("integers carry it")]
    assert carried
    assert all(layer.quantized for layer in carried)


def test_scale_of_a_dead_channel_is_raised_to_a_normal_number():
    """1e-8 becomes zero in float16, which TensorRT refuses; the integers of that channel are all zero."""
    model = quantized("dead_channel")
    assert min(array.min() for _, array in scales(model)) < SMALLEST_NORMAL
    cast = cast_nodes(model, "float16")
    assert min(float(array.min()) for _, array in scales(cast)) >= SMALLEST_NORMAL
    before, after = without_activation_pairs(model), without_activation_pairs(cast)
    inputs = ZOO["dead_channel"].inputs()
    figure = sqnr_db(run(model_bytes(before), inputs), run(model_bytes(after), inputs))
    assert figure is not None
    assert figure > 55


def test_layer_whose_activation_scale_float16_cannot_hold_stays_in_float32():
    net, x = image_net("quiet", 16)
    x = net.op("Mul", x, net.const(np.float32(1e-3)))
    x = net.op("Relu", net.conv(x, (16, 32), bias=False, name="quiet_layer"))
    net.head(net.op("Mul", x, net.const(np.float32(1e3))), 32)
    model, arrays = model_of(net), {"image": normal(8, 16, 16, 16)}
    integers = QuantizeFull()(piece_of(model), samples_of(arrays, specs=input_specs(model))).model
    plan = plan_cast(integers, "float16")
    layer = next(node for node in integers.graph if node.op_type == "Conv")
    assert layer.name not in plan.slots
    assert "it is quantized together with" in plan.kept[layer.name]
    assert any("no normal numbers in float16" in why for why in plan.kept.values())
    result = applied(integers, arrays)
    decision = next(found for found in result.layers if found.node == layer.name)
    assert decision.quantized
    assert decision.reason.startswith("integers carry it, float32 around it: ")
    for node in result.model.graph:
        if node.op_type == "Conv":
            assert {value.dtype.name for value in node.inputs} == {"FLOAT"}


def test_asked_layer_keeps_its_pairs_in_float32_with_it():
    model = quantized("residual_add")
    asked = next(node for node in model.graph if node.op_type == "Gemm")
    result = applied(model, ZOO["residual_add"].inputs(8), CastFloat16(keep_float=(asked.name,)))
    gemm = next(node for node in result.model.graph if node.op_type == "Gemm")
    assert {value.producer().op_type for value in gemm.inputs[:2]} == {"DequantizeLinear"}
    assert {value.dtype.name for value in gemm.inputs} == {"FLOAT"}


def test_quantized_model_for_the_cpu_is_refused():
    refusal = CastFloat16().check(piece_of(quantized("residual_add", "cpu"), "cpu"))
    assert refusal is not None
    assert "integer kernels" in refusal.reasons[0]
    assert "Leave the pass out" in refusal.instead


def test_score_of_a_quantized_model_is_the_damage_of_the_cast_alone():
    """Next to a quantizer, rounding flips whole steps, which would drown what the cast itself costs."""
    name = "attention_layernorm"
    model, arrays = quantized(name), ZOO[name].inputs(8)
    with_flips = damage_db(model, arrays)
    alone = damage_db(without_activation_pairs(model), arrays)
    assert alone > with_flips + 10
    result = applied(model, arrays)
    assert f"the cast alone leaves outputs at {alone:.1f} dB of the model's before it" in " ".join(
        result.notes
    )
    assert islands(result) == {}


def test_simulation_rounds_no_value_that_integers_carry():
    simulated = simulate_cast(quantized("residual_add"), "float16")
    readers = [
        usage.node.op_type
        for node in simulated.graph
        if node.op_type == "DequantizeLinear"
        for usage in node.outputs[0].uses()
    ]
    assert readers
    assert "Cast" not in readers


# TensorRT's compiler


def compiled(model: ir.Model, folder, target: str = "sm86"):
    path = folder / "model.onnx"
    save_model(model, path)
    report = preflight(path, parse_target(target))
    assert report.outcome == "compiles", (report.outcome, report.refusals, report.notes)
    names = [node.name for node in model.graph if node.op_type in MATRIX]
    return precision_by_node(report.layers, names)


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("residual_add", CastFloat16()),
        ("attention_layernorm", CastFloat16()),
        ("if_on_data", CastFloat16()),
        ("residual_add", CastBfloat16()),
        ("lstm", CastBfloat16()),
    ],
    ids=str,
)
def test_tensorrt_computes_in_the_type(name, settings, tmp_path):
    precisions = compiled(applied(cleaned(name), ZOO[name].inputs(8), settings).model, tmp_path)
    assert precisions
    assert set(precisions.values()) == {settings.quantize}


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("depthwise_clip", CastFloat16()),
        ("dead_channel", CastFloat16()),
        ("attention_layernorm", CastFloat16()),
        ("residual_add", CastBfloat16()),
    ],
    ids=str,
)
def test_tensorrt_computes_in_int8_and_the_type_and_nothing_else(name, settings, tmp_path):
    precisions = compiled(applied(quantized(name), ZOO[name].inputs(8), settings).model, tmp_path)
    assert "int8" in precisions.values()
    assert set(precisions.values()) <= {"int8", settings.quantize}


@pytest.mark.rtx
def test_tensorrt_takes_islands(tmp_path):
    result = applied(loud(), {"image": normal(8, 16, 16, 16)})
    assert set(compiled(result.model, tmp_path).values()) == {"float16"}


def test_preparing_leaves_usual_constants_alone():
    model = cleaned("depthwise_clip")
    assert model_bytes(prepared(model, "float16")) == model_bytes(model)
