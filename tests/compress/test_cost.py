"""Costs of layers and borders: names of optimized graphs, elements that cross, the fit."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.compress.quantization.cost import (
    CostModel,
    LayerTime,
    _nonnegative_fit,
    border_elements,
    match_layers,
)
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import LayerDecision, Placement, Site
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.roofline import GENERIC, PEAKS, peaks_of
from jettison.engines.profile import OperatorTime
from zoo.session import cleaned


def placement(quantized, *sites):
    layers = tuple(
        LayerDecision(node=name, kind="Conv", quantized=name in quantized, reason="") for name in ("a", "b")
    )
    return Placement("cpu", layers, sites)


COSTS = CostModel({"a": LayerTime(10, 6), "b": LayerTime(20, 12)}, 5.0, 0.1, 0.2, {"x": 100, "y": 10})


def test_time_is_base_and_layers_and_borders():
    entering = Site("x", (), enters=True, leaves=False)
    leaving = Site("y", (), enters=False, leaves=True)
    assert COSTS.time_us(placement(set())) == 35
    assert COSTS.time_us(placement({"a"}, entering)) == pytest.approx(5 + 6 + 20 + 10)
    assert COSTS.time_us(placement({"a", "b"}, entering, leaving)) == pytest.approx(5 + 18 + 10 + 2)


def test_borders_are_where_floats_become_integers_and_back():
    model = cleaned("conv_relu_chain")
    names = frozenset(layer.name for layer in find_layers(model.graph))
    elements = {site.value: 1 for site in place(model.graph, "cpu").sites}
    whole = border_elements(place(model.graph, "cpu"), elements)
    first = sorted(names)[0]
    parted = border_elements(place(model.graph, "cpu", names - {first}), elements)
    assert whole[0] == 1, "only the input is quantized when all layers are"
    assert parted[0] + parted[1] >= 1


@pytest.mark.parametrize(
    "name",
    ["{node}", "{node}_quant", "{node}_token_12", "{output}_nchwc", "{activation}_nchwc", "{activation}"],
)
def test_layer_is_found_under_the_names_that_fusions_give(name):
    layer = next(iter(find_layers(cleaned("conv_relu_chain").graph)))
    relu = next(use.node for use in layer.node.outputs[0].uses())
    full = name.format(node=layer.name, output=layer.node.outputs[0].name, activation=relu.outputs[0].name)
    assert match_layers([layer], [OperatorTime(full, "Conv", 7.0)]) == {layer.name: 7.0}


def test_layer_that_no_name_tells_takes_what_is_left():
    layers = list(find_layers(cleaned("conv_relu_chain").graph))[:2]
    times = [OperatorTime("strange", "Conv", 3.0), OperatorTime(f"{layers[1].name}_quant", "Conv", 4.0)]
    assert match_layers(layers, times) == {layers[0].name: 3.0, layers[1].name: 4.0}


def test_fit_finds_both_constants():
    rows = np.array([[100.0, 0], [0, 50], [100, 50], [30, 70]])
    assert _nonnegative_fit(rows, rows @ np.array([0.02, 0.05])) == pytest.approx((0.02, 0.05))


def test_fit_gives_no_negative_constant():
    rows = np.array([[100.0, 10], [50, 40], [80, 20]])
    found = _nonnegative_fit(rows, rows @ np.array([0.05, -0.02]))
    assert min(found) == 0.0
    assert max(found) > 0.0


def test_roofline_is_the_larger_of_arithmetic_and_traffic():
    peaks = PEAKS[89]
    assert peaks.time_us(10**9, 0, integer=False) == pytest.approx(2e9 / (121 * 1e6))
    assert peaks.time_us(10**9, 0, integer=True) == pytest.approx(2e9 / (242 * 1e6))
    assert peaks.time_us(1, 3e8, integer=True) == pytest.approx(1000.0)


def test_capability_without_published_rates_is_stood_in_for():
    assert peaks_of(121) is GENERIC
    assert peaks_of(None) is GENERIC
