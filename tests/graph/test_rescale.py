"""Rescaled models: the same answers whatever the factors, and values that are really divided."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junction_cases import MOVED, Case

from jettison.core.tensors import Arrays
from jettison.graph.clean import clean
from jettison.graph.junction import Junction, find_junctions
from jettison.graph.rescale import rescaled
from jettison.graph.save import model_bytes
from zoo.builder import image_net
from zoo.session import cleaned, relative_difference, run
from zoo.table import ZOO

EQUAL = 1e-4
"""Each factor is rounded twice, to 1e-7; sums of a few hundred products of both signs cancel some digits."""

Factors = dict[str, np.ndarray]


def factors_for(junctions: tuple[Junction, ...], seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return {
        junction.name: np.exp2(rng.uniform(-6, 6, junction.channels)).astype(np.float32)
        for junction in junctions
    }


def inputs_for(model: ir.Model, batch: int = 2) -> Arrays:
    """Standard normal arrays; open dimensions after the first are 5."""
    rng = np.random.default_rng(1)
    shapes = {value.name or "": list(value.shape or ()) for value in model.graph.inputs}
    return {
        name: rng.normal(0, 1, [_size(size, 5 if axis else batch) for axis, size in enumerate(shape)]).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def _size(size: int | ir.SymbolicDim, default: int) -> int:
    return size if isinstance(size, int) else default


def watched(model: ir.Model, names: list[str]) -> ir.Model:
    """A copy that has these values as outputs too."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in names)
    return copy


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_answers_stay_whatever_the_factors(case: Case, batch: int) -> None:
    model = case.model()
    junctions = find_junctions(model)
    changed = rescaled(model, junctions, factors_for(junctions))
    onnx.checker.check_model(ir.to_proto(changed), full_check=True)
    inputs = inputs_for(model, batch)
    expected, found = (run(model_bytes(one), inputs) for one in (model, changed))
    assert relative_difference(expected, found) < EQUAL


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_what_layers_read_is_divided_by_the_factors(case: Case) -> None:
    model = case.model()
    junctions = find_junctions(model)
    factors = factors_for(junctions)
    reads = [read for junction in junctions for read in junction.reads]
    before, after = (
        run(model_bytes(watched(one, reads)), inputs_for(model), reads)
        for one in (model, rescaled(model, junctions, factors))
    )
    for junction in junctions:
        for read, axis in junction.reads.items():
            shape = [-1 if place == axis else 1 for place in range(before[read].ndim)]
            divided = before[read] / factors[junction.name].reshape(shape)
            np.testing.assert_allclose(after[read], divided, rtol=EQUAL, atol=EQUAL * np.abs(divided).max())


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_names_of_nodes_and_of_what_layers_read_stay(case: Case) -> None:
    """But for the multiplications, which are new; a value that has one changes its name, not its reader's."""
    model = case.model()
    junctions = find_junctions(model)
    changed = rescaled(model, junctions, factors_for(junctions))
    before, after = ({node.name: node for node in one.graph} for one in (model, changed))
    new = {f"{junction.name}_Rescale" for junction in junctions if junction.multiplied}
    assert set(after) - set(before) == new
    for junction in junctions:
        for change in junction.weights:
            assert before[change.node].inputs[0].name == after[change.node].inputs[0].name
    assert [value.name for value in model.graph.outputs] == [value.name for value in changed.graph.outputs]


def test_the_model_given_stays_as_it_is() -> None:
    model = MOVED["residual"].model()
    before = model_bytes(model)
    junctions = find_junctions(model)
    rescaled(model, junctions, factors_for(junctions))
    assert model_bytes(model) == before


def test_a_junction_without_factors_stays() -> None:
    model = MOVED["depthwise"].model()
    junctions = find_junctions(model)
    factors = factors_for(junctions[:1])
    changed = rescaled(model, junctions, factors)
    weights = [node.inputs[1].name for node in changed.graph if node.op_type == "Conv"]
    assert [name.endswith("_rescaled") for name in weights] == [True, True, False]
    assert len(changed.graph.initializers) == len(model.graph.initializers)


def test_a_node_that_shares_a_constant_with_a_changed_one_keeps_its_own() -> None:
    model = MOVED["shared bias"].model()
    junctions = find_junctions(model)
    changed = rescaled(model, junctions, factors_for(junctions))
    first, last = (node for node in changed.graph if node.op_type == "Conv")
    assert last.inputs[2].name != first.inputs[2].name
    bias = next(node for node in model.graph if node.name == last.name).inputs[2]
    np.testing.assert_array_equal(last.inputs[2].const_value.numpy(), bias.const_value.numpy())


@functools.cache
def every_kind() -> ir.Model:
    """A trunk with a depthwise branch, a Clip, a grouped convolution and a head."""
    net, x = image_net("every", 8)
    x = net.op("Relu", net.conv(x, (8, 8)))
    y = net.op("Clip", net.conv(x, (8, 16), kernel=1), net.const(np.float32(0)))
    y = net.op("LeakyRelu", net.conv(y, (16, 16), groups=16), alpha=0.1)
    x = net.op("Relu", net.op("Add", x, net.conv(y, (16, 8), groups=4)))
    net.head(net.op("MaxPool", x, kernel_shape=[2, 2]), 8)
    return clean(ir.from_proto(net.model()))


@functools.cache
def normalized() -> ir.Model:
    return cleaned("attention_layernorm")


def drawn(data: st.DataObject, junctions: tuple[Junction, ...], numbers: st.SearchStrategy[float]) -> Factors:
    return {
        junction.name: np.array(
            data.draw(st.lists(numbers, min_size=junction.channels, max_size=junction.channels)), np.float32
        )
        for junction in junctions
    }


@pytest.mark.parametrize("build", [every_kind, normalized])
@settings(max_examples=25)
@given(data=st.data())
def test_any_factors_within_a_hundred_give_the_same_answers(build, data: st.DataObject) -> None:
    model = build()
    junctions = find_junctions(model)
    changed = rescaled(model, junctions, drawn(data, junctions, st.floats(0.01, 100.0)))
    inputs = inputs_for(model)
    expected, found = (run(model_bytes(one), inputs) for one in (model, changed))
    assert relative_difference(expected, found) < EQUAL


@pytest.mark.parametrize("build", [every_kind, normalized])
@settings(max_examples=10)
@given(data=st.data())
def test_powers_of_two_change_no_bit_of_an_answer(build, data: st.DataObject) -> None:
    model = build()
    junctions = find_junctions(model)
    powers = st.integers(-6, 6).map(lambda exponent: 2.0**exponent)
    changed = rescaled(model, junctions, drawn(data, junctions, powers))
    inputs = inputs_for(model)
    expected, found = (run(model_bytes(one), inputs) for one in (model, changed))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_answer_the_same(name: str) -> None:
    model = cleaned(name)
    junctions = find_junctions(model)
    changed = rescaled(model, junctions, factors_for(junctions))
    onnx.checker.check_model(ir.to_proto(changed), full_check=True)
    inputs = ZOO[name].inputs()
    expected, found = (run(model_bytes(one), inputs) for one in (model, changed))
    assert relative_difference(expected, found) < EQUAL
