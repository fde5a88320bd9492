"""Edits: constants are told from what a caller may override, names stay unique."""

import numpy as np
import onnx_ir as ir
import pytest

from jettison.core.errors import ModelError
from jettison.graph.edit import add_initializer, bypass, constant_of, free_name, is_constant, names_in
from jettison.graph.inference import is_unnamed
from zoo.session import opened


def test_initializer_that_is_an_input_is_no_constant():
    overridable = opened("initializers_as_inputs").graph.initializers["weight_1"]
    fixed = opened("conv_relu_chain").graph.initializers["weight_1"]
    assert constant_of(overridable) is None
    assert not is_constant(overridable)
    assert constant_of(fixed).shape == (16, 8, 3, 3)
    assert is_constant(fixed)
    assert constant_of(None) is None


def test_free_name_counts_up_and_is_then_taken():
    taken = {"scale"}
    assert [free_name("scale", taken) for _ in range(3)] == ["scale_1", "scale_2", "scale_3"]
    assert free_name("other", taken) == "other"


def test_names_inside_branches_are_in_use():
    assert {"then_out", "other_out", "image", "weight_1"} <= names_in(opened("if_on_data"))


def test_new_initializer_keeps_rank_zero_and_refuses_a_taken_name():
    graph = opened("conv_relu_chain").graph
    value = add_initializer(graph, "zero", np.array(0.5, np.float32))
    assert tuple(value.shape.numpy()) == ()
    assert graph.initializers["zero"].const_value.numpy() == np.float32(0.5)
    with pytest.raises(ModelError, match="initializer 'zero': expected a free name, found it taken"):
        add_initializer(graph, "zero", np.zeros(1))


def test_bypassed_node_hands_its_name_to_its_source():
    model = opened("output_consumed_inside")
    relu = next(node for node in model.graph if node.outputs[0].name == "features")
    bypass(relu, relu.inputs[0])
    assert model.graph.outputs[0].name == "features"
    assert model.graph.outputs[0].producer().op_type == "Conv"


@pytest.mark.parametrize("name", [None, "", "?", "-1", "None", "unk__12"])
def test_placeholders_are_no_names(name):
    assert is_unnamed(ir.SymbolicDim(name))


@pytest.mark.parametrize("size", [0, 7])
def test_sizes_and_real_names_are_names(size):
    assert not is_unnamed(size)
    assert not is_unnamed(ir.SymbolicDim("height"))
    assert is_unnamed(-1)
