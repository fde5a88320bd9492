"""Casting a graph: borders, constants, what stays in float32, and the simulation that judges it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.cast import cast_nodes, simulate_cast
from jettison.graph.cast_plan import plan_cast
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, output_specs
from jettison.graph.opset import raise_opset
from jettison.graph.save import model_bytes, weight_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned, run
from zoo.table import ZOO

CASTABLE = [name for name in ZOO if name != "half_precision"]
NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def model_of(net: Net) -> ir.Model:
    return clean(ir.from_proto(net.model()))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def dtypes_of(model: ir.Model) -> dict[str, str]:
    values = [value for node in model.graph for value in node.outputs]
    return {value.name: value.dtype.name for value in (*values, *model.graph.initializers.values())}


def check(model: ir.Model) -> None:
    """ONNX's checker with strict inference: every element type in the graph follows from its inputs."""
    onnx.checker.check_model(onnx.load_from_string(model_bytes(model)), full_check=True)


def with_type(model: ir.Model, dtype: str) -> ir.Model:
    return model if dtype == "float16" else raise_opset(model.clone(), 22)


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("name", CASTABLE)
def test_cast_keeps_the_signature_and_passes_the_checker(name, dtype):
    model = with_type(cleaned(name), dtype)
    before = model_bytes(model)
    cast = cast_nodes(model, dtype)
    check(cast)
    assert input_specs(cast) == input_specs(model)
    assert output_specs(cast) == output_specs(model)
    assert model_bytes(model) == before
    assert model_bytes(cast_nodes(cast, dtype)) == model_bytes(cast), "casting twice is casting once"


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("name", CASTABLE)
def test_simulated_outputs_stay_close(name, dtype):
    """Rounding to 11 bits leaves about 74 dB, to 8 bits 56 dB; ten roundings in a row cost 10 to 14 dB."""
    model, inputs = with_type(cleaned(name), dtype), ZOO[name].inputs()
    reference = run(model_bytes(model), inputs)
    figure = sqnr_db(reference, run(model_bytes(simulate_cast(model, dtype)), inputs))
    assert figure is not None
    assert figure > {"float16": 60, "bfloat16": 41}[dtype]
    assert figure < 90, "nothing was rounded"


@pytest.mark.parametrize("name", [name for name in CASTABLE if name not in ("no_weighted_op", "if_on_data")])
def test_weights_take_half_the_bytes(name):
    model = cleaned(name)
    assert weight_bytes(cast_nodes(model, "float16")) < 0.52 * weight_bytes(model)


def test_float16_file_runs_in_onnx_runtime():
    model, inputs = cleaned("residual_add"), ZOO["residual_add"].inputs()
    figure = sqnr_db(run(model_bytes(model), inputs), run(model_bytes(cast_nodes(model, "float16")), inputs))
    assert figure is not None
    assert figure > 60


def chain(opset: int = 19) -> ir.Model:
    """(x + 1000) * 0.1 - 3, element by element."""
    net = Net("chain", opset=opset)
    x = net.input("x", ["n"])
    y = net.op("Add", x, net.const(np.float32(1000)))
    y = net.op("Mul", y, net.const(np.float32(0.1)))
    net.named("Sub", y, net.const(np.float32(3)), to="y")
    net.output("y", ["n"])
    return model_of(net)


@pytest.mark.parametrize("dtype", NUMPY)
@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=20))
def test_simulation_is_the_arithmetic_of_the_type_bit_by_bit(dtype, values):
    """Numpy computes one operation on 16-bit floats in float32 and rounds, which is IEEE's definition."""
    x = np.array(values, np.float32)
    low = NUMPY[dtype]
    expected = (x.astype(low) + low(1000)) * low(0.1) - low(3)
    found = run(model_bytes(simulate_cast(chain(), dtype)), {"x": x})["y"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_onnx_runtime_hides_the_rounding_which_is_why_there_is_a_simulation():
    x = np.array([0.3], np.float32)
    exact = (x + 1000) * np.float32(0.1) - 3
    real = run(model_bytes(cast_nodes(chain(), "float16")), {"x": x})["y"]
    simulated = run(model_bytes(simulate_cast(chain(), "float16")), {"x": x})["y"]
    assert abs(simulated[0] - exact[0]) > 0.015, "1000.3 becomes 1000.5 in float16"
    assert abs(real[0] - exact[0]) < abs(simulated[0] - exact[0])


def test_one_cast_serves_all_readers_of_a_value():
    net, x = image_net("shared", 16)
    left, right = net.conv(x, (16, 16)), net.conv(x, (16, 16), kernel=1)
    net.named("Add", left, right, to="sum")
    net.output("sum", ["batch", 16, 16, 16])
    cast = cast_nodes(model_of(net), "float16")
    assert kinds(cast).count("Cast") == 2
    kept = next(node.name for node in cast.graph if node.op_type == "Add")
    island = cast_nodes(model_of(net), "float16", frozenset({kept}))
    assert kinds(island).count("Cast") == 3, "one for the input, one for each branch"
    check(island)


def test_output_that_is_read_inside_keeps_its_name_and_type():
    cast = cast_nodes(cleaned("output_consumed_inside"), "float16")
    assert [value.name for value in cast.graph.outputs] == ["features", "mask", "logits"]
    assert dtypes_of(cast)["features"] == "FLOAT"
    readers = [usage.node.op_type for usage in cast.graph.outputs[0].uses()]
    assert readers == [], "the graph goes on from the 16-bit value"


def test_integers_and_booleans_stay_as_they_are():
    net = Net("mixed", opset=19)
    ids = net.input("ids", ["batch", 8], TensorProto.INT64)
    x = net.op("Gather", net.const(net.he((50, 16), 2), "table"), ids, axis=0)
    positive = net.op("Greater", x, net.const(np.float32(0)))
    x = net.op("Where", positive, x, net.const(np.float32(-1)))
    net.named("ArgMax", x, to="best", axis=-1, keepdims=0)
    net.output("best", ["batch", 8], TensorProto.INT64)
    net.named("Not", positive, to="negative")
    net.output("negative", ["batch", 8, 16], TensorProto.BOOL)
    model = model_of(net)
    cast = cast_nodes(model, "float16")
    check(cast)
    before, after = dtypes_of(model), dtypes_of(cast)
    integral = {name for name, dtype in before.items() if dtype in ("INT64", "BOOL")}
    assert integral
    assert {name: after[name] for name in integral} == {name: before[name] for name in integral}
    assert "Cast" not in kinds(cast), "no float enters or leaves"
    inputs = {"ids": np.arange(16).reshape(2, 8)}
    for name, expected in run(model_bytes(model), inputs).items():
        np.testing.assert_array_equal(run(model_bytes(cast), inputs)[name], expected)


def test_subgraphs_stay_in_float32_and_get_float32_values():
    model = cleaned("if_on_data")
    plan = plan_cast(model, "float16")
    assert list(plan.kept.values()) == ["it holds a subgraph"]
    cast = cast_nodes(model, "float16")
    branch = next(node for node in cast.graph if node.op_type == "If")
    inner = [node for graph in branch.attributes.values() for node in graph.as_graph()]
    assert {node.op_type for node in inner} == {"Relu", "Tanh"}
    assert {value.dtype.name for node in inner for value in (*node.inputs, *node.outputs)} == {"FLOAT"}


def test_arithmetic_on_sizes_stays_in_float32():
    """Half of a length of 4,102 is 2,051, which float16 does not know."""
    net = Net("halves", opset=19)
    x = net.input("x", ["batch", "length"])
    length = net.op("Gather", net.op("Shape", x), net.const(np.array([1])), axis=0)
    half = net.op("Mul", net.op("Cast", length, to=TensorProto.FLOAT), net.const(np.float32([0.5])))
    end = net.op("Cast", half, to=TensorProto.INT64)
    net.named("Slice", net.op("Relu", x), net.const(np.array([0])), end, net.const(np.array([1])), to="y")
    net.output("y", ["batch", "half"])
    model = model_of(net)
    plan = plan_cast(model, "float16")
    kept = [node.op_type for node in model.graph if plan.kept.get(node.name) == "it computes with sizes"]
    assert kept == ["Cast", "Mul", "Cast"]
    found = run(model_bytes(cast_nodes(model, "float16")), {"x": np.ones((1, 4102), np.float32)})["y"]
    assert found.shape == (1, 2051)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (1e6, "reaches 1e+06, beyond float16"),
        (1e-12, "is too small for float16"),
        (1e-5, None),
        (np.inf, None),
        (65504, None),
        (0, None),
    ],
)
def test_constant_that_the_type_cannot_hold_keeps_its_node(number, reason):
    """1e-5, a usual epsilon, is subnormal in float16 and only 0.1 % off."""
    net = Net("constant", opset=19)
    net.named("Mul", net.op("Exp", net.input("x", ["n"])), net.const(np.float32(number), "factor"), to="y")
    net.output("y", ["n"])
    model = model_of(net)
    plan = plan_cast(model, "float16")
    assert list(plan.kept.values()) == ([] if reason is None else [f"its constant 'factor_2' {reason}"])
    check(cast_nodes(model, "float16"))
    assert plan_cast(model, "bfloat16").kept == {}, "bfloat16 has float32's range"


def test_constant_with_readers_on_both_sides_is_stored_twice():
    net = Net("both", opset=19)
    x, shared = net.input("x", ["n", 16]), net.const(net.he((16, 16), 16), "weight")
    y = net.op("MatMul", net.op("MatMul", x, shared, name="low"), shared, name="high")
    net.named("Exp", y, to="y")
    net.output("y", ["n", 16])
    cast = cast_nodes(model_of(net), "float16", frozenset({"high"}))
    stored = sorted(value.dtype.name for value in cast.graph.initializers.values())
    assert stored == ["FLOAT", "FLOAT16"]
    check(cast)


def test_operator_without_the_type_at_this_opset_stays():
    model = cleaned("conv_relu_chain")
    plan = plan_cast(model, "bfloat16")
    found = {why for why in plan.kept.values() if "opset" in why}
    assert "Conv has no bfloat16 form at opset 19" in found
    assert plan_cast(raise_opset(model.clone(), 22), "bfloat16").kept == {}


def test_input_that_must_be_float32_gets_no_cast():
    """The scales of a Resize are float32 by its schema, whatever its data is."""
    cast = cast_nodes(cleaned("resize_nearest_linear"), "float16")
    resize = next(node for node in cast.graph if node.op_type == "Resize")
    assert resize.inputs[0].dtype == ir.DataType.FLOAT16
    assert resize.inputs[2].dtype == ir.DataType.FLOAT


def test_moving_between_float32_nodes_is_not_cast():
    net = Net("moved", opset=19)
    x = net.op("Exp", net.input("x", ["n", 16]), name="first")
    y = net.op("Transpose", x, name="moves", perm=[1, 0])
    net.named("Sin", y, to="y")
    net.output("y", [16, "n"])
    cast = cast_nodes(model_of(net), "float16", frozenset({"first", "node_y"}))
    assert "Cast" not in kinds(cast)
    plan = plan_cast(model_of(net), "float16", frozenset({"first", "node_y"}))
    assert plan.kept["moves"] == "it only moves values between float32 nodes"


def test_unknown_operators_and_types_stay_in_float32():
    net = Net("foreign", opset=19)
    x = net.op("Exp", net.input("x", ["n"]))
    y = net.op("Twist", x, domain="elsewhere", name="foreign")
    net.named("Sin", y, to="y")
    net.output("y", ["n"])
    model = ir.from_proto(net.model())
    for node in model.graph:
        node.outputs[0].type = None if node.op_type == "Twist" else ir.TensorType(ir.DataType.FLOAT)
    plan = plan_cast(model, "float16")
    assert plan.kept["foreign"] == "an element type around it is not known"
    assert plan.kept["node_y"] == "an element type around it is not known"


def test_node_whose_attribute_sets_its_type_stays():
    net = Net("noise", opset=19)
    x = net.op("Exp", net.input("x", ["n", 4]))
    noise = net.op("RandomNormalLike", x, name="noise", dtype=TensorProto.FLOAT, seed=1.0)
    net.named("Add", x, noise, to="y")
    net.output("y", ["n", 4])
    model = model_of(net)
    assert plan_cast(model, "float16").kept == {"noise": "an attribute sets its element type"}
    check(cast_nodes(model, "float16"))


def test_normalization_that_writes_its_statistics_stays():
    """They are float32 by the attribute `stash_type`, whatever the input is."""
    net = Net("statistics", opset=19)
    x = net.op("Exp", net.input("x", ["n", 16]))
    outputs = net.op(
        "LayerNormalization", x, net.const(np.ones(16)), axis=-1, outputs=3, name="normalization"
    )
    net.named("Mul", outputs[0], outputs[1], to="y")
    net.output("y", ["n", 16])
    model = model_of(net)
    for dtype in NUMPY:
        assert plan_cast(model, dtype).kept == {"normalization": "an attribute sets its element type"}
        check(cast_nodes(model, dtype))


def test_casting_an_island_later_leaves_no_way_back_and_forth():
    model = cleaned("conv_relu_chain")
    island = [node.name for node in model.graph if node.op_type == "Conv"][1]
    once = cast_nodes(model, "float16", frozenset({island}))
    later = cast_nodes(once, "float16")
    assert kinds(once).count("Cast") == 4
    assert kinds(later).count("Cast") == 2
    check(later)
