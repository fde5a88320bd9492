"""Equalization: factors by the formula, the same answers in float, and less noise in integers."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    calibrated,
    conv,
    feature_net,
    image,
    model_of,
    normal,
    run,
    samples_for,
    two_convolutions,
)
from zoo_cases import zoo_case

from jettison.compress.quantization.equalize import (
    LARGEST_FACTOR,
    channel_maxima,
    equalized,
    factors_of,
)
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.static import quantize_static
from jettison.core.errors import SamplesError
from jettison.core.samples import Batch, checked
from jettison.core.tensors import Arrays
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.junction import find_junctions
from jettison.graph.model import input_specs
from jettison.graph.rescale import rescaled
from jettison.graph.save import model_bytes
from zoo.builder import image_net
from zoo.session import relative_difference
from zoo.session import run as run_exactly
from zoo.table import ZOO

EQUAL = 1e-4
"""Each factor is rounded twice, to 1e-7; sums of a few hundred products of both signs cancel some digits."""
GAIN_DB = 6.0
"""One bit."""
NEAR_DB = 2.0
"""What may be left: weights count relative to their output channel, which the factors have changed too."""


@functools.cache
def uneven() -> ir.Model:
    """Three convolutions; channels of `first` differ by a factor of 30, and two of them are dead.

    Channel 3 is never above 0, and nothing reads channel 5.
    """
    net, x = image_net("uneven", 16)
    sizes = np.geomspace(0.2, 6, 16)
    weight = net.he((16, 16, 3, 3), 144) * sizes[:, None, None, None]
    weight[3] = 0
    bias = np.where(np.arange(16) == 3, -1.0, 0.0)
    inputs = [x, net.const(weight, "weight"), net.const(bias, "bias")]
    x = net.named("Relu", net.op("Conv", *inputs, pads=[1, 1, 1, 1]), to="first")
    weight = net.he((16, 16, 1, 1), 16)
    weight[:, 5] = 0
    x = net.named("Relu", net.op("Conv", x, net.const(weight, "weight")), to="second")
    conv(net, x, "end")
    net.output("end", ["batch", 16, 16, 16])
    return model_of(net)


def maxima_of(model: ir.Model, arrays: Arrays) -> dict[str, np.ndarray]:
    return channel_maxima(model, samples_for(model, arrays), threads=1)


def watched(model: ir.Model, *names: str) -> ir.Model:
    """A copy that has these values as outputs too."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in names)
    return copy


def gemms(first: np.ndarray, *seconds: np.ndarray) -> ir.Model:
    """A product without a bias, and products that read it; weights as Gemm stores them."""
    net, x = feature_net(first.shape[0])
    net.named("Gemm", x, net.const(first), to="act")
    ends = [net.op("Gemm", "act", net.const(second)) for second in seconds]
    net.named("Sum", *ends, to="end")
    net.output("end", ["batch", seconds[0].shape[1]])
    return model_of(net)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_factors_follow_the_formula_up_to_a_common_one(alpha: float) -> None:
    activation, weight = np.abs(normal(20, seed=1)) + 0.1, np.abs(normal(20, seed=2)) + 0.1
    found = factors_of(activation, weight, alpha)
    expected = activation**alpha / weight ** (1 - alpha)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-5)
    assert np.log(found).mean() == pytest.approx(0, abs=1e-6)


def test_half_of_the_spread_moves_as_cross_layer_equalization_has_it() -> None:
    """Ranges r1 / s and r2 s are then both sqrt(r1 r2), up to a common factor."""
    activation, weight = np.float32([1, 4, 9]), np.float32([2, 8, 0.5])
    factors = factors_of(activation, weight, 0.5)
    ratios = (activation / factors) / (weight * factors)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_channels_that_are_dead_on_either_side_keep_the_factor_1() -> None:
    activation, weight = np.float32([0, 5, 2, 3]), np.float32([1, 0, 0.5, 2])
    factors = factors_of(activation, weight, 0.7)
    assert factors[:2].tolist() == [1, 1]
    assert (factors[2:] != 1).all()
    assert factors_of(np.zeros(3, np.float32), np.ones(3, np.float32), 0.5).tolist() == [1, 1, 1]


def test_factors_stay_within_a_hundred_of_1() -> None:
    factors = factors_of(np.float32([1e-12, 1, 1e12]), np.ones(3, np.float32), 1.0)
    np.testing.assert_allclose(factors, [1 / LARGEST_FACTOR, 1, LARGEST_FACTOR], rtol=1e-6)


def test_maxima_are_those_of_the_values_that_layers_read() -> None:
    model, arrays = uneven(), image()
    seen = run(watched(model, "first", "second"), arrays)
    found = maxima_of(model, arrays)
    assert list(found) == ["first", "second"]
    for name, maxima in found.items():
        np.testing.assert_allclose(maxima, np.abs(seen[name]).max(axis=(0, 2, 3)), rtol=1e-6)
    assert found["first"][3] == 0


def test_a_junction_of_several_values_has_the_largest_of_all() -> None:
    """Values of a residual trunk; a later one is not always the larger."""
    net, x = image_net("trunk", 16)
    x = net.named("Relu", conv(net, x, "a"), to="low")
    branch = net.op("Neg", net.op("Relu", conv(net, x, "b")))
    conv(net, net.named("Relu", net.op("Add", x, branch), to="high"), "end")
    net.output("end", ["batch", 16, 16, 16])
    model = model_of(net)
    (maxima,) = maxima_of(model, image()).values()
    low = run(watched(model, "low"), image())["low"]
    np.testing.assert_allclose(maxima, low.max(axis=(0, 2, 3)), rtol=1e-6)


@settings(max_examples=15)
@given(order=st.permutations(range(16)), cuts=st.lists(st.integers(1, 15), max_size=5))
def test_maxima_are_the_same_for_any_split_and_order(order: list[int], cuts: list[int]) -> None:
    model, pictures = uneven(), image()["image"]
    shards = [shard for shard in np.split(pictures[order], sorted(cuts)) if len(shard)]
    samples = checked(
        lambda: iter([Batch({"image": shard}) for shard in shards]), source="parts", specs=input_specs(model)
    )
    found, whole = channel_maxima(model, samples, threads=1), maxima_of(model, image())
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in whole.items()
    }


def test_progress_counts_the_samples() -> None:
    model, seen = uneven(), []
    channel_maxima(
        model, samples_for(model, image(count=3)), threads=1, progress=lambda *done: seen.append(done)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("weights", "what"), [((1e38, 0.0), "infinite"), ((1e38, 1e38), "NaN")])
def test_values_that_overflow_are_named(weights: tuple[float, float], what: str) -> None:
    """At one pixel of one channel; a maximum passes over NaN, so that this shows in a sum."""
    net, x = image_net("overflow", 2)
    x = net.named("Conv", x, net.const(np.float32(weights).reshape(1, 2, 1, 1).repeat(16, 0)), to="act")
    conv(net, x, "end")
    net.output("end", ["batch", 16, 16, 16])
    model, arrays = model_of(net), {"image": np.zeros((2, 2, 16, 16), np.float32)}
    arrays["image"][1, :, 5, 7] = 1e10, -1e10
    seen = float(run(watched(model, "act"), arrays)["act"][1, 0, 5, 7])
    assert np.isnan(seen) == (what == "NaN")
    with pytest.raises(SamplesError, match=r"value 'act' became NaN or infinite.*overflows by itself"):
        maxima_of(model, arrays)


def test_weights_count_relative_to_their_output_channel() -> None:
    """Activations of 1, 2 and 4; the columns of what reads them have 4 and 100 at most."""
    first = np.float32([[1, 2, 4]])
    second = np.float32([[1, 50], [2, 100], [4, 50]])
    model = gemms(first, second)
    arrays = {"features": np.ones((1, 1), np.float32)}
    relative = np.float32([0.5, 1, 1])
    for alpha in (0.0, 0.5, 1.0):
        changed = equalized(model, maxima_of(model, arrays), alpha=alpha).model
        weight = next(iter(changed.graph)).inputs[1].const_value.numpy()
        expected = first / factors_of(first[0], relative, alpha)
        np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_of_several_readers_the_largest_weight_of_a_channel_counts() -> None:
    first = np.float32([[1, 1, 1]])
    model = gemms(first, np.float32([[1], [0.1], [0.1]]), np.float32([[0.1], [1], [0.2]]))
    maxima = maxima_of(model, {"features": np.ones((1, 1), np.float32)})
    changed = equalized(model, maxima, alpha=0.0).model
    weight = next(iter(changed.graph)).inputs[1].const_value.numpy()
    expected = first / factors_of(first[0], np.float32([1, 1, 0.2]), 0.0)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_the_weights_of_a_layer_that_stays_in_float_do_not_count() -> None:
    """A bias that is computed at run time keeps a Gemm in float."""
    net, x = feature_net(1)
    first, second, large = (
        np.float32([[1, 2, 4]]),
        np.float32([[1], [0.5], [0.5]]),
        np.float32([[1], [9], [1]]),
    )
    act = net.op("Gemm", x, net.const(first))
    net.named(
        "Add", net.op("Gemm", act, net.const(second)), net.op("Gemm", act, net.const(large), x), to="end"
    )
    net.output("end", ["batch", 1])
    model = model_of(net)
    changed = equalized(model, maxima_of(model, {"features": np.ones((1, 1), np.float32)}), alpha=0.5).model
    weight = next(iter(changed.graph)).inputs[1].const_value.numpy()
    np.testing.assert_allclose(weight, first / factors_of(first[0], second[:, 0], 0.5), rtol=1e-6)


def test_all_of_the_spread_moved_leaves_channels_of_one_size() -> None:
    model = uneven()
    changed = equalized(model, maxima_of(model, image()), alpha=1.0)
    assert changed.junctions == ("first", "second")
    spread = maxima_of(changed.model, image())["first"]
    live = np.delete(spread, [3, 5])
    np.testing.assert_allclose(live, live[0], rtol=1e-5)


def test_channels_that_are_dead_stay_as_they_are() -> None:
    model = uneven()
    changed = equalized(model, maxima_of(model, image())).model
    before, after = (next(iter(one.graph)).inputs[1].const_value.numpy() for one in (model, changed))
    same = [channel for channel in range(16) if np.array_equal(before[channel], after[channel])]
    assert same == [3, 5]


def test_a_junction_without_maxima_stays_as_it_is() -> None:
    model = uneven()
    maxima = maxima_of(model, image())
    changed = equalized(model, {"second": maxima["second"]})
    assert changed.junctions == ("second",)
    first = next(iter(changed.model.graph)).inputs[1]
    assert first.name == next(iter(model.graph)).inputs[1].name


def test_a_bounded_clip_between_all_layers_leaves_nothing_to_do() -> None:
    model = two_convolutions("Clip", 0.0, 6.0)
    assert maxima_of(model, image()) == {}
    changed = equalized(model, {})
    assert changed.junctions == ()
    assert model_bytes(changed.model) == model_bytes(model)


def test_a_layer_that_stays_in_float_needs_no_equal_channels() -> None:
    """A grouped transposed convolution has no single channel axis, so that no integers carry it."""
    net, x = image_net("transposed", 16)
    x = net.op("Relu", conv(net, x, "a"))
    weight = net.const(net.he((16, 8, 1, 1), 16), "weight")
    net.named("ConvTranspose", x, weight, to="end", group=2)
    net.output("end", ["batch", 16, 16, 16])
    assert maxima_of(model_of(net), image()) == {}


def integers_db(model: ir.Model, dialect: Dialect) -> float:
    """SQNR in exact arithmetic, on samples that the calibration did not see."""
    placement = place(model.graph, dialect, frozenset())
    result = quantize_static(model, calibrated(model, image(8)), placement)
    unseen = image(8, seed=1)
    figure = sqnr_db(run(model, unseen), run(result, unseen, optimize=False))
    assert figure is not None
    return figure


@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
def test_channels_that_were_made_uneven_lose_nothing_any_more(dialect: Dialect) -> None:
    """Factors from 1/8 to 8 cost a chain more than one bit of its seven; equalization takes them back."""
    model = zoo_case("conv_relu_chain").model
    even = integers_db(model, dialect)
    junctions = find_junctions(model)
    rng = np.random.default_rng(0)
    factors = {j.name: np.exp2(rng.uniform(-3, 3, j.channels)).astype(np.float32) for j in junctions}
    spoilt = rescaled(model, junctions, factors)
    mended = equalized(spoilt, maxima_of(spoilt, image(8))).model
    figures = [integers_db(one, dialect) for one in (spoilt, mended)]
    assert figures[0] < even - GAIN_DB
    assert figures[1] > even - NEAR_DB


@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
@pytest.mark.parametrize("name", ZOO)
def test_placements_of_the_model_hold_for_the_copy(name: str, dialect: Dialect) -> None:
    model = zoo_case(name).model
    changed = equalized(model, channel_maxima(model, zoo_case(name).samples, threads=1)).model
    assert place(changed.graph, dialect, frozenset()) == place(model.graph, dialect, frozenset())


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_answer_the_same(name: str) -> None:
    case = zoo_case(name)
    changed = equalized(case.model, channel_maxima(case.model, case.samples, threads=1)).model
    onnx.checker.check_model(ir.to_proto(changed), full_check=True)
    assert relative_difference(case.outputs, run_exactly(model_bytes(changed), case.inputs)) < EQUAL
