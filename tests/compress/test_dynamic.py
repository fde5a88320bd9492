"""What ONNX Runtime's dynamic quantizer is given, and that old and new versions of it make the same of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import feature_net, features, model_of, quality_db, run

from jettison.compress.quantization.dynamic import dynamic_layers, quantize_dynamically
from jettison.graph.clean import clean
from jettison.graph.model import open_model
from zoo.builder import Net
from zoo.session import cleaned

GOOD_DB = 30.0
"""Two layers of normal numbers in 7 bits keep 35 dB; a weight transposed once too often leaves none."""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[ir.Model], onnx.ModelProto]:
    """The file that the quantizer is given: a quantizer that only copies stands in for it."""
    seen = tmp_path / "given.onnx"

    def copying(source: Path, result: Path, *, op_types: Sequence[str]) -> None:
        shutil.copyfile(source, seen)
        shutil.copyfile(source, result)

    def give(model: ir.Model) -> onnx.ModelProto:
        monkeypatch.setattr("jettison.compress.quantization.dynamic.dynamic_quantizer", lambda: copying)
        quantize_dynamically(model)
        return onnx.load(seen)

    return give


def tied(width: int = 32) -> ir.Model:
    """Two Gemm that read one square weight, transposed."""
    net, x = feature_net(width)
    weight = net.const(net.he((width, width), width), "weight")
    x = net.op("Relu", net.op("Gemm", x, weight, transB=1))
    net.named("Gemm", x, weight, to="out", transB=1)
    net.output("out", ["batch", width])
    return model_of(net)


def branching() -> ir.Model:
    """A Gemm inside a branch that reads a weight of the main graph, which a Gemm outside reads too."""
    net = Net("branching")
    x, flag = net.input("features", ["batch", 32]), net.input("flag", [], TensorProto.BOOL)
    weight = net.const(net.he((32, 32), 32), "weight")
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["batch", 32])
    gemm = helper.make_node("Gemm", [x, weight], ["chosen"], name="inner", transB=1)
    other = helper.make_node("Neg", [x], ["chosen"], name="other")
    then, otherwise = (helper.make_graph([node], node.name, [], [value]) for node in (gemm, other))
    y = net.op("If", flag, then_branch=then, else_branch=otherwise)
    net.named("Gemm", y, weight, to="out", transB=1)
    net.output("out", ["batch", 32])
    return clean(ir.from_proto(net.model()))


def transposing(graph: onnx.GraphProto) -> list[str]:
    """Names of the Gemm that transpose their weight, in branches too."""
    found = [
        node.name
        for node in graph.node
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    ]
    branches = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found + [name for branch in branches for name in transposing(branch)]


def test_tied_weights_are_quantized_as_they_are_used() -> None:
    model = tied()
    result = quantize_dynamically(model)
    assert Counter(node.op_type for node in result.model.graph)["MatMulInteger"] == 2
    assert min(quality_db(model, result.model, features())) > GOOD_DB


def test_the_quantizer_is_given_no_weight_that_it_would_have_to_transpose(
    given: Callable[[ir.Model], onnx.ModelProto],
) -> None:
    model = tied()
    file = given(model)
    assert [node.op_type for node in file.graph.node] == ["Gemm", "Relu", "Gemm"]
    assert transposing(file.graph) == []
    assert len(file.graph.initializer) == 1, "one weight stays one weight"
    assert transposing(ir.to_proto(model).graph) == ["node_gemm_2", "node_out"], "the model given stays"


@pytest.mark.parametrize("name", ["gemm_only", "conv_relu_chain", "attention_layernorm"])
def test_every_shape_that_the_quantizer_is_told_is_that_of_its_weight(
    given: Callable[[ir.Model], onnx.ModelProto], name: str
) -> None:
    file = given(cleaned(name))
    told = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in file.graph.value_info
    }
    shapes = {tensor.name: list(tensor.dims) for tensor in file.graph.initializer if tensor.name in told}
    assert any(len(shape) == 2 for shape in shapes.values())
    assert shapes == {name: told[name] for name in shapes}
    onnx.shape_inference.infer_shapes(file, strict_mode=True, data_prop=True)


def test_what_the_quantizer_is_given_computes_the_same(
    given: Callable[[ir.Model], onnx.ModelProto], tmp_path: Path
) -> None:
    model = branching()
    file = given(model)
    assert transposing(file.graph) == []
    for flag in (True, False):
        arrays = {**features(), "flag": np.array([flag])}
        found = run(open_model(tmp_path / "given.onnx"), arrays)
        np.testing.assert_allclose(found["out"], run(model, arrays)["out"], atol=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 0.5}, {"transA": 1}], ids=str)
def test_a_gemm_that_the_quantizer_leaves_in_float_is_not_called_quantized(
    attributes: dict[str, float],
) -> None:
    net = Net("scaled")
    x = net.input("features", [32, 32])
    y = net.op(
        "Gemm", x, net.const(net.he((32, 24), 32), "weight"), net.const(net.he((24,), 24)), **attributes
    )
    net.named("MatMul", y, net.const(net.he((24, 8), 24), "weight"), to="out")
    net.output("out", [32, 8])
    model = model_of(net)
    result = quantize_dynamically(model)
    assert Counter(node.op_type for node in result.model.graph)["Gemm"] == 1
    assert dynamic_layers(model.graph) == ("node_out",)
    assert [(layer.node, layer.quantized, layer.reason) for layer in result.layers] == [
        ("node_gemm_3", False, "no fast dynamic kernel for it"), ("node_out", True, "integers at run time"),
    ]  # fmt: skip
