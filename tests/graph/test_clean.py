"""Cleaning: the same numbers from a newer, smaller graph in which everything has a name."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import ModelError
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, opset_of, output_specs
from jettison.graph.opset import raise_opset
from jettison.graph.save import model_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned, opened, relative_difference, run
from zoo.table import ZOO

TOLERANCE = 1e-4
"""Folding multiplies weights once more in float32: about 1e-7 per layer, far below this."""


def operators(model):
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


def check_same(proto, inputs, model):
    content = model_bytes(model)
    onnx.checker.check_model(content, full_check=True)
    assert relative_difference(run(proto.SerializeToString(), inputs), run(content, inputs)) < TOLERANCE


@pytest.mark.parametrize("name", ZOO)
def test_cleaned_model_computes_the_same(name):
    model = cleaned(name)
    for batch in {"fixed_batch": (2,)}.get(name, (1, 3)):
        check_same(ZOO[name].build(), ZOO[name].inputs(batch=batch), model)


@pytest.mark.parametrize("name", ZOO)
def test_cleaned_model_keeps_the_names_of_its_inputs_and_outputs(name):
    proto = ZOO[name].build()
    model = clean(ir.from_proto(proto))
    assert [spec.name for spec in input_specs(model)] == list(ZOO[name].inputs())
    assert [spec.name for spec in output_specs(model)] == [value.name for value in proto.graph.output]


def test_one_value_under_two_output_names_keeps_both():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        twice (float[n, 4] x) => (float[n, 4] first, float[n, 4] second, float[n, 4] same) {
            first = Mul(x, x)  second = Identity(first)  same = Identity(x)
        }"""
    )
    model = clean(ir.from_proto(proto))
    assert [spec.name for spec in output_specs(model)] == ["first", "second", "same"]
    check_same(proto, {"x": np.ones((2, 4), np.float32)}, model)


@pytest.mark.parametrize("name", ZOO)
def test_cleaned_model_is_new_enough_named_and_free_of_what_folds(name):
    model = cleaned(name)
    assert opset_of(model) == 19
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    names = [node.name for node in nodes]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not {"Identity", "Dropout", "Constant"} & set(operators(model))
    assert not model.functions
    assert all(value.uses() for value in model.graph.initializers.values())


@pytest.mark.parametrize("name", ZOO)
def test_cleaning_again_changes_nothing(name):
    once = cleaned(name)
    assert model_bytes(clean(once)) == model_bytes(once)


@pytest.mark.parametrize("name", ZOO)
def test_cleaning_leaves_the_model_given_as_it_was(name):
    model = opened(name)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    clean(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", sorted(name for name, model in ZOO.items() if "batchnorm" in model.features))
def test_batchnorm_behind_a_weighted_operator_is_folded(name):
    assert operators(cleaned(name))["BatchNormalization"] == 0


def test_batchnorm_with_nothing_before_it_stays():
    assert operators(cleaned("batchnorm_alone"))["BatchNormalization"] == 1


def test_batchnorm_on_a_shared_weight_leaves_the_other_convolution_alone():
    model = cleaned("batchnorm_shared_weight")
    first, second = (node for node in model.graph if node.op_type == "Conv")
    original = opened("batchnorm_shared_weight").graph.initializers["weight_1"].const_value.numpy()
    np.testing.assert_array_equal(second.inputs[1].const_value.numpy(), original)
    assert not np.array_equal(first.inputs[1].const_value.numpy(), original)


@pytest.mark.parametrize("reason", ["shared", "output", "training", "dynamic weight"])
def test_batchnorm_that_cannot_be_folded_stays(reason):
    net, x = image_net("stays", 16)
    weight = (
        net.input("kernel", [16, 16, 1, 1])
        if reason == "dynamic weight"
        else net.const(net.he((16, 16, 1, 1), 16))
    )
    trunk = net.op("Conv", x, weight)
    extra = {"training_mode": 1} if reason == "training" else {}
    y = net.batchnorm(trunk, 16, **extra)
    if reason == "training":
        for name in ("mean_out", "variance_out"):
            net.nodes[-1].output.append(name)
            net.output(name, [16])
    if reason == "output":
        net.output(trunk, ["batch", 16, 16, 16])
    net.named("Add", y, trunk if reason == "shared" else x, to="out")
    net.output("out", ["batch", 16, 16, 16])
    model = clean(ir.from_proto(net.model()))
    assert operators(model)["BatchNormalization"] == 1
    rng = np.random.default_rng(0)
    inputs = {"image": rng.normal(size=(2, 16, 16, 16)).astype(np.float32)}
    if reason == "dynamic weight":
        inputs["kernel"] = rng.normal(size=(16, 16, 1, 1)).astype(np.float32)
    check_same(net.model(), inputs, model)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["Conv", "ConvTranspose", "Gemm0", "Gemm1"]),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 3),
    bias=st.sampled_from(["none", "vector", "scalar", "row"]),
    seed=st.integers(0, 2**16),
)
def test_folding_batchnorm_never_changes_the_function(kind, groups, kernel, bias, seed):
    net = Net("law", seed=seed)
    if kind.startswith("Gemm"):
        x = net.input("x", ["batch", 8])
        shape = (12, 8) if kind == "Gemm1" else (8, 12)
        biases = {"vector": (12,), "scalar": (), "row": (1, 12)}
        attributes = {"transB": int(kind[-1]), "alpha": 0.7, "beta": 1.3}
    else:
        x = net.input("x", ["batch", 8, 5, 5])
        shape = (12, 8 // groups) if kind == "Conv" else (8, 12 // groups)
        shape += (kernel, kernel)
        biases = dict.fromkeys(("vector", "scalar", "row"), (12,))
        attributes = {"group": groups, "kernel_shape": [kernel, kernel]}
    inputs = [x, net.const(net.he(shape, 8), "weight")]
    if bias != "none":
        inputs.append(net.const(net.rng.normal(0, 1, biases[bias]), "bias"))
    y = net.op(kind.rstrip("01"), *inputs, **attributes)
    net.named("Relu", net.batchnorm(y, 12), to="y")
    net.output("y", ["batch", 12] if kind.startswith("Gemm") else ["batch", 12, None, None])
    model = clean(ir.from_proto(net.model()))
    assert operators(model)["BatchNormalization"] == 0
    arrays = {
        "x": net.rng.normal(0, 1, [3, 8] if kind.startswith("Gemm") else [3, 8, 5, 5]).astype(np.float32)
    }
    check_same(net.model(), arrays, model)


def test_constant_if_is_resolved_and_one_on_data_stays():
    assert operators(cleaned("if_constant"))["If"] == 0
    assert operators(cleaned("if_constant"))["Relu"] == 2
    assert operators(cleaned("if_on_data"))["If"] == 1


def test_indirect_weights_become_initializers_of_their_operator():
    model = cleaned("indirect_weights")
    weighted = [node for node in model.graph if node.op_type in ("Conv", "MatMul")]
    assert [node.inputs[1].is_initializer() for node in weighted] == [True] * 4
    assert not {"Transpose", "Reshape"} & set(operators(model))


def test_shape_arithmetic_becomes_one_constant():
    model = cleaned("shape_arithmetic")
    assert not {"Shape", "Gather", "Unsqueeze", "Concat"} & set(operators(model))
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    assert reshape.inputs[1].const_value.numpy().tolist() == [0, -1]


def test_reshape_whose_sizes_are_not_proven_is_left_alone():
    net = Net("unproven")
    x, shape = net.input("x", ["batch", 8]), net.input("shape", [2], TensorProto.INT64)
    net.named("Reshape", x, shape, to="y")
    net.output("y", ["batch", 8])
    model = clean(ir.from_proto(net.model()))
    inputs = {"x": np.arange(32, dtype=np.float32).reshape(4, 8), "shape": np.array([8, 4])}
    check_same(net.model(), inputs, model)


def test_unused_nodes_outputs_and_initializers_are_removed():
    model = cleaned("unused_parts")
    assert "Sigmoid" not in operators(model)
    assert len(next(node for node in model.graph if node.op_type == "MaxPool").outputs) == 1
    assert "const_3" not in model.graph.initializers


def test_unused_input_stays_part_of_the_signature():
    assert [spec.name for spec in input_specs(cleaned("unused_input"))] == ["image", "flag"]


def test_initializers_listed_as_inputs_become_constants():
    model = cleaned("initializers_as_inputs")
    assert [value.name for value in model.graph.inputs] == ["image"]


def test_equal_shape_constants_are_shared_and_equal_weights_are_not():
    net, x = image_net("sharing", 16)
    weight = net.he((16, 16, 1, 1), 16)
    for _ in range(2):
        x = net.op("Conv", x, net.const(weight, "weight"))
        x = net.op("Reshape", x, net.const(np.array([0, 16, 256]), "flat"))
        x = net.op("Reshape", x, net.const(np.array([0, 16, 16, 16]), "square"))
    net.head(x, 16)
    names = [name.rsplit("_", 1)[0] for name in clean(ir.from_proto(net.model())).graph.initializers]
    assert Counter(names) == {"weight": 3, "bias": 1, "flat": 1, "square": 1}


def test_large_constant_is_not_blown_up():
    net, x = image_net("growing", 16)
    grown = net.op("Expand", net.const(np.zeros((16, 1, 1), np.float32)), net.const(np.array([16, 512, 512])))
    pooled = net.op("ReduceMax", grown, axes=[1, 2], keepdims=1)
    net.head(net.op("Add", net.conv(x, (16, 16)), pooled), 16)
    model = clean(ir.from_proto(net.model()))
    assert operators(model)["Expand"] == 1
    assert len(model_bytes(model)) < 1 << 16


def test_absurd_constant_is_refused_memory():
    net, x = image_net("absurd", 16)
    sizes = net.const(np.array([10**6, 10**6, 10**6]))
    grown = net.op("ConstantOfShape", sizes)
    wide = net.op("Expand", net.const(np.float32(0)), sizes)
    picked = net.op("Slice", net.op("Add", grown, wide), *(net.const(np.array(v)) for v in ([0], [1], [0])))
    net.named("Add", x, net.op("ReduceMax", picked, keepdims=0), to="out")
    net.output("out", ["batch", 16, 16, 16])
    assert operators(clean(ir.from_proto(net.model())))["Expand"] == 1


def test_higher_opset_is_kept():
    net, x = image_net("newer", 16, opset=21, ir_version=10)
    net.head(net.conv(x, (16, 16)), 16)
    assert opset_of(clean(ir.from_proto(net.model()))) == 21


def test_operators_inside_branches_are_converted_too():
    def branch(kind, **attributes):
        out = helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node(kind, ["x"], [f"{kind}_out"], **attributes)], kind, [], [out]
        )

    net = Net("branches", opset=11, ir_version=6)
    x = net.input("x", ["batch", 1, 3])
    condition = net.op("Greater", net.op("ReduceMean", x, keepdims=0), net.const(np.float32(0)))
    branches = {
        "then_branch": branch("Squeeze", axes=[1]),
        "else_branch": branch("ReduceSum", axes=[1], keepdims=0),
    }
    net.named("If", condition, to="y", **branches)
    net.output("y", ["batch", 3])
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 1, 3)).astype(np.float32)}
    check_same(net.model(), inputs, clean(ir.from_proto(net.model())))


def test_operator_that_cannot_be_converted_is_named():
    net = Net("scaleless", opset=9, ir_version=4)
    net.nodes.append(helper.make_node("Upsample", [net.input("x", [1, 16])], ["z"]))
    net.output("z", [1, 16])
    with pytest.raises(ModelError) as caught:
        raise_opset(ir.from_proto(net.model()), 19)
    assert "operator Upsample cannot be converted from opset 9 to 18" in caught.value.detail
    assert caught.value.fix == "Export the model again at opset 18 or newer"


def test_custom_operator_passes_through():
    net, x = image_net("custom", 16, opset=11, ir_version=6)
    y = net.op("SpecialGelu", net.conv(x, (16, 16)), domain="com.acme")
    net.head(net.op("Relu", y), 16)
    proto = net.model()
    proto.opset_import.add(domain="com.acme", version=1)
    model = clean(ir.from_proto(proto))
    assert operators(model)["SpecialGelu"] == 1
    assert model.graph.opset_imports["com.acme"] == 1
    assert output_specs(model)[0].shape == ("batch", 16)


def test_output_without_a_shape_is_not_taken_for_a_scalar():
    """onnx 1.23's converter writes the shape of a scalar there."""
    net, x = image_net("shapeless", 16, opset=11, ir_version=6)
    net.named("SpecialGelu", x, to="y")
    net.nodes[-1].domain = "com.acme"
    net.outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    proto = net.model()
    proto.opset_import.add(domain="com.acme", version=1)
    assert clean(ir.from_proto(proto)).graph.outputs[0].shape is None


def test_stale_batch_in_the_middle_is_corrected():
    proto = ZOO["conv_relu_chain"].build()
    for value, shape in (("relu_4", [1, 16, 16, 16]), ("relu_8", [1, 32, 16, 16])):
        proto.graph.value_info.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    model = clean(ir.from_proto(proto))
    assert output_specs(model)[0].shape == ("batch", 16)
    values = {value.name: value for node in model.graph for value in node.outputs}
    assert str(values["relu_4"].shape[0]) == "batch"


@pytest.mark.parametrize("name", ["question_mark_dimensions", "unnamed_dimensions", "negative_dimensions"])
def test_open_dimensions_get_clean_names_of_their_own(name):
    model = cleaned(name)
    assert input_specs(model)[0].shape == ("batch", 16, "image_dim2", "image_dim3")
    assert output_specs(model)[0].shape == ("batch", 16, "map_dim2", "map_dim3")


def test_first_axis_is_the_batch_and_other_names_stay():
    net = Net("naming")
    x, y = net.input("x", ["N", "T", 16]), net.input("y", ["N", 16])
    net.named("Add", net.op("Relu", x), net.op("Unsqueeze", y, net.const(np.array([1]))), to="sum")
    net.output("sum", ["N", "T", 16])
    model = clean(ir.from_proto(net.model()))
    assert [spec.shape for spec in input_specs(model)] == [("batch", "T", 16), ("batch", 16)]
    assert output_specs(model)[0].shape == ("batch", "T", 16)


def test_constant_part_that_is_broken_is_left_to_the_engine():
    net, x = image_net("broken_constant", 16)
    broken = net.op("Reshape", net.const(np.zeros(6, np.float32)), net.const(np.array([4, 2])))
    net.named("Add", x, net.op("ReduceSum", broken, keepdims=0), to="out")
    net.output("out", ["batch", 16, 16, 16])
    assert operators(clean(ir.from_proto(net.model())))["Reshape"] == 1


def test_folding_that_fails_is_a_model_error(monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("Error during constant folding\nfor node 'x'")

    monkeypatch.setattr("onnxscript.optimizer.fold_constants", fail)
    with pytest.raises(ModelError, match=r"Error during constant folding for node 'x'\. Simplify"):
        clean(opened("gemm_only"))


def test_half_precision_weights_stay_half():
    model = cleaned("half_precision")
    kinds = {value.dtype for value in model.graph.initializers.values()}
    assert kinds == {ir.DataType.FLOAT16}


def test_constant_output_survives():
    net, x = image_net("constant_output", 16)
    net.head(net.conv(x, (16, 16)), 16)
    net.nodes.append(
        helper.make_node("Constant", [], ["version"], value=numpy_helper.from_array(np.array([3])))
    )
    net.output("version", [1], TensorProto.INT64)
    model = clean(ir.from_proto(net.model()))
    check_same(net.model(), {"image": np.zeros((1, 16, 16, 16), np.float32)}, model)
