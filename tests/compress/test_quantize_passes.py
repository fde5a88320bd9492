"""The passes `{quantize: full}` and `{quantize: dynamic}`: what they take, refuse and report."""

from collections import Counter

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from small_models import (
    conv,
    feature_net,
    features,
    image,
    is_portable,
    model_of,
    piece_of,
    quality_db,
    residual_network,
    samples_for,
    sites,
)

from jettison.compress.passes import Pass, PassResult, Refusal, Workpiece
from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.core.samples import Samples
from jettison.core.targets import parse_target
from jettison.graph.save import model_bytes
from zoo.builder import image_net
from zoo.session import cleaned

FLOAT16 = "Serve it in float, or try {quantize: float16}"


def refused(step: Pass, model: object, target: str = "cpu") -> Refusal:
    refusal = step.check(piece_of(model, target))  # type: ignore[arg-type]
    assert refusal is not None
    return refusal


@pytest.mark.parametrize("step", [QuantizeFull(), QuantizeDynamic()], ids=lambda step: step.quantize)
def test_a_pass_is_its_configuration(step: QuantizeFull | QuantizeDynamic) -> None:
    assert isinstance(step, Pass)
    assert type(step).model_validate_json(step.model_dump_json()) == step
    with pytest.raises(ValidationError, match="frozen"):
        step.quantize = "other"  # type: ignore[assignment]


def test_the_keys_of_a_recipe_are_the_fields() -> None:
    assert QuantizeFull.model_validate({"quantize": "full"}) == QuantizeFull()
    assert QuantizeFull().model_dump() == {
        "quantize": "full", "ranges": "max", "percentile": 99.99, "repair": "none", "keep_float": (),
        "attention": "float",
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantize": "dynamic"}, {"ranges": "best"}, {"percentile": 50.0}, {"percentile": 100.1},
        {"keep_floats": ("a",)}, {"bits": 4},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_key_or_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QuantizeFull.model_validate(wrong)


def test_a_pattern_that_matches_no_layer_is_answered_with_the_layers() -> None:
    model = cleaned("conv_relu_chain")
    refusal = refused(QuantizeFull(keep_float=("node_conv*", "classifier*")), model)
    names = [node.name for node in model.graph if node.op_type in ("Conv", "Gemm")]
    assert refusal.reasons == ("keep_float: 'classifier*' matches no weighted layer",)
    assert refusal.instead == f"Layers are {', '.join(map(str, names))}"
    assert len(names) == 3


def test_of_many_layers_only_the_first_twenty_are_named() -> None:
    net, x = image_net("deep", 16)
    for index in range(25):
        x = conv(net, x, f"c{index}", kernel=1)
    net.named("Abs", x, to="out")
    net.output("out", ["batch", 16, 16, 16])
    refusal = refused(QuantizeFull(keep_float=("x",)), model_of(net))
    assert refusal.instead.endswith("node_c19 ...")


@pytest.mark.parametrize("pattern", ["node_b", "node_[b]", "*_b"])
def test_layers_are_kept_in_float_by_pattern(pattern: str) -> None:
    net, x = image_net("three", 16)
    for name in "abc":
        x = net.op("Relu", conv(net, x, name))
    net.named("Abs", x, to="out")
    net.output("out", ["batch", 16, 16, 16])
    model, step = model_of(net), QuantizeFull(keep_float=(pattern,))
    assert step.check(piece_of(model)) is None
    result = step(piece_of(model), samples_for(model, image()))
    assert [layer.node for layer in result.layers if not layer.quantized] == ["node_b"]


def test_keeping_every_layer_in_float_is_no_quantization() -> None:
    refusal = refused(QuantizeFull(keep_float=("*",)), residual_network())
    assert refusal.reasons == ("Conv: left in float as asked", "Gemm: left in float as asked")
    assert refusal.instead == FLOAT16


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "sm89"])
def test_a_model_without_weighted_layers_is_refused(target: str) -> None:
    refusal = refused(QuantizeFull(), cleaned("no_weighted_op"), target)
    assert str(refusal) == f"the model has no layer with constant weights. {FLOAT16}"


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_half_precision_is_refused_with_the_way_out(target: str) -> None:
    refusal = refused(QuantizeFull(), cleaned("half_precision"), target)
    assert str(refusal) == (
        "Conv: its weight is FLOAT16, expected float32; Gemm: its weight is FLOAT16, expected float32. "
        "Quantize the float32 original; cast to float16 afterwards, or use {quantize: float16} alone"
    )


def test_a_model_whose_only_layer_a_dialect_cannot_take_is_refused_for_that_dialect() -> None:
    net, x = image_net("up", 16)
    net.named("ConvTranspose", x, net.const(net.he((16, 16, 2, 2), 16)), to="up", kernel_shape=[2, 2])
    net.output("up", ["batch", 16, 17, 17])
    model = model_of(net)
    assert refused(QuantizeFull(), model).reasons == (
        "ConvTranspose: ONNX Runtime's CPU provider has no integer kernel for transposed convolutions",
    )
    assert QuantizeFull().check(piece_of(model, "tensorrt")) is None


def test_a_compute_capability_speaks_tensorrts_dialect() -> None:
    model, samples = residual_network(), samples_for(residual_network(), image())
    results = [QuantizeFull()(piece_of(model, name), samples).model for name in ("tensorrt", "sm86")]
    assert model_bytes(results[0]) == model_bytes(results[1])
    assert model_bytes(QuantizeFull()(piece_of(model), samples).model) != model_bytes(results[0])


def test_several_passes_share_one_calibration() -> None:
    model, calls = residual_network(), []

    def once(given: object, samples: Samples) -> Calibration:
        calls.append(given)
        return calibrate(model, samples, threads=1)

    piece = Workpiece(model, parse_target("cpu"), calibrate=once)
    result = QuantizeFull()(piece, samples_for(model, image()))
    assert calls == [model]
    direct = QuantizeFull()(piece_of(model), samples_for(model, image()))
    assert model_bytes(result.model) == model_bytes(direct.model)


def test_progress_tells_samples() -> None:
    model, seen = residual_network(), []
    piece = Workpiece(model, parse_target("cpu"), progress=lambda *done: seen.append(done))
    QuantizeFull()(piece, samples_for(model, image(16, 3)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_result_reports_every_weighted_layer_in_the_graphs_order() -> None:
    model = cleaned("conv_transpose")
    result = QuantizeFull()(piece_of(model), samples_for(model, image()))
    assert [(layer.kind, layer.quantized) for layer in result.layers] == [
        ("Conv", True), ("ConvTranspose", False), ("Conv", True),
    ]  # fmt: skip
    assert {layer.reason for layer in result.layers if layer.quantized} == {"integers carry it"}


def dynamic(name: str) -> PassResult:
    model = cleaned(name)
    step = QuantizeDynamic()
    assert step.check(piece_of(model)) is None
    return step(piece_of(model), None)  # type: ignore[arg-type]  # no sample is read


@pytest.mark.parametrize("target", ["tensorrt", "sm89"])
def test_dynamic_quantization_is_refused_on_a_gpu_with_the_way_out(target: str) -> None:
    assert str(refused(QuantizeDynamic(), cleaned("gemm_only"), target)) == (
        "TensorRT cannot run DynamicQuantizeLinear and MatMulInteger. "
        "Use {quantize: full}, or target cpu and serve it with Triton's ONNX Runtime backend"
    )


@pytest.mark.parametrize("name", ["fixed_batch", "no_weighted_op", "half_precision"])
def test_dynamic_quantization_is_refused_where_it_finds_no_product(name: str) -> None:
    assert str(refused(QuantizeDynamic(), cleaned(name))) == (
        "ONNX Runtime quantizes MatMul, Gemm and LSTM with constant float32 weights dynamically, "
        "and the model has none. Use {quantize: full}"
    )


def test_dynamic_quantization_needs_no_samples_and_leaves_convolutions_in_float() -> None:
    result = dynamic("conv_relu_chain")
    operators = Counter(node.op_type for node in result.model.graph)
    assert (operators["Conv"], operators["MatMulInteger"], operators["DynamicQuantizeLinear"]) == (2, 1, 1)
    assert {(layer.kind, layer.quantized, layer.reason) for layer in result.layers} == {
        ("Conv", False, "no fast dynamic kernel for it"), ("Gemm", True, "integers at run time"),
    }  # fmt: skip
    assert result.notes == ("weights in 7 bits, which no kernel saturates",)


@pytest.mark.parametrize("name", ["gemm_only", "matmul_bias", "lstm", "attention_layernorm"])
def test_dynamic_weights_have_seven_bits_so_that_no_kernel_saturates(name: str) -> None:
    initializers = dynamic(name).model.graph.initializers.values()
    arrays = [value.const_value.numpy() for value in initializers if value.const_value is not None]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) <= 64


def test_dynamic_quantization_is_portable_where_plain_8_bits_would_saturate() -> None:
    net, x = feature_net()
    x = net.op("Sigmoid", net.op("Add", x, net.const(np.float32(3))))
    weight = net.const(np.abs(net.he((32, 24), 32)) + 1, "weight")
    net.named("MatMul", x, weight, to="out")
    net.output("out", ["batch", 24])
    model = model_of(net)
    result = QuantizeDynamic()(piece_of(model), samples_for(model, features()))
    assert is_portable(*quality_db(model, result.model, features()))


def test_the_model_given_to_dynamic_quantization_stays_as_it_is() -> None:
    before = model_bytes(cleaned("gemm_only"))
    model = cleaned("gemm_only")
    result = QuantizeDynamic()(piece_of(model), samples_for(model, features()))
    assert model_bytes(model) == before
    onnx.checker.check_model(model_bytes(result.model), full_check=True)


def test_plans_name_only_nodes_and_values_of_the_graph() -> None:
    model = residual_network()
    names = {node.name for node in model.graph}
    values = {value.name for node in model.graph for value in node.outputs} | {"image"}
    for dialect in ("cpu", "tensorrt"):
        for value, readers in sites(model, dialect).items():
            assert value in values
            assert {reader.split(":")[0] for reader in readers if reader != "->"} <= names
