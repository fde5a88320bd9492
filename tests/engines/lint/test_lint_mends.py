"""Mending of what tools really write: shared scales, halves apart, subgraphs, float16, weights in float."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from breakers import (
    EXACT,
    FLOAT32,
    IMAGE,
    LAYER,
    ROWS,
    SCALES,
    WEIGHT,
    Array,
    conv,
    dequantize,
    good,
    integers,
    model,
    node,
    normal,
    pair,
    quantize,
)
from onnx import TensorProto, helper, numpy_helper

from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import runner_of
from jettison.engines.tensorrt.lint.lint import Mended, lint, mend
from jettison.evaluate.sqnr import sqnr_db

ANY = parse_target("tensorrt")
SHIFTED = {"s": FLOAT32(0.0323), "z": np.uint8(113)}
EIGHT_BITS_DB = 25.0
"""What a file with a bit less for some activations must still agree with the file before."""


def mended(proto: onnx.ModelProto) -> Mended:
    result = mend(ir.from_proto(proto), ANY)
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result


def hard(result: Mended) -> list[str]:
    return [finding.code for finding in result.findings if finding.severity == "hard"]


def agreement(proto: onnx.ModelProto, result: Mended, *, scale: float = 1.0) -> float:
    """SQNR of the answers after against those before, on normal numbers of that deviation."""
    shape = [size if isinstance(size, int) else 8 for size in result.model.graph.inputs[0].shape or ()]
    dtype = result.model.graph.inputs[0].dtype
    assert dtype is not None
    x = (np.random.default_rng(5).normal(0, 1, shape) * scale).astype(dtype.numpy())
    answers = [
        runner_of(each, threads=1, optimize=False).run({"x": x})
        for each in (ir.from_proto(proto), result.model)
    ]
    figure = sqnr_db(answers[0], answers[1])
    assert figure is not None
    return figure


def operators(result: Mended) -> list[str]:
    return [each.op_type for each in result.model.graph]


def array_of(result: Mended, name: str) -> Array:
    value = result.model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def quantizer(result: Mended, name: str) -> ir.Node:
    return next(each for each in result.model.graph if each.name == name)


def test_nodes_that_share_a_scale_with_another_pair_leave_that_pair_alone() -> None:
    """`s` and `z` also stand for a pair of INT8, which must keep them."""
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c", "s", "uz"), conv("c_dq", "y")]
    proto = model(nodes, {**SCALES, **WEIGHT, "uz": np.uint8(128)})
    result = mended(proto)
    assert hard(result) == []
    assert [value.name for value in quantizer(result, "x_q").inputs[1:] if value] == ["s", "z"]
    assert agreement(proto, result) >= EXACT  # UINT8 around 128 is INT8 around 0


@pytest.mark.parametrize("kind", ["Transpose", "Reshape"])
def test_halves_with_a_moving_operator_between_them(kind: str) -> None:
    moved = node("Transpose", ["x_q"], "t", perm=[0, 1, 2, 3])
    if kind == "Reshape":
        moved = node("Reshape", ["x_q", "shape"], "t")
    nodes = [quantize("x", "x_q"), moved, dequantize("t", "t_dq"), *LAYER, conv("t_dq", "y")]
    constants = {**SHIFTED, **WEIGHT, **({"shape": np.array([-1, 16, 8, 8])} if kind == "Reshape" else {})}
    proto = model(nodes, constants)
    result = mended(proto)
    assert hard(result) == []
    assert agreement(proto, result) >= EIGHT_BITS_DB


def test_every_half_that_reads_the_integers_is_mended() -> None:
    second = [dequantize("x_q", "other_dq"), conv("other_dq", "d")]
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *second, node("Mul", ["c", "d"], "y")]
    proto = model(nodes, {**SHIFTED, **WEIGHT})
    result = mended(proto)
    assert hard(result) == []
    assert agreement(proto, result) >= EIGHT_BITS_DB - 6  # a product of two doubles what each has of noise


def test_integers_that_the_model_also_gives_out_stay_as_they_are() -> None:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "y")]
    proto = model(nodes, {**SHIFTED, **WEIGHT})
    proto.graph.output.append(helper.make_tensor_value_info("x_q", TensorProto.UINT8, IMAGE))
    result = mended(proto)
    assert hard(result) == ["T113", "T113"]
    assert result.codes == ()


def test_a_subgraph_is_looked_into_and_mended() -> None:
    def branch(name: str, layer: bool) -> onnx.GraphProto:
        inner = [*pair("x"), conv("x_dq", f"{name}_y")] if layer else [node("Relu", ["x"], f"{name}_y")]
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, IMAGE)
        return helper.make_graph(inner, name, [], [output])

    nodes = [
        node("ReduceMax", ["x"], "largest", keepdims=0),
        node("Greater", ["largest", "least"], "test"),
        *LAYER,
        node("If", ["test"], "y", then_branch=branch("a", True), else_branch=branch("b", False)),
    ]
    proto = model(nodes, {**SHIFTED, **WEIGHT, "least": FLOAT32(0)})
    assert [finding.node for finding in lint(ir.from_proto(proto), ANY) if finding.code == "T113"] == [
        "x_q",
        "x_dq",
    ]
    result = mended(proto)
    assert hard(result) == []
    assert agreement(proto, result) >= EIGHT_BITS_DB


def test_float16_scales_never_underflow() -> None:
    """A scale of 0 in float16 becomes the smallest that float16 knows, and dead channels stay dead."""
    scale = WEIGHT["sw"].astype(np.float16)
    scale[2] = 0
    constants = {"s": np.float16(0.03), "z": np.uint8(113), **WEIGHT, "sw": scale}
    nodes = [*pair("x"), *LAYER, conv("x_dq", "y")]
    proto = model(nodes, constants, dtype=TensorProto.FLOAT16)
    result = mended(proto)
    assert hard(result) == []
    floored = [each for each in result.model.graph.initializers.values() if each.name == "w_dq_scale"]
    assert np.asarray(floored[0].const_value)[2] == np.float16(6.2e-5)
    assert agreement(proto, result) >= EIGHT_BITS_DB


def test_unsigned_weights_in_float16_are_rounded_anew() -> None:
    constants = {
        "s": np.float16(0.03),
        "z": np.int8(0),
        "w": np.random.default_rng(0).integers(0, 256, (16, 16, 3, 3)).astype(np.uint8),
        "sw": np.full(16, 0.001, np.float16),
        "zw": np.full(16, 90, np.uint8),
    }
    proto = model([*pair("x"), *LAYER, conv("x_dq", "y")], constants, dtype=TensorProto.FLOAT16)
    result = mended(proto)
    assert hard(result) == []
    assert agreement(proto, result) >= EIGHT_BITS_DB


def test_opset_10_is_mended_as_it_is() -> None:
    """Pairs per tensor, as they were before opset 13."""
    constants = {**SHIFTED, "w": WEIGHT["w"], "sw": FLOAT32(0.001), "zw": np.int8(0)}
    nodes = [*pair("x"), dequantize("w", "w_dq", "sw", "zw"), conv("x_dq", "y")]
    proto = model(nodes, constants, opset=10)
    result = mended(proto)
    assert (hard(result), result.model.graph.opset_imports[""]) == ([], 10)
    assert agreement(proto, result) >= EIGHT_BITS_DB


@pytest.mark.parametrize(
    "zero", [np.full(16, 90, np.uint8), np.full(16, 128, np.uint8), np.full(16, 7, np.int8)]
)
def test_pairs_on_weights_stored_in_float(zero: Array) -> None:
    constants = {
        **SCALES,
        "w": normal(16, 16, 3, 3, deviation=0.05),
        "sw": np.full(16, 0.0015, FLOAT32),
        "zw": zero,
    }
    proto = model([*pair("x"), *pair("w", "sw", "zw", axis=0), conv("x_dq", "y")], constants)
    result = mended(proto)
    assert hard(result) == []
    assert agreement(proto, result) >= EIGHT_BITS_DB


def test_a_pair_on_a_float_weight_gets_scales_along_its_channels() -> None:
    weight = normal(32, 32, deviation=0.05)
    constants = {**SCALES, "w": weight, "sw": np.abs(weight).max(axis=1) / 127, "zw": np.zeros(32, np.int8)}
    nodes = [*pair("x"), *pair("w", "sw", "zw", axis=0), node("MatMul", ["x_dq", "w_dq"], "y")]
    proto = model(nodes, constants, shape=ROWS)
    result = mended(proto)
    assert result.codes == ("T119",)
    assert hard(result) == []
    assert agreement(proto, result) >= 35  # weights are rounded twice, to 8 bits each


def test_a_pair_of_16_bits_on_a_float_weight_goes() -> None:
    constants = {**SCALES, "w": WEIGHT["w"].astype(FLOAT32) / 500, "sw": FLOAT32(1e-5), "zw": np.int16(0)}
    proto = model([*pair("x"), *pair("w", "sw", "zw"), conv("x_dq", "y")], constants)
    result = mended(proto)
    assert (hard(result), operators(result)) == ([], ["QuantizeLinear", "DequantizeLinear", "Conv"])
    assert agreement(proto, result) >= 60


def test_a_weight_that_two_layers_share_is_mended_once() -> None:
    zero = {"w": WEIGHT["w"].astype(np.int16).__add__(128).astype(np.uint8), "zw": np.full(16, 128, np.uint8)}
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c"), conv("c_dq", "y")]
    proto = model(nodes, {**SCALES, **WEIGHT, **zero})
    result = mended(proto)
    assert (hard(result), result.codes) == ([], ("T113",))
    assert agreement(proto, result) >= EXACT
    assert array_of(result, "w_int8").tolist() == WEIGHT["w"].tolist()


def test_a_weight_whose_two_readers_have_different_channels_is_left() -> None:
    """A table shared by a Gemm with transB and a MatMul has channels along both axes: neither is wrong."""
    shared = {
        "w": integers(32, 32),
        "sw": np.linspace(1e-3, 2e-3, 32, dtype=FLOAT32),
        "zw": np.zeros(32, np.int8),
    }
    nodes = [
        *pair("x"),
        *LAYER,
        node("Gemm", ["x_dq", "w_dq"], "c", transB=1),
        *pair("c"),
        node("MatMul", ["c_dq", "w_dq"], "y"),
    ]
    result = mended(model(nodes, {**SCALES, **shared}, shape=ROWS))
    assert (result.codes, hard(result)) == ((), ["T119"])


def test_int4_blocks_stay_as_they_are() -> None:
    stored = helper.make_tensor("w", TensorProto.INT4, [64, 32], [3] * 2048)
    zero = helper.make_tensor("zw", TensorProto.INT4, [2, 32], [0] * 64)
    nodes = [dequantize("w", "w_dq", "sw", "zw", axis=0, block_size=32), node("MatMul", ["x", "w_dq"], "y")]
    proto = model(nodes, {"w": stored, "sw": np.full((2, 32), 0.01, FLOAT32), "zw": zero}, shape=("N", 64))
    assert lint(ir.from_proto(proto), ANY) == ()
    assert mended(proto).codes == ()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"axis": 1}, "expected scales of the shape [64, 1] for blocks along axis 1, found [2, 32]"),
        ({"opset": 20}, "expected opset 21 for blocks, found 20"),
    ],
)
def test_blocks_that_the_compiler_does_not_see(changes: dict[str, int], found: str) -> None:
    stored = helper.make_tensor("w", TensorProto.INT4, [64, 32], [3] * 2048)
    zero = helper.make_tensor("zw", TensorProto.INT4, [2, 32], [0] * 64)
    weight = dequantize("w", "w_dq", "sw", "zw", axis=changes.get("axis", 0), block_size=32)
    nodes = [weight, node("MatMul", ["x", "w_dq"], "y")]
    proto = model(nodes, {"w": stored, "sw": np.full((2, 32), 0.01, FLOAT32), "zw": zero}, shape=("N", 64))
    proto.opset_import[0].version = changes.get("opset", 21)
    assert found in [finding.message for finding in lint(ir.from_proto(proto), ANY)]


@pytest.mark.parametrize("value", [np.inf, np.nan, -0.03])
def test_scales_that_no_mending_can_save(value: float) -> None:
    proto = good(s=FLOAT32(value))
    messages = [finding.message for finding in lint(ir.from_proto(proto), ANY) if finding.code == "T115"]
    assert messages[0] == f"expected scales above 0, found {value:g} in 1 of 1"
    assert mended(proto).codes == ()


def test_one_scale_travels_along_a_chain_of_concats() -> None:
    scales = {f"s{place}": FLOAT32(0.03 + place / 100) for place in range(4)}
    branches = [
        each for place in range(4) for each in (conv("x_dq", f"c{place}"), *pair(f"c{place}", f"s{place}"))
    ]
    joins = [node("Concat", [f"c{place}_dq", f"c{place + 1}_dq"], f"j{place}", axis=1) for place in range(3)]
    nodes = [*pair("x"), *LAYER, *branches, *joins, node("Sum", ["j0", "j1", "j2"], "y")]
    result = mended(model(nodes, {**SCALES, **WEIGHT, **scales}))
    found = {float(each.inputs[1].const_value.numpy()) for each in result.model.graph if each.name[:1] == "c"
             and each.op_type == "QuantizeLinear"}  # fmt: skip
    assert found == {float(scales["s3"])}
    assert result.findings == ()


def test_a_pair_on_an_output_that_is_also_read_inside_stays() -> None:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c"), conv("c_dq", "y")]
    proto = model(nodes, {**SCALES, **WEIGHT}, outputs=("y", "c_dq"))
    result = mended(proto)
    assert (result.codes, result.findings) == ((), ())


def test_an_output_keeps_its_name_where_its_pair_goes() -> None:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), quantize("c", "c_q"), dequantize("c_q", "y")]
    result = mended(model(nodes, {**SCALES, **WEIGHT}))
    assert [value.name for value in result.model.graph.outputs] == ["y"]
    assert operators(result)[-1] == "Conv"


def test_twins_with_a_moving_operator_inside_are_not_merged() -> None:
    """The first pair hands on its values transposed: the second one's readers must not get those."""
    first = [
        quantize("x", "a_q"),
        node("Transpose", ["a_q"], "t", perm=[0, 1, 3, 2]),
        dequantize("t", "a_dq"),
    ]
    nodes = [*first, *pair("x"), *LAYER, conv("a_dq", "c"), conv("x_dq", "d"), node("Mul", ["c", "d"], "y")]
    proto = model(nodes, {**SCALES, **WEIGHT})
    result = mended(proto)
    assert "T201" not in result.codes
    assert agreement(proto, result) >= EXACT


@pytest.mark.parametrize(
    ("scale", "zero", "activation"),
    [
        (6 / 255, np.uint8(0), "Relu"),
        (3.7 / 255, np.int8(-128), "Relu"),
        (7 / 255, np.uint8(36), "Clip"),  # from -1 to 6, rounded as quantizers do
        (0.0323, np.uint8(113), None),  # from -3.65 to 4.59: calibrated
        (0.03, np.uint8(128), None),
    ],
)
def test_the_activation_that_a_range_stood_for_is_put_back(
    scale: float, zero: Array, activation: str | None
) -> None:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c", "u", "uz"), conv("c_dq", "y")]
    proto = model(nodes, {**SCALES, **WEIGHT, "u": FLOAT32(scale), "uz": zero})
    result = mended(proto)
    assert hard(result) == []
    between = {
        each for each in operators(result) if each not in ("QuantizeLinear", "DequantizeLinear", "Conv")
    }
    assert between == ({activation} if activation else set())
    assert agreement(proto, result, scale=3) >= (EIGHT_BITS_DB if activation else 15)


@pytest.mark.parametrize("maker", ["Relu", "Sigmoid", "Clip", "MaxPool"])
def test_no_second_activation_behind_one_that_is_there(maker: str) -> None:
    made = {
        "Relu": [node("Relu", ["c"], "r")],
        "Sigmoid": [node("Sigmoid", ["c"], "r")],
        "Clip": [node("Clip", ["c", "zero", "six"], "r")],
        "MaxPool": [node("Relu", ["c"], "p"), node("MaxPool", ["p"], "r", kernel_shape=[2, 2])],
    }[maker]
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *made, *pair("r", "u", "uz"), conv("r_dq", "y")]
    constants = {**SCALES, **WEIGHT, "u": FLOAT32(6 / 255), "uz": np.uint8(0)}
    bounds = {"zero": FLOAT32(0), "six": FLOAT32(6)} if maker == "Clip" else {}
    result = mended(model(nodes, {**constants, **bounds}))
    before = [each.op_type for each in made]
    assert [each for each in operators(result) if each in ("Relu", "Clip", "Sigmoid", "MaxPool")] == before


def test_an_input_of_the_model_gets_no_activation() -> None:
    """No tool leaves out what stands there; pixels from 0 to 1 only look like it."""
    result = mended(
        model([*pair("x"), *LAYER, conv("x_dq", "y")], {"s": FLOAT32(1 / 255), "z": np.uint8(0), **WEIGHT})
    )
    assert "Relu" not in operators(result)
    assert hard(result) == []


def test_tensors_of_no_elements_are_mended_too() -> None:
    constants = {**SHIFTED, "w": np.zeros((0, 16, 1, 1), np.uint8), "sw": FLOAT32(0.1), "zw": np.uint8(3)}
    nodes = [*pair("x"), dequantize("w", "w_dq", "sw", "zw"), node("Conv", ["x_dq", "w_dq"], "y")]
    result = mend(ir.from_proto(model(nodes, constants)), ANY)
    assert hard(result) == []


def test_constants_of_constant_nodes_are_read() -> None:
    """Older exporters write scales as nodes."""
    held = [
        node("Constant", [], name, value=numpy_helper.from_array(value)) for name, value in SHIFTED.items()
    ]
    proto = model([*held, *pair("x"), *LAYER, conv("x_dq", "y")], WEIGHT)
    assert {finding.code for finding in lint(ir.from_proto(proto), ANY)} == {"T113"}
    assert hard(mended(proto)) == []


def test_pairs_of_another_domain_are_pairs() -> None:
    """ONNX Runtime writes them into com.microsoft where the opset knows less, and TensorRT reads them."""
    nodes = [quantize("x", "x_q", domain="com.microsoft"), dequantize("x_q", "x_dq", domain="com.microsoft")]
    proto = model([*nodes, *LAYER, conv("x_dq", "y")], {**SCALES, **WEIGHT}, domains=["com.microsoft"])
    assert lint(ir.from_proto(proto), ANY) == ()
