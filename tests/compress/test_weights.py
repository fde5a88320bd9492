"""Weights as integers: bounded errors, and pairs that no 16-bit sum of a kernel can saturate on."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import normal

from jettison.compress.quantization.weights import (
    QuantizedWeight,
    channel_scales,
    kernel_order,
    quantize_weight,
)

SHAPES = {
    "Conv": (0, [(3, 4, 3, 3), (2, 3, 1, 1), (3, 5, 3, 2), (1, 1, 3, 3)]),
    "Conv 1-D": (0, [(3, 4, 5), (2, 3, 1)]),
    "Conv 3-D": (0, [(2, 3, 2, 2, 2)]),
    "grouped Conv": (0, [(6, 2, 3, 3)]),
    "MatMul": (1, [(7, 3), (8, 4), (1, 2)]),
    "Gemm transB": (0, [(3, 7), (4, 8)]),
}
ONE_SIGN = st.one_of(st.floats(0.5, 1.0, width=32), st.floats(-1.0, -0.5, width=32))
ELEMENTS = st.one_of(st.floats(-1, 1, width=32), st.just(1.0), ONE_SIGN, st.just(0.0))


def weights(kind: str) -> st.SearchStrategy[np.ndarray]:
    return st.sampled_from(SHAPES[kind][1]).flatmap(
        lambda shape: arrays(np.float32, shape, elements=ELEMENTS)
    )


def walk(values: np.ndarray, axis: int, channel: int) -> list[int]:
    """The channel's integers in the order of the kernel, by loops: input channels are innermost."""
    rows = np.take(values, channel, axis=axis)
    if values.ndim == 2:
        return [int(number) for number in rows]
    positions = itertools.product(*(range(size) for size in rows.shape[1:]))
    return [int(rows[(source, *position)]) for position in positions for source in range(rows.shape[0])]


def unsafe_pairs(found: QuantizedWeight) -> list[tuple[int, int]]:
    """Pairs (2i, 2i + 1) of any channel whose products with 255 do not fit 16 bits."""
    unsafe = []
    for channel in range(found.values.shape[found.axis]):
        row = walk(found.values, found.axis, channel)
        row += [0] * (len(row) % 2)
        for a, b in zip(row[0::2], row[1::2], strict=True):
            positive, negative = max(a, 0) + max(b, 0), min(a, 0) + min(b, 0)
            if positive > 128 or negative < -128:
                unsafe.append((a, b))
            assert positive * 255 <= 32767 or (a, b) in unsafe
            assert negative * 255 >= -32768 or (a, b) in unsafe
    return unsafe


@pytest.mark.parametrize("kind", SHAPES)
@given(data=st.data())
def test_no_pair_of_neighbours_can_saturate(kind: str, data: st.DataObject) -> None:
    found = quantize_weight(data.draw(weights(kind)), SHAPES[kind][0], pair_safe=True)
    assert unsafe_pairs(found) == []


@pytest.mark.parametrize("pair_safe", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
@given(data=st.data())
def test_integers_are_int8_and_the_error_is_bounded(kind: str, pair_safe: bool, data: st.DataObject) -> None:
    """Half a step at most for each weight; where pairs are mended, twice the step for the row as a whole."""
    axis, weight = SHAPES[kind][0], data.draw(weights(kind))
    found = quantize_weight(weight, axis, pair_safe=pair_safe)
    assert found.values.dtype == np.int8
    assert found.values.shape == weight.shape
    assert np.abs(found.values.astype(int)).max() <= 127
    assert found.scales.shape == (weight.shape[axis],)
    assert (found.scales > 0).all()
    error = np.moveaxis(found.dequantized() - weight, axis, 0).reshape(weight.shape[axis], -1)
    largest = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1)
    step = np.maximum(largest / 127, 1e-8)
    if pair_safe:
        assert (np.sqrt(np.mean(error**2, axis=1)) <= 1.001 * step).all()
    else:
        assert (np.abs(error) <= 0.501 * step[:, None]).all()


@pytest.mark.parametrize("kind", SHAPES)
@given(data=st.data())
def test_weights_that_are_safe_already_are_as_if_nothing_had_been_asked(
    kind: str, data: st.DataObject
) -> None:
    axis, weight = SHAPES[kind][0], data.draw(weights(kind))
    plain, safe = (quantize_weight(weight, axis, pair_safe=flag) for flag in (False, True))
    touched = {
        channel
        for channel in range(weight.shape[axis])
        if unsafe_pairs(
            QuantizedWeight(np.take(plain.values, [channel], axis), plain.scales[[channel]], axis)
        )
    }
    for channel in set(range(weight.shape[axis])) - touched:
        np.testing.assert_array_equal(
            np.take(plain.values, channel, axis), np.take(safe.values, channel, axis)
        )
        assert plain.scales[channel] == safe.scales[channel]
    assert (safe.unsafe_share > 0) == bool(touched)
    assert plain.unsafe_share == 0


@pytest.mark.parametrize("kind", SHAPES)
def test_every_integer_stands_where_its_weight_stood(kind: str) -> None:
    """Weights that are integers already, the largest 127, come back unmoved."""
    axis, shapes = SHAPES[kind]
    for shape in shapes:
        integers = np.random.default_rng(0).integers(-60, 61, shape)
        first = [0] * len(shape)
        for channel in range(shape[axis]):
            first[axis] = channel
            integers[tuple(first)] = 127
        found = quantize_weight((integers * np.float32(0.5)).astype(np.float32), axis, pair_safe=False)
        np.testing.assert_array_equal(found.values, integers)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_kernel_walks_positions_first_and_input_channels_inside(kind: str) -> None:
    axis, shapes = SHAPES[kind]
    for shape in shapes:
        numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        rows = kernel_order(numbers, axis)
        assert rows.tolist() == [walk(numbers, axis, channel) for channel in range(shape[axis])]


def test_a_dead_channel_has_a_scale_and_no_weights() -> None:
    weight = normal(4, 3, 3, 3)
    weight[2] = 0
    for pair_safe in (False, True):
        found = quantize_weight(weight, 0, pair_safe=pair_safe)
        assert found.scales[2] == np.float32(1e-8)
        assert not found.values[2].any()


def test_no_scale_is_below_the_least_one_asked_for() -> None:
    weight = normal(4, 3, 3, 3)
    least = np.array([0, 1.0, 0, 1e-9], np.float32)
    plain = quantize_weight(weight, 0, pair_safe=False)
    found = quantize_weight(weight, 0, pair_safe=False, least_scales=least)
    assert found.scales.tolist() == [plain.scales[0], 1.0, plain.scales[2], plain.scales[3]]


def test_scales_let_the_largest_weight_be_127() -> None:
    assert channel_scales(np.array([[0.5, -1.27], [0.0, 0.0]], np.float32)).tolist() == pytest.approx(
        [0.01, 1e-8]
    )
    assert channel_scales(np.zeros((2, 0), np.float32)).tolist() == pytest.approx([1e-8, 1e-8])


def test_mending_costs_less_than_seven_bits() -> None:
    """What `reduce_range` would do: half of the range for all weights, to save a few pairs."""
    weight = normal(64, 64, 3, 3)
    safe = quantize_weight(weight, 0, pair_safe=True)
    seven = channel_scales(kernel_order(weight, 0)).reshape(-1, 1, 1, 1) * (127 / 63)
    errors = safe.dequantized() - weight, np.rint(weight / seven) * seven - weight
    assert 0 < safe.unsafe_share < 0.12
    assert np.square(errors[0]).sum() < 0.5 * np.square(errors[1]).sum()


def test_only_channels_with_unsafe_pairs_pay() -> None:
    weight = np.array([[1.0, 1.0], [0.1, -0.1]], np.float32).reshape(2, 2, 1, 1)
    plain, safe = (quantize_weight(weight, 0, pair_safe=flag) for flag in (False, True))
    assert plain.values[0].ravel().tolist() == [127, 127]
    assert np.abs(safe.dequantized()[0] - 1.0).max() < 0.02
    assert unsafe_pairs(safe) == []
    np.testing.assert_array_equal(plain.values[1], safe.values[1])
