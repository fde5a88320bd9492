"""TensorRT's real compiler, without a GPU: what compiles, what it refuses and what it does not survive."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import InputError, ModelError
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import PreflightReport
from jettison.engines.tensorrt.shapes import parse_shape_range
from jettison.engines.tensorrt.shares import precision_by_node

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed"),
]

Array = np.ndarray
SM86, SM89 = parse_target("sm86"), parse_target("sm89")
IMAGE = ("N", 8, 16, 16)


def product(folder: Path, weight: Array) -> Path:
    """One product with that weight, (32, 32)."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    return saved(folder, nodes, {"w": weight.astype(np.float32)}, shape=("N", 32))


def test_weights_in_two_to_four_are_compiled_with_the_flag_for_them(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (8, 4, 32))
    weight[:, 1:3] = 0
    report = preflight(product(tmp_path, weight.reshape(32, 32)), SM89)
    assert (report.compiles, report.sparse_layers, report.sparse_weights) == (True, 1, True)
    assert any(
        note.startswith("layers that are 2:4 throughout: 1; compiled with SPARSE") for note in report.notes
    )


def test_dense_weights_are_compiled_without_it(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (32, 32))
    weight[0] = 0
    report = preflight(product(tmp_path, weight), SM89)
    assert (report.compiles, report.sparse_layers, report.sparse_weights) == (True, 0, False)
    assert not any("2:4" in note for note in report.notes)


def saved(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    *,
    shape: Sequence[int | str | None] = IMAGE,
    initializers: Sequence[onnx.TensorProto] = (),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()),
            *initializers,
        ],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def qdq(tensor: str, scale: str, **attributes: int) -> list[onnx.NodeProto]:
    def node(kind: str, source: str, target: str) -> onnx.NodeProto:
        inputs = [source, scale, f"{scale}_zero"]
        return helper.make_node(kind, inputs, [target], name=target, **attributes)

    return [
        node("QuantizeLinear", tensor, f"{tensor}_q"),
        node("DequantizeLinear", f"{tensor}_q", f"{tensor}_dq"),
    ]


def scales(name: str, scale: object, zero: object) -> dict[str, Array]:
    return {name: np.asarray(scale, np.float32), f"{name}_zero": np.asarray(zero)}


def random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 0.1


ACTIVATION = scales("s", 0.05, np.int8(0))
WEIGHT = {"w": random(16, 8, 3, 3), **scales("sw", np.full(16, 0.01), np.zeros(16, np.int8))}
QUANTIZED_CONV = [
    *qdq("x", "s"),
    *qdq("w", "sw", axis=0),
    helper.make_node("Conv", ["x_dq", "w_dq"], ["c"], name="conv"),
    helper.make_node("Relu", ["c"], ["y"], name="relu"),
]


def float_conv(folder: Path, *, shape: Sequence[int | str | None] = IMAGE) -> Path:
    return saved(
        folder, [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": WEIGHT["w"]}, shape=shape
    )


def test_a_float_convolution_compiles_and_nothing_of_it_is_int8(tmp_path: Path) -> None:
    report = preflight(float_conv(tmp_path), SM86, macs={"conv": 225792})
    assert (report.outcome, report.compiles, report.compiled_for, report.nearest) == (
        "compiles",
        True,
        "sm86",
        False,
    )
    assert (report.int8_mac_share, report.low_precision_mac_share) == (0, 0)
    assert report.mac_shares == {"float32": 1}
    assert report.module == "tensorrt_rtx"
    assert report.version is not None
    assert report.version[0].isdigit()


def test_the_memory_of_a_build_is_an_estimate_for_its_largest_shapes(tmp_path: Path) -> None:
    report = preflight(float_conv(tmp_path), SM86)
    assert [str(found) for found in report.shapes] == ["x=1x8x16x16,8x8x16x16,8x8x16x16"]
    assert report.memory is not None
    assert report.memory.weights_bytes is not None
    assert report.memory.weights_bytes >= 16 * 8 * 9 * 4
    assert any("estimate" in note for note in report.notes)


def test_a_quantized_convolution_really_runs_in_int8(tmp_path: Path) -> None:
    report = preflight(saved(tmp_path, QUANTIZED_CONV, {**ACTIVATION, **WEIGHT}), SM86, macs={"conv": 225792})
    assert report.outcome == "compiles"
    assert (report.int8_mac_share, report.low_precision_mac_share) == (1, 1)


@pytest.mark.parametrize("target", ["tensorrt", "sm80", "sm87", "sm89", "sm90", "sm100", "sm110", "sm121"])
def test_int8_runs_on_every_gpu(tmp_path: Path, target: str) -> None:
    path = saved(tmp_path, QUANTIZED_CONV, {**ACTIVATION, **WEIGHT})
    report = preflight(path, parse_target(target), macs={"conv": 1})
    assert (report.compiles, report.int8_mac_share, report.target) == (True, 1, target)


def test_a_scale_along_the_wrong_axis_compiles_but_falls_back_to_float(tmp_path: Path) -> None:
    wrong = {**WEIGHT, **scales("sw", np.full(8, 0.01), np.zeros(8, np.int8))}
    nodes = [*QUANTIZED_CONV[:2], *qdq("w", "sw", axis=1), *QUANTIZED_CONV[4:]]
    report = preflight(saved(tmp_path, nodes, {**ACTIVATION, **wrong}), SM86, macs={"conv": 1})
    assert (report.compiles, report.int8_mac_share) == (True, 0)
    assert precision_by_node(report.layers, ["conv"]) == {"conv": "float32"}


def test_a_quantized_matmul_is_matched_through_its_fusions(tmp_path: Path) -> None:
    constants = {
        "w": random(64, 32),
        **scales("sw", np.full(32, 0.01), np.zeros(32, np.int8)),
        "b": random(32),
    }
    nodes = [
        *qdq("x", "s"),
        *qdq("w", "sw", axis=1),
        helper.make_node("MatMul", ["x_dq", "w_dq"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="add"),
    ]
    path = saved(tmp_path, nodes, {**ACTIVATION, **constants}, shape=("N", "S", 64))
    report = preflight(path, SM86, macs={"matmul": 2048})
    assert (report.outcome, report.int8_mac_share) == ("compiles", 1)


def test_an_asymmetric_uint8_activation_is_refused_at_its_node(tmp_path: Path) -> None:
    path = saved(tmp_path, QUANTIZED_CONV, {**scales("s", 0.05, np.uint8(128)), **WEIGHT})
    report = preflight(path, SM86, macs={"conv": 1})
    assert (report.outcome, report.compiles) == ("refused", False)
    (refusal,) = report.refusals
    assert (refusal.code, refusal.node, refusal.operator) == ("INVALID_NODE", "x_q", "QuantizeLinear")
    assert "Non-zero zero point is not supported" in refusal.description
    assert (report.layers, report.int8_mac_share) == ((), None)


def test_a_uint8_zero_point_of_zero_is_warned_of_since_its_meaning_changes(tmp_path: Path) -> None:
    path = saved(tmp_path, QUANTIZED_CONV, {**scales("s", 0.05, np.uint8(0)), **WEIGHT})
    report = preflight(path, SM86)
    assert report.outcome == "compiles"
    assert any("Defaulting to INT8" in warning for warning in report.warnings)


def test_dynamic_quantization_is_refused_at_its_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back"),
    ]
    (refusal,) = preflight(saved(tmp_path, nodes, {}), SM86).refusals
    assert (refusal.code, refusal.node) == ("UNSUPPORTED_NODE", "dynamic")
    assert refusal.description == "TensorRT does not run the operator DynamicQuantizeLinear"


def test_a_node_without_a_name_is_refused_by_its_place(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("DynamicQuantizeLinear", ["r"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    (refusal,) = preflight(saved(tmp_path, nodes, {}), SM86).refusals
    assert refusal.node == "node 1"


def test_a_runtime_scale_crashes_the_compiler_and_not_us(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMax", ["x"], ["s"], name="max", keepdims=0), *QUANTIZED_CONV]
    constants = {"s_zero": ACTIVATION["s_zero"], **WEIGHT}
    report = preflight(saved(tmp_path, nodes, constants, shape=(1, 8, 16, 16)), SM86)
    assert (report.outcome, report.compiles) == ("crashed", None)
    assert "neither pass nor fail" in report.notes[-1]


def fp8_conv(folder: Path) -> Path:
    zero = helper.make_tensor("s_zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [*qdq("x", "s"), *qdq("w", "s"), helper.make_node("Conv", ["x_dq", "w_dq"], ["y"], name="conv")]
    constants = {"s": np.asarray(0.05, np.float32), "w": random(16, 16, 3, 3)}
    return saved(folder, nodes, constants, shape=(1, 16, 16, 16), initializers=[zero])


def test_fp8_is_refused_where_the_gpu_lacks_it(tmp_path: Path) -> None:
    report = preflight(fp8_conv(tmp_path), parse_target("sm87"))
    assert (report.outcome, report.compiled_for, report.nearest) == ("refused", "sm86", True)
    (refusal,) = report.refusals
    assert refusal.code == "BUILDER"
    assert "HW-specific datatypes: fp8_e4m3" in refusal.description


def test_fp8_is_low_precision_but_not_int8(tmp_path: Path) -> None:
    report = preflight(fp8_conv(tmp_path), SM89, macs={"conv": 1})
    assert (report.int8_mac_share, report.low_precision_mac_share) == (0, 1)
    assert report.mac_shares == {"float8_e4m3fn": 1}


def test_weights_in_external_data_are_found_beside_the_model(tmp_path: Path) -> None:
    path = float_conv(tmp_path)
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert (tmp_path / "weights.bin").stat().st_size >= 16 * 8 * 9 * 4
    assert preflight(path, SM86).outcome == "compiles"


def test_given_shapes_are_compiled_for(tmp_path: Path) -> None:
    small = preflight(float_conv(tmp_path), SM86, shapes=[parse_shape_range("x=1x8x16x16")])
    large = preflight(
        float_conv(tmp_path), SM86, shapes=[parse_shape_range("x=1x8x16x16,8x8x16x16,512x8x16x16")]
    )
    assert activation_bytes(large) > 2 * activation_bytes(small)
    assert large.shapes[0].maximum == (512, 8, 16, 16)


def activation_bytes(report: PreflightReport) -> int:
    assert report.memory is not None
    assert report.memory.activation_bytes is not None
    return report.memory.activation_bytes


def test_shapes_that_do_not_fit_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shapes for 'x': expected \?x8x16x16, found 1x3x16x16"):
        preflight(float_conv(tmp_path), SM86, shapes=[parse_shape_range("x=1x3x16x16")])


def test_open_dimensions_that_are_all_called_question_mark_compile(tmp_path: Path) -> None:
    report = preflight(float_conv(tmp_path, shape=("?", 8, "?", "?")), SM86)
    assert report.outcome == "compiles"
    assert report.shapes[0].maximum == (8, 8, 256, 256)


@pytest.mark.parametrize("content", [b"", b"no model " * 20, b"hello world this is not onnx" * 10])
def test_a_file_that_is_no_onnx_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model model\.onnx: expected an ONNX graph with outputs"):
        preflight(path, SM86)


def test_a_torn_file_is_a_model_error(tmp_path: Path) -> None:
    path = float_conv(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match="Check that it is an ONNX file and whole"):
        preflight(path, SM86)


def test_the_values_of_a_shape_input_are_asked_for_and_used(tmp_path: Path) -> None:
    path = reshape(tmp_path)
    with pytest.raises(InputError, match="input 'size': it carries a shape"):
        preflight(path, SM86)
    report = preflight(path, SM86, shapes=[parse_shape_range("size=1x64,8x64,8x64")])
    assert report.outcome == "compiles"


def reshape(folder: Path) -> Path:
    path = saved(
        folder, [helper.make_node("Reshape", ["x", "size"], ["y"], name="reshape")], {}, shape=("N", 64)
    )
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.INT64, [2]))
    onnx.save(model, path)
    return path


def test_a_macs_table_that_names_other_nodes_gives_no_share_but_a_note(tmp_path: Path) -> None:
    report = preflight(float_conv(tmp_path), SM86, macs={"other": 1})
    assert report.int8_mac_share is None
    assert "100.0% of the multiply-accumulates" in report.notes[-1]
