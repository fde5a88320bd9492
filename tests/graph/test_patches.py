"""Patches are what weights are multiplied with: for every geometry that ONNX can write, to the number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from jettison.engines.onnxruntime import runner_of
from jettison.graph.clean import clean
from jettison.graph.patches import Patches, Tap, patches_of, tap_of, tapped
from jettison.graph.qdq import Scale
from zoo.builder import Net

ALL = 10**6
ZERO_POINT = 7
TAP = Tap("x", 0.5, ZERO_POINT, is_signed=False)

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one axis": ((3, 8, 13), (4, 8, 5), {"strides": [2], "pads": [2, 1]}),
    "two axes": ((3, 8, 9, 10), (4, 8, 3, 2), {"pads": [0, 2, 1, 0]}),
    "three axes": ((2, 4, 5, 6, 7), (4, 4, 2, 3, 1), {"strides": [1, 2, 3], "pads": [1, 0, 2, 0, 1, 1]}),
    "strides": ((3, 8, 9, 10), (4, 8, 3, 3), {"strides": [2, 3]}),
    "strides beyond the kernel": ((3, 8, 9, 10), (4, 8, 1, 1), {"strides": [2, 2]}),
    "dilations": ((3, 8, 9, 10), (4, 8, 3, 3), {"dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "groups": ((3, 8, 9, 10), (6, 4, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ((3, 8, 9, 10), (8, 1, 3, 3), {"group": 8, "strides": [2, 2]}),
    "depthwise with a multiplier": ((3, 8, 9, 10), (16, 1, 3, 3), {"group": 8}),
    "same, upper": ((3, 8, 9, 10), (4, 8, 4, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same, lower": ((3, 8, 9, 10), (4, 8, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "valid": ((3, 8, 9, 10), (4, 8, 4, 4), {"auto_pad": "VALID"}),
}


def convolution(input_shape: tuple[int, ...], weight: np.ndarray, attributes: dict[str, Any]) -> ir.Model:
    net = Net("conv")
    net.input("x", list(input_shape))
    net.named("Conv", "x", net.const(weight, "weight"), to="y", **attributes)
    net.output("y", [None] * len(input_shape))
    return ir.from_proto(net.model())


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_rows_of_the_weight_times_patches_are_the_convolution(geometry: str) -> None:
    """The same sums of the same whole numbers, which float32 holds exactly."""
    input_shape, weight_shape, attributes = GEOMETRIES[geometry]
    weight = np.random.default_rng(1).integers(-9, 9, weight_shape).astype(np.float32)
    model = convolution(input_shape, weight, attributes)
    found = patches_of(model.graph[0], TAP)
    assert found is not None
    activation = integers(*input_shape)
    columns = found.columns(activation, most=ALL).astype(np.float32) - ZERO_POINT
    rows = np.moveaxis(weight, 1, -1).reshape(found.groups, weight_shape[0] // found.groups, -1)
    exact = {"x": activation.astype(np.float32) - ZERO_POINT}
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, exact)
    np.testing.assert_array_equal(
        np.matmul(rows, columns).reshape(weight_shape[0], -1),
        np.moveaxis(expected, 1, 0).reshape(weight_shape[0], -1),
    )


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_patches_of_a_product_are_its_rows(kind: str) -> None:
    net = Net(kind)
    net.input("x", [2, 7, 5] if kind == "MatMul" else [14, 5])
    net.named(kind, "x", net.const(np.ones((5, 4), np.float32)), to="y")
    net.output("y", [None] * (3 if kind == "MatMul" else 2))
    found = patches_of(ir.from_proto(net.model()).graph[0], TAP)
    assert found == Patches(TAP)
    activation = integers(2, 7, 5) if kind == "MatMul" else integers(14, 5)
    np.testing.assert_array_equal(found.columns(activation, most=ALL)[0], activation.reshape(-1, 5).T)
    np.testing.assert_array_equal(found.columns(activation[0, 0], most=ALL).ravel(), activation[0, 0].ravel())


def test_transposed_convolutions_have_no_patches() -> None:
    net = Net("transposed")
    net.input("x", [1, 4, 5, 5])
    net.named("ConvTranspose", "x", net.const(np.ones((4, 4, 2, 2), np.float32)), to="y")
    net.output("y", [None] * 4)
    assert patches_of(ir.from_proto(net.model()).graph[0], TAP) is None


def test_of_many_patches_some_are_taken_evenly_and_the_same_of_each_sample() -> None:
    found = Patches(TAP, (3, 3), (1, 1), (1, 1), (0, 0, 0, 0))
    activation = integers(4, 6, 12, 12)
    every = found.columns(activation, most=ALL).reshape(54, 4, 100)
    some = found.columns(activation, most=20).reshape(54, 4, -1)
    np.testing.assert_array_equal(some, every[:, :, ::5])
    rows = integers(4, 30, 6)
    taken = Patches(TAP).columns(rows, most=10)[0].T
    np.testing.assert_array_equal(taken.reshape(4, -1, 6), rows[:, ::3])


def test_columns_do_not_depend_on_how_samples_are_split_into_batches() -> None:
    for found, activation in (
        (Patches(TAP, (3, 3), (1, 2), (2, 1), (1, 1, 1, 1), groups=2), integers(5, 6, 12, 11)),
        (Patches(TAP), integers(5, 31, 6)),
    ):
        whole = found.columns(activation, most=7)
        parts = [found.columns(activation[part], most=7) for part in (slice(0, 2), slice(2, 3), slice(3, 5))]
        np.testing.assert_array_equal(whole, np.concatenate(parts, axis=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_taps_report_what_quantize_linear_makes_and_nothing_else(dtype: type) -> None:
    net = Net("tapped")
    net.input("x", ["batch", 6])
    net.named("Relu", "x", to="inside")
    net.named("MatMul", "inside", net.const(np.ones((6, 4), np.float32)), to="y")
    net.output("y", ["batch", 4])
    model = clean(ir.from_proto(net.model()))
    first, second = (
        tap_of("inside", Scale(np.array(scale, np.float32), np.array(zero, dtype)))
        for scale, zero in ((0.01, 3), (0.5, 0))
    )
    reporting = tapped(model, [first, second])
    assert [value.name for value in reporting.graph.outputs] == [first.output, second.output]
    assert sorted(node.op_type for node in reporting.graph) == ["QuantizeLinear", "QuantizeLinear", "Relu"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    array = np.random.default_rng(0).normal(0, 1, (3, 6)).astype(np.float32)
    found = runner_of(reporting).run({"x": array})
    limits = np.iinfo(dtype)
    for tap in (first, second):
        exact = np.rint(np.maximum(array, 0) / np.float32(tap.scale)) + tap.zero_point
        assert found[tap.output].dtype == dtype
        np.testing.assert_array_equal(found[tap.output], np.clip(exact, limits.min, limits.max))
