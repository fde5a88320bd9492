"""What a choice of layers costs in bytes and in bits."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import feature_net, features, model_of, normal, samples_for
from test_partial import Judge, Memory

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.objective import bits_price, size_price
from jettison.compress.quantization.partial import QuantizePartial
from jettison.core.targets import parse_target

WIDTH = 32


def two_layers():
    """A small layer whose products are as many as those of any other, and a large one."""
    net, x = feature_net(WIDTH)
    hidden = net.op("Relu", net.gemm(x, (WIDTH, 4 * WIDTH)))
    net.output(net.gemm(hidden, (4 * WIDTH, 8), to="y"), ["batch", 8])
    return model_of(net)


def names_of(model):
    return [layer.name for layer in find_layers(model.graph)]


def test_size_is_a_byte_a_weight_and_a_scale_a_channel_in_integers():
    model = two_layers()
    price, (first, _) = size_price(model.graph, find_layers(model.graph)), names_of(model)
    large, small, biases = WIDTH * 4 * WIDTH, 4 * WIDTH * 8, 4 * (4 * WIDTH + 8)
    assert price(frozenset()) == 4 * (large + small) + biases
    assert price(frozenset({first})) == large + 4 * 4 * WIDTH + 4 * small + biases


def sharing(*, looked_up=False):
    """Two products that share their weight, which a Gather may read as well."""
    net, x = feature_net(WIDTH)
    shared = net.const(net.he((WIDTH, WIDTH), WIDTH), "shared")
    y = net.op("MatMul", net.op("Relu", net.op("MatMul", x, shared)), shared)
    if looked_up:
        y = net.op("Add", y, net.op("Gather", shared, net.op("ArgMax", x, axis=1, keepdims=0), axis=0))
    net.named("Relu", y, to="y")
    net.output("y", ["batch", WIDTH])
    return model_of(net)


INTEGERS, FLOATS = WIDTH * WIDTH + 4 * WIDTH, 4 * WIDTH * WIDTH


def test_weight_that_a_float_layer_reads_too_stays_beside_its_integers():
    model = sharing()
    price, names = size_price(model.graph, find_layers(model.graph)), names_of(model)
    assert price(frozenset()) == FLOATS
    assert price(frozenset(names[:1])) == FLOATS + INTEGERS
    assert price(frozenset(names)) == INTEGERS


def test_weight_of_a_layer_that_is_kept_in_float_is_not_given_away():
    model = sharing()
    first, second = find_layers(model.graph)
    price = size_price(model.graph, [first])
    assert price(frozenset({first.name})) == FLOATS + INTEGERS
    assert price(frozenset()) == FLOATS
    assert second.weight is first.weight


def test_weight_that_another_operator_reads_is_not_given_away():
    model = sharing(looked_up=True)
    names = frozenset(names_of(model))
    assert size_price(model.graph, find_layers(model.graph))(names) == FLOATS + INTEGERS


def test_a_kept_reader_makes_the_size_objective_say_what_the_file_takes():
    model = sharing()
    piece = Workpiece(model, parse_target("cpu"), measure=Judge(10**6), tolerance=0.01)
    step = QuantizePartial(objective="size", keep_float=(names_of(model)[1],), ranges="max", repair="none")
    result = step(piece, samples_for(model, features(WIDTH, 48)))
    assert (
        result.notes[-2] == f"size: {FLOATS:.4g} bytes of {FLOATS:.4g} in float (as the weights are stored)"
    )
    assert len(result.warnings) == 1


def test_bits_weigh_each_node_by_its_products_and_count_those_that_stay_in_float():
    price = bits_price({"a": 300, "b": 100, "product of activations": 100})
    assert price(frozenset()) == 32
    assert price(frozenset({"a"})) == (3 * 8 + 2 * 32) / 5
    assert price(frozenset({"a", "b"})) == (4 * 8 + 32) / 5


def three_dimensional():
    """A layer that integers may carry, and one whose weight has three dimensions, which they may not."""
    net, x = feature_net(WIDTH)
    hidden = net.op("Relu", net.gemm(x, (WIDTH, WIDTH)))
    wide = net.op("MatMul", hidden, net.const(normal(1, WIDTH, 4 * WIDTH)))
    net.named("ReduceSum", wide, net.const(np.array([0], np.int64)), to="y", keepdims=0)
    net.output("y", ["batch", 4 * WIDTH])
    return model_of(net)


def price_note(objective, target="cpu"):
    model = three_dimensional()
    piece = Workpiece(model, parse_target(target), measure=Judge(10**6), tolerance=0.01)
    step = QuantizePartial(objective=objective, ranges="max", repair="none")
    return step(piece, samples_for(model, features(WIDTH, 48))).notes[-2]


def test_weights_that_stay_in_float_in_any_case_are_part_of_every_objective():
    """One product of five, and one weight of five, can be in integers."""
    assert price_note("bits").startswith("bits: 27.2 bits of 32 in float")
    small, large, rest = WIDTH * WIDTH, 4 * 4 * WIDTH * WIDTH, 4 * WIDTH + 8
    assert price_note("size").startswith(
        f"size: {small + 4 * WIDTH + large + rest:.4g} bytes of {4 * small + large + rest:.4g} in float"
    )
    note = price_note("latency", target="sm89")
    speedup = float(note.removeprefix("predicted speed-up ").split()[0])
    assert speedup < 1.2, f"four fifths of the work stay in float: {note}"


@pytest.mark.parametrize(("objective", "unit"), [("size", "bytes"), ("bits", "bits")])
def test_search_by_another_objective_needs_no_clock_and_says_what_it_made_small(objective, unit):
    model = two_layers()
    memory = Memory()
    piece = Workpiece(model, parse_target("cpu"), measure=Judge(10**6), remember=memory, tolerance=0.01)
    result = QuantizePartial(objective=objective)(piece, samples_for(model, features(WIDTH, 48)))
    assert all(layer.quantized for layer in result.layers)
    assert not memory.names("costs")
    assert any(note.startswith(f"{objective}: ") and f" {unit} of " in note for note in result.notes)
