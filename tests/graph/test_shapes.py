"""Shapes: ranks and types in the model, concrete sizes in a table, one probe for what symbols leave open."""

import numpy as np
import onnx_ir as ir
import pytest

from jettison.core import dtypes
from jettison.core.tensors import TensorSpec
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes
from jettison.graph.shapes import ValueShape, example_inputs, infer_shapes
from zoo.builder import Net
from zoo.session import cleaned, run
from zoo.table import ZOO

FLOAT = dtypes.of_name("float32")


def probe_for(model, **settings):
    """A probe that runs ONNX Runtime, and the list of what it was asked."""
    asked = []

    def probe(content, names):
        asked.append(names)
        return run(content, example_inputs(input_specs(model), **settings), names)

    return probe, asked


def real_shapes(model, **settings):
    """Every value of the main graph as ONNX Runtime computes it."""
    full = model.clone()
    present = {value.name for value in full.graph.outputs}
    full.graph.outputs.extend(
        v for node in full.graph for v in node.outputs if v.name and v.name not in present
    )
    arrays = run(model_bytes(full), example_inputs(input_specs(model), **settings))
    return {name: ValueShape(dtypes.of_numpy(array.dtype), array.shape) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ZOO)
def test_table_is_what_a_real_run_gives(name):
    model = cleaned(name)
    probe, asked = probe_for(model)
    table = infer_shapes(model, probe=probe)
    assert len(asked) <= 1
    for value, real in real_shapes(model).items():
        assert table[value] == real, value


@pytest.mark.parametrize("name", ZOO)
def test_every_value_has_a_type_and_a_rank_afterwards(name):
    model = cleaned(name)
    infer_shapes(model, probe=probe_for(model)[0])
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None, value.name
            assert value.shape is not None, value.name


@pytest.mark.parametrize("name", ZOO)
def test_model_with_inferred_shapes_runs_at_other_sizes(name):
    """No concrete size of the example may leak into a dynamic model."""
    model = cleaned(name)
    infer_shapes(model, probe=probe_for(model)[0])
    batch = 2 if name == "fixed_batch" else 5
    outputs = run(model_bytes(model), ZOO[name].inputs(batch=batch))
    assert all(np.isfinite(array).all() for array in outputs.values())


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"data_dependent_shape", "if_on_data"}))
def test_symbols_are_enough_for_ordinary_models(name):
    model = cleaned(name)
    table = infer_shapes(model)
    assert all(value.name in table for node in model.graph for value in node.outputs)


def test_unknown_values_are_asked_for_in_one_run():
    model = cleaned("data_dependent_shape")
    probe, asked = probe_for(model)
    without = infer_shapes(model)
    found = infer_shapes(model, probe=probe)
    missing = [value.name for node in model.graph for value in node.outputs if value.name not in without]
    assert asked == [missing]
    assert missing
    assert set(missing) <= set(found)


def test_custom_operator_is_learned_by_the_probe_and_stays_dynamic():
    net = Net("opaque")
    x = net.input("x", ["batch", 16])
    y = net.op("Mystery", x, domain="com.acme")
    net.named("Relu", y, to="z")
    net.output("z", ["batch", 8])
    proto = net.model()
    proto.opset_import.add(domain="com.acme", version=1)
    model = ir.from_proto(proto)
    asked = []

    def probe(content, names):
        asked.append(names)
        return {name: np.zeros((1, 8), np.float16) for name in names}

    table = infer_shapes(model, probe=probe)
    value = model.graph.node(0).outputs[0]
    assert asked == [[y, "z"]]
    assert table[y] == ValueShape(dtypes.of_name("float16"), (1, 8))
    assert value.dtype == ir.DataType.FLOAT16
    assert value.shape.rank() == 2
    assert not value.shape.is_static()


def test_sizes_are_taken_by_name():
    model = cleaned("dynamic_size")
    table = infer_shapes(model, sizes={"batch": 4, "height": 24, "width": 40})
    assert table["image"] == ValueShape(FLOAT, (4, 16, 24, 40))
    assert table["map"] == ValueShape(FLOAT, (4, 16, 24, 40))
    assert infer_shapes(model)["map"] == ValueShape(FLOAT, (1, 16, 32, 32))


def test_weights_are_in_the_table():
    assert infer_shapes(cleaned("gemm_only"))["weight_1"] == ValueShape(FLOAT, (64, 32))


def test_inferring_does_not_change_what_the_model_computes():
    model = cleaned("attention_layernorm")
    inputs = ZOO["attention_layernorm"].inputs()
    before = run(model_bytes(model), inputs)
    infer_shapes(model, probe=probe_for(model)[0])
    np.testing.assert_array_equal(run(model_bytes(model), inputs)["logits"], before["logits"])


def test_example_inputs_follow_specs_sizes_and_seed():
    specs = (
        TensorSpec(name="x", dtype="float16", shape=("batch", 3, None, "width")),
        TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="mask", dtype="bool", shape=(4,)),
        TensorSpec(name="text", dtype="string", shape=(None,)),
        TensorSpec(name="flag", dtype="int32", shape=()),
    )
    arrays = example_inputs(specs, sizes={"width": 20, "length": 7}, seed=3)
    assert {name: array.shape for name, array in arrays.items()} == {
        "x": (1, 3, 32, 20),
        "ids": (1, 7),
        "mask": (4,),
        "text": (1,),
        "flag": (),
    }
    assert [array.dtype.name for array in arrays.values()] == ["float16", "int64", "bool", "object", "int32"]
    assert set(np.unique(arrays["ids"])) <= {0, 1}
    again = example_inputs(specs, sizes={"width": 20, "length": 7}, seed=3)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
