"""The layer list is read from real logs of the compiler, and garbage makes it shorter but never an error."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.engines.tensorrt.layers import parse_layers
from jettison.engines.tensorrt.report import LayerPrecision
from jettison.engines.tensorrt.shares import (
    int8_mac_share,
    low_precision_mac_share,
    mac_shares,
    precision_by_node,
)

LOGS = Path(__file__).parent / "layer_logs"


def layers_of(name: str) -> tuple[LayerPrecision, ...]:
    return parse_layers((LOGS / f"{name}.txt").read_bytes().decode())


def test_a_quantized_convolution_is_read_with_its_types_and_fused_nodes() -> None:
    quantize, convolution, finish = layers_of("int8_conv")
    assert quantize.outputs == ("int8",)
    assert convolution == LayerPrecision(
        name="conv1_myl0_1",
        kind="correlation",
        inputs=("int8",),
        constants=("int8", "float32", "float32"),
        outputs=("float32",),
        onnx_nodes=("conv1", "xdq", "wdq"),
    )
    assert finish.onnx_nodes == ("conv1", "relu1")


def test_scalar_constants_are_left_out() -> None:
    convolution = next(layer for layer in layers_of("float_conv_dynamic") if layer.kind == "correlation")
    assert convolution.constants == ("float32",)


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_layer_line_of_a_real_log_is_read(path: Path) -> None:
    text = path.read_bytes().decode()
    assert len(parse_layers(text)) == text.count(", LayerType: ") > 0


@pytest.mark.parametrize(
    ("log", "node", "dtype"),
    [
        ("int8_conv", "conv1", "int8"),
        ("int8_depthwise", "dw", "int8"),
        ("float_conv_dynamic", "conv1", "float32"),
        ("int8_convtranspose", "ct", "float32"),
        ("int8_matmul_wrong_axis", "mm", "float32"),
        ("int8_matmuls_fused", "mm0", "int8"),
        ("int8_matmuls_fused", "mm2", "int8"),
        ("int4_matmul", "mm4", "float16"),
        ("fp8_attention", "qk", "float8_e4m3fn"),
        ("fp8_attention", "pv", "float8_e4m3fn"),
        ("branches", "conv_then", "float32"),
        ("branches", "conv_else", "float32"),
        ("function", "inner_mm", "float32"),
    ],
)
def test_the_arithmetic_of_a_node_is_told_from_a_real_log(log: str, node: str, dtype: str) -> None:
    assert precision_by_node(layers_of(log), [node]) == {node: dtype}


def test_quantized_operands_that_are_cast_up_inside_a_fusion_do_not_count_as_int8() -> None:
    fusion = next(layer for layer in layers_of("int8_matmul_wrong_axis") if layer.kind == "runtime_fusion")
    assert fusion.inputs == ("int8",)
    assert "int8" in fusion.constants
    assert int8_mac_share(layers_of("int8_matmul_wrong_axis"), {"mm": 2048}) == 0


def test_the_share_weighs_nodes_by_their_macs() -> None:
    layers = layers_of("int8_conv") + layers_of("int8_convtranspose")
    assert int8_mac_share(layers, {"conv1": 300, "ct": 100}) == pytest.approx(0.75)


def test_weights_alone_in_int4_count_as_low_precision_but_not_as_int8() -> None:
    layers, macs = layers_of("int4_matmul"), {"mm4": 8192}
    assert (int8_mac_share(layers, macs), low_precision_mac_share(layers, macs)) == (0, 1)


def test_a_node_that_no_layer_names_is_unknown_and_lowers_the_share() -> None:
    layers = layers_of("int8_conv")
    assert mac_shares(layers, {"conv1": 1, "absent": 3}) == {"unknown": 0.75, "int8": 0.25}
    assert int8_mac_share(layers, {"conv1": 1, "absent": 3}) == 0.25


def test_without_any_known_node_there_is_no_share() -> None:
    assert int8_mac_share(layers_of("int8_conv"), {"absent": 3}) is None
    assert int8_mac_share(layers_of("int8_conv"), {}) is None
    assert int8_mac_share((), {"conv1": 3}) is None


def test_of_two_nodes_with_one_name_the_wider_decides() -> None:
    narrow = LayerPrecision(
        name="a", kind="gemm", inputs=("int8",), constants=("int8",), outputs=("float32",), onnx_nodes=("mm",)
    )
    wide = narrow.model_copy(update={"inputs": ("float16",), "constants": ("float16",)})
    assert precision_by_node([narrow, wide], ["mm"]) == {"mm": "float16"}


def test_a_narrow_type_needs_both_operands() -> None:
    layer = LayerPrecision(
        name="a",
        kind="gemm",
        inputs=("int8",),
        constants=("float16",),
        outputs=("float16",),
        onnx_nodes=("mm",),
    )
    assert precision_by_node([layer], ["mm"]) == {"mm": "float16"}


def test_a_node_name_may_look_like_the_log() -> None:
    line = (
        "Name: a]b, LayerType: [ONNX Layer: z]_myl0_1, LayerType: correlation, Inputs: [ { Name: x, "
        "Dimensions: [1,8], Datatype: Half, Format: (Linear) }], Constants: [], Outputs: [], TacticName: t, "
        "StreamId: 0, Metadata: [ONNX Layer: a]b, LayerType: [ONNX Layer: z]]"
    )
    (layer,) = parse_layers(line)
    assert (layer.kind, layer.inputs) == ("correlation", ("float16",))


def test_the_list_may_lack_constants_and_know_new_types() -> None:
    line = (
        "Name: c, LayerType: conv, Inputs: [ { Name: x, Dimensions: [1,8], Datatype: FP6, Format: f }], "
        "Outputs: [], TacticName: t, Metadata: "
    )
    assert parse_layers(line) == (LayerPrecision(name="c", kind="conv", inputs=("fp6",)),)


WORDS = ("Name: ", ", LayerType: ", "Inputs: [", "]", "Datatype: Int8", "\n", "\x1f", "{", "é", ",")
GARBAGE = st.lists(st.sampled_from(WORDS)).map("".join)


@given(st.one_of(st.text(), GARBAGE))
def test_garbage_is_read_as_no_layers(text: str) -> None:
    assert parse_layers(text) == ()


@given(st.integers(0, 3000))
def test_a_log_that_ends_early_gives_the_layers_before_its_end(length: int) -> None:
    text = (LOGS / "int8_conv.txt").read_bytes().decode()
    whole, torn = parse_layers(text), parse_layers(text[:length])
    assert [layer.name for layer in torn] == [layer.name for layer in whole[: len(torn)]]


@given(st.dictionaries(st.sampled_from(["conv1", "ct", "mm", "absent"]), st.integers(0, 10**12)))
def test_shares_sum_to_one_or_are_empty(macs: dict[str, int]) -> None:
    layers = layers_of("int8_conv") + layers_of("int8_convtranspose")
    shares = mac_shares(layers, macs)
    assert sum(shares.values()) == pytest.approx(1.0 if sum(macs.values()) else 0.0)
    assert all(share > 0 for share in shares.values())
