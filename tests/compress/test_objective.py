"""What a choice of layers costs in bytes and in bits."""

from __future__ import annotations

import pytest
from small_models import feature_net, features, model_of, samples_for
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
    price, (first, _) = size_price(find_layers(model.graph)), names_of(model)
    large, small = WIDTH * 4 * WIDTH, 4 * WIDTH * 8
    assert price(frozenset()) == 4 * (large + small)
    assert price(frozenset({first})) == large + 4 * 4 * WIDTH + 4 * small


def test_weight_that_a_float_layer_reads_too_stays_beside_its_integers():
    net, x = feature_net(WIDTH)
    shared = net.const(net.he((WIDTH, WIDTH), WIDTH), "shared")
    hidden = net.op("Relu", net.op("MatMul", x, shared))
    net.output(net.named("MatMul", hidden, shared, to="y"), ["batch", WIDTH])
    model = model_of(net)
    price, names = size_price(find_layers(model.graph)), names_of(model)
    integers, floats = WIDTH * WIDTH + 4 * WIDTH, 4 * WIDTH * WIDTH
    assert price(frozenset()) == floats
    assert price(frozenset(names[:1])) == floats + integers
    assert price(frozenset(names)) == integers


def test_bits_weigh_each_layer_by_its_products():
    price = bits_price({"a": 300, "b": 100})
    assert price(frozenset()) == 32
    assert price(frozenset({"a"})) == (3 * 8 + 32) / 4
    assert price(frozenset({"a", "b"})) == 8


@pytest.mark.parametrize(("objective", "unit"), [("size", "bytes"), ("bits", "bits")])
def test_search_by_another_objective_needs_no_clock_and_says_what_it_made_small(objective, unit):
    model = two_layers()
    memory = Memory()
    memory.pop("costs")
    piece = Workpiece(model, parse_target("cpu"), measure=Judge(10**6), remember=memory, tolerance=0.01)
    result = QuantizePartial(objective=objective)(piece, samples_for(model, features(WIDTH, 48)))
    assert all(layer.quantized for layer in result.layers)
    assert "costs" not in memory
    assert any(note.startswith(f"{objective}: ") and f" {unit} of " in note for note in result.notes)
