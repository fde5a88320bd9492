"""Laws of pruning at its edges: equal weights, weights that others read, layers that share one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from small_models import piece_of, samples_for

from jettison.compress.pruning.choice import choose_layers
from jettison.compress.pruning.finished import finished
from jettison.compress.pruning.masks import smallest
from jettison.compress.pruning.removed import PrunedLayer
from jettison.compress.pruning.two_to_four import PruneTwoToFour
from jettison.graph.clean import clean

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def graph_of(nodes, inputs, outputs, weights) -> ir.Model:
    infos = [
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in values]
        for values in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "edges", *infos, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    return ir.from_proto(made)


def test_of_equal_scores_the_earlier_ones_are_removed() -> None:
    first, second = smallest([np.ones((2, 2), np.float32), np.ones(2, np.float32)], 0.5)
    np.testing.assert_array_equal(first, [[True, True], [True, False]])
    np.testing.assert_array_equal(second, [False, False])


def test_a_weight_that_is_an_output_stays_whole() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    model = graph_of(nodes, [("x", ["n", 8])], [("y", ["n", 8]), ("w", [8, 8])], {"w": floats(8, 8)})
    assert choose_layers(model.graph, ()).dense == {"layer": "its weight is an output of the graph"}


def test_a_weight_that_its_own_layer_reads_as_a_bias_too_stays_whole() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "w"], ["y"], name="layer")]
    model = graph_of(nodes, [("x", [8, 8])], [("y", [8, 8])], {"w": floats(8, 8)})
    assert choose_layers(model.graph, ()).dense == {"layer": "Gemm 'layer' reads its weight too, and whole"}


def pruned_weight(model: ir.Model, arrays, **settings) -> np.ndarray:
    piece, step = piece_of(model), PruneTwoToFour(**settings)
    assert step.check(piece) is None
    found = step(piece, samples_for(model, arrays)).model
    return found.graph.initializers["w"].const_value.numpy()


def test_layers_that_share_a_weight_count_by_what_they_really_read() -> None:
    """The second reads a hundred times more in the channels 2 and 3, but little of its own range there."""
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["y"], name="first"),
        helper.make_node("MatMul", ["b", "w"], ["z"], name="second"),
    ]
    weight = np.where(floats(8, 6) > 0, np.float32(1), np.float32(-1))
    inputs, outputs = ([(name, ["n", size]) for name in names] for names, size in (("ab", 8), ("yz", 6)))
    model = clean(graph_of(nodes, inputs, outputs, {"w": weight}))
    first, second = floats(64, 8), floats(64, 8)
    first *= np.array([3, 3, 0.1, 0.1, 1, 1, 1, 1], np.float32)
    second *= 100 * np.array([0.01, 0.01, 0.3, 0.3, 3, 3, 3, 3], np.float32)
    found = pruned_weight(model, {"a": first, "b": second})
    np.testing.assert_array_equal(found[:4] != 0, np.repeat([[False], [False], [True], [True]], 6, axis=1))


def test_where_one_of_two_layers_was_not_observed_their_weight_goes_by_magnitude() -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["y"], name="first"),
        helper.make_node("Gemm", ["b", "w", "c"], ["z"], name="second"),
    ]
    weights = {"w": floats(8, 6)}
    inputs, outputs = [("a", ["n", 8]), ("b", ["n", 8]), ("c", ["n", 6])], [("y", ["n", 6]), ("z", ["n", 6])]
    model = clean(graph_of(nodes, inputs, outputs, weights))
    arrays = {"a": floats(32, 8), "b": floats(32, 8), "c": floats(32, 6)}
    arrays["a"][:, 1] *= 30
    found = pruned_weight(model, arrays)
    np.testing.assert_array_equal(found, pruned_weight(model, arrays, method="magnitude"))


@pytest.mark.parametrize(("second", "held"), [(0.0, True), (1.0, False)])
def test_a_layer_of_which_half_the_groups_are_valid_has_lost_2_to_4(second, held) -> None:
    weight = np.ones((8, 3), np.float32)
    weight[:2] = 0
    weight[4:6] = second
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    model = graph_of(nodes, [("x", ["n", 8])], [("y", ["n", 3])], {"w": weight})
    layer = PrunedLayer(
        node="layer", kind="MatMul", method="two-to-four", pruned=True, reason="", groups=6, valid_groups=6
    )
    (found,), notes = finished([layer], model)
    assert notes[0] == f"2:4 holds in {int(held)} of 1 layers of the finished model"
    assert ("2:4 was lost after pruning in layer" in notes) != held
    assert found.valid_groups == (6 if held else 3)
