"""The door to ONNX Runtime: sessions, errors in words, models beyond one message."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import ModelError
from jettison.core.runner import mixes_samples
from jettison.engines import onnxruntime as module
from jettison.engines.onnxruntime import OnnxRuntimeRunner, Thrift, runner_of, session_of
from jettison.graph.save import save_model
from zoo.builder import image_net
from zoo.session import cleaned
from zoo.table import ZOO


def test_runner_gives_outputs_by_name_and_specs_of_both_sides(tmp_path):
    save_model(cleaned("conv_relu_chain"), tmp_path / "model.onnx")
    runner = OnnxRuntimeRunner(tmp_path / "model.onnx")
    outputs = runner.run(ZOO["conv_relu_chain"].inputs(3, 0))
    assert {name: array.shape[0] for name, array in outputs.items()} == {
        spec.name: 3 for spec in runner.outputs
    }
    assert runner.inputs[0].has_dynamic_batch


def test_model_beyond_the_limit_runs_through_a_file_that_is_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model, inputs = cleaned("conv_relu_chain"), ZOO["conv_relu_chain"].inputs(2, 0)
    whole, split = runner_of(model).run(inputs), runner_of(model, limit_bytes=2000).run(inputs)
    assert all(np.array_equal(whole[name], split[name]) for name in whole)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["residual_add", "attention_layernorm", "lstm", "many_inputs_outputs"])
@pytest.mark.parametrize("optimize", [True, False])
def test_thrift_changes_no_answer(tmp_path, name, optimize):
    save_model(cleaned(name), tmp_path / "model.onnx")
    inputs = ZOO[name].inputs(3, 0)
    found = [
        OnnxRuntimeRunner(tmp_path / "model.onnx", threads=1, optimize=optimize, thrift=thrift).run(inputs)
        for thrift in get_args(Thrift)
    ]
    for other in found[1:]:
        for output, array in found[0].items():
            np.testing.assert_array_equal(other[output], array)


@pytest.mark.parametrize(("outputs", "thrift"), [(1, "unplanned"), (8, "unplanned"), (9, "ordered")])
def test_a_graph_that_reports_on_its_inside_is_run_in_its_own_order(monkeypatch, outputs, thrift):
    net, x = image_net("reports", 8)
    for _ in range(outputs):
        x = net.op("Relu", x)
        net.output(x, ["batch", 8, 16, 16])
    opened = []

    def recorded(*arguments, **settings):
        opened.append(settings["thrift"])
        return session_of(*arguments, **settings)

    monkeypatch.setattr(module, "session_of", recorded)
    runner_of(ir.from_proto(net.model()))
    assert opened == [thrift]


@pytest.mark.parametrize(
    ("thrift", "plans", "ordered"),
    [("none", True, False), ("unplanned", False, False), ("ordered", False, True)],
)
def test_a_session_that_is_timed_plans_its_memory_as_a_server_does(thrift, plans, ordered):
    options = session_of(quantized_product().SerializeToString(), thrift=thrift).get_session_options()
    assert options.enable_mem_pattern is plans
    assert (options.execution_order == onnxruntime.ExecutionOrder.PRIORITY_BASED) is ordered


def quantized_product():
    """x times an INT8 matrix, all three with Q/DQ pairs."""
    constants = {
        "scale": np.float32(0.05), "zero": np.uint8(128), "weight": np.ones((4, 4), np.int8),
        "weight_scale": np.float32(0.1), "weight_zero": np.int8(0),
    }  # fmt: skip
    nodes = [
        ("QuantizeLinear", ["x", "scale", "zero"], "x_q"),
        ("DequantizeLinear", ["x_q", "scale", "zero"], "x_dq"),
        ("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], "weight_dq"),
        ("MatMul", ["x_dq", "weight_dq"], "product"),
        ("QuantizeLinear", ["product", "scale", "zero"], "y_q"),
        ("DequantizeLinear", ["y_q", "scale", "zero"], "y"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in nodes],
        "quantized_product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.mark.parametrize(("optimize", "is_kept"), [(False, True), (True, False)])
def test_only_an_unoptimized_session_keeps_the_pairs(tmp_path, optimize, is_kept):
    ran = tmp_path / "ran.onnx"
    session_of(quantized_product().SerializeToString(), optimize=optimize, optimized_path=ran)
    kinds = [node.op_type for node in onnx.load(ran).graph.node]
    assert ("MatMul" in kinds) is is_kept
    assert (kinds.count("DequantizeLinear") == 3) is is_kept


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_model_that_takes_a_scale_from_the_whole_batch_is_known(tmp_path, as_bytes):
    net, x = image_net("plain", 8)
    net.head(net.op("Relu", net.conv(x, (8, 8))), 8)
    plain = net.model()
    net, x = image_net("dynamic", 8)
    quantized, scale, zero = net.op("DynamicQuantizeLinear", net.conv(x, (8, 8)), outputs=3)
    net.head(net.op("DequantizeLinear", quantized, scale, zero), 8)
    for model, mixes in ((plain, False), (net.model(), True)):
        content = model.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        runner = OnnxRuntimeRunner(content if as_bytes else tmp_path / "model.onnx")
        assert mixes_samples(runner) is mixes


def test_scalar_input_takes_the_only_row(tmp_path):
    model, inputs = cleaned("unused_input"), ZOO["unused_input"].inputs(1, 0)
    rows = {
        name: np.asarray(array).reshape(-1) if np.ndim(array) == 0 else array
        for name, array in inputs.items()
    }
    expected, found = runner_of(model).run(inputs), runner_of(model).run(rows)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_onnx_runtime_tells_errors_only_outside_of_sessions_too(monkeypatch):
    """Else "[W:onnxruntime ...] Could not find a CPU kernel ..." stands among the answers of a verb."""
    told = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", told.append)
    runner_of(cleaned("conv_relu_chain"))
    assert set(told) == {3}


def test_refusal_of_onnx_runtime_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        OnnxRuntimeRunner(b"no model")


def test_inputs_that_do_not_fit_are_told_in_words():
    runner = runner_of(cleaned("conv_relu_chain"))
    with pytest.raises(ModelError, match="Check the input shapes"):
        runner.run({runner.inputs[0].name: np.zeros((1, 1, 1, 1), np.float32)})
