"""Costs of layers and borders: names of optimized graphs, elements that cross, the fit."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.compress.passes import Workpiece
from jettison.compress.quantization import cost
from jettison.compress.quantization.cost import (
    RANDOM_SUBSETS,
    CostModel,
    LayerTime,
    _nonnegative_fit,
    border_elements,
    elements_of,
    fit_cost,
    match_layers,
)
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.material import gather
from jettison.compress.quantization.placement import LayerDecision, Placement, Site
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.roofline import GENERIC, PEAKS, peaks_of
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import shapes_of
from jettison.engines.profile import OperatorTime
from jettison.graph.macs import macs_by_node
from jettison.graph.model import input_specs
from zoo.session import cleaned
from zoo.table import ZOO


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


class Clockwork:
    """A workshop whose profiles follow a law: 10 us a layer in float, 4 in integers, 7 for the rest."""

    def __init__(self, model, *, quantize_us, dequantize_us):
        self.model, self.seed = model, 0
        self.per_element = quantize_us, dequantize_us
        self.names = [layer.name for layer in find_layers(model.graph)]
        self.shapes = shapes_of(model)

    def place(self, quantized):
        return place(self.model.graph, "cpu", frozenset(self.names) - quantized)

    def quantize(self, placement):
        return placement

    def profile(self, found):
        quantized = found.quantized if isinstance(found, Placement) else frozenset()
        times = [OperatorTime(name, "Conv", 4.0 if name in quantized else 10.0) for name in self.names]
        border = 0.0
        if isinstance(found, Placement):
            counts = border_elements(found, elements_of(self.shapes))
            border = sum(count * each for count, each in zip(counts, self.per_element, strict=True))
        return [*times, OperatorTime("others", "Relu", 7.0 + border)]


@pytest.mark.parametrize(("quantize_us", "dequantize_us"), [(0.01, 0.02), (0.03, 0.0), (0.0, 0.0)])
def test_a_cost_model_is_fitted_to_what_was_profiled(quantize_us, dequantize_us):
    model = cleaned("residual_add")
    workshop = Clockwork(model, quantize_us=quantize_us, dequantize_us=dequantize_us)
    steps = []
    found = fit_cost(model, workshop, progress=lambda done, total: steps.append((done, total)))
    assert found.layers == {name: LayerTime(10.0, 4.0) for name in workshop.names}
    assert found.base_us == pytest.approx(7.0)
    assert found.quantize_us == pytest.approx(quantize_us, abs=1e-9)
    assert found.dequantize_us == pytest.approx(dequantize_us, abs=1e-9)
    assert steps[-1] == (RANDOM_SUBSETS, RANDOM_SUBSETS)
    some = workshop.place(frozenset(workshop.names[:2]))
    spent = sum(time.time_us for time in workshop.profile(some))
    assert found.time_us(some) == pytest.approx(spent), "it predicts a choice that was never profiled"


def test_a_search_on_this_machine_counts_borders_as_its_profiles_tell(monkeypatch):
    """Profiles by a law: 10 us a layer in float, 4 in integers, 50 us for each value that is quantized."""
    model = cleaned("residual_add")
    names = [layer.name for layer in find_layers(model.graph)]

    def profile(found, inputs, *, threads):
        nodes = {node.name: node for node in found.graph}
        pairs = sum(node.op_type == "QuantizeLinear" for node in found.graph)
        weights = {name: nodes[name].inputs[1].producer() for name in names}
        times = [OperatorTime(name, "Conv", 10.0 if weights[name] is None else 4.0) for name in names]
        return [*times, OperatorTime("others", "Relu", 50.0 * pairs)]

    monkeypatch.setattr(cost, "operator_times", profile)
    samples = samples_of(ZOO["residual_add"].inputs(4, 0), specs=input_specs(model))
    piece = Workpiece(model, parse_target("cpu"), threads=1)
    material = gather(piece, samples, "max", frozenset(), effort="none")
    one = frozenset(names[:1])
    alone = 10.0 * (len(names) - 1) + 4.0
    assert material.cost(frozenset()) == pytest.approx(10.0 * len(names))
    assert material.cost(one) > alone + 20, "its input is quantized, and its output is read in float"


def test_an_estimate_is_the_roofline_of_layers_borders_and_of_products_that_stay_in_float():
    model = cleaned("residual_add")
    names = [layer.name for layer in find_layers(model.graph)]
    kept, piece = names[1], Workpiece(model, parse_target("sm89"), threads=1)
    samples = samples_of(ZOO["residual_add"].inputs(4, 0), specs=input_specs(model))
    material = gather(piece, samples, "max", frozenset({kept}), effort="none")
    macs, elements, peaks = macs_by_node(model, shapes_of(model)), elements_of(shapes_of(model)), PEAKS[89]
    nodes = {node.name: node for node in model.graph}

    def expected(layers):
        total = 0.0
        for name in names:
            touched = sum(elements.get(v.name, 0) for v in (*nodes[name].inputs, *nodes[name].outputs) if v)
            inside = name in layers
            total += peaks.time_us(macs[name], (1 if inside else 2) * touched, integer=inside)
        into, out_of = border_elements(material.place(layers), elements)
        return total + (into + out_of) * 3.0 / (peaks.memory_gbs * 1e3)

    for layers in (frozenset(), frozenset(names) - {kept}, frozenset(names[:1]), frozenset(names[2:])):
        assert material.cost(layers) == pytest.approx(expected(layers))


def test_roofline_is_the_larger_of_arithmetic_and_traffic():
    peaks = PEAKS[89]
    assert peaks.time_us(10**9, 0, integer=False) == pytest.approx(2e9 / (121 * 1e6))
    assert peaks.time_us(10**9, 0, integer=True) == pytest.approx(2e9 / (242 * 1e6))
    assert peaks.time_us(1, 3e8, integer=True) == pytest.approx(1000.0)


def test_capability_without_published_rates_is_stood_in_for():
    assert peaks_of(121) is GENERIC
    assert peaks_of(None) is GENERIC
