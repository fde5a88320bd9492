"""Stored weights whose scales a 16-bit float cannot hold: what is raised, rounded, refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import normal

from jettison.graph.cast import cast_nodes
from jettison.graph.cast_plan import plan_cast
from jettison.graph.cast_scales import lifted
from jettison.graph.save import model_bytes

SMALLEST_NORMAL = 2.0**-14
FLOAT8, INT4 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.int4)


def stored(values: np.ndarray, scales: np.ndarray, **attributes: int) -> ir.Model:
    """x times a weight that is stored like that."""
    x = ir.Value(name="x", shape=ir.Shape(["n", values.shape[0]]), type=ir.TensorType(ir.DataType.FLOAT))
    constants = [ir.tensor(array, name=name) for name, array in (("w", values), ("scale", scales))]
    initializers = [ir.Value(name=found.name, const_value=found, shape=found.shape) for found in constants]
    for value, found in zip(initializers, constants, strict=True):
        value.type = ir.TensorType(found.dtype)
    weight = ir.node("DequantizeLinear", initializers, attributes, name="weight")
    product = ir.node("MatMul", [x, weight.outputs[0]], name="product")
    for node, name, shape in ((weight, "v", list(values.shape)), (product, "y", ["n", values.shape[1]])):
        output = node.outputs[0]
        output.name, output.shape, output.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    nodes, opset = [weight, product], {"": 21}
    graph = ir.Graph(
        [x], product.outputs, nodes=nodes, initializers=initializers, opset_imports=opset, name="g"
    )
    return ir.Model(graph, ir_version=10)


def weight_of(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "DequantizeLinear")


def read(model: ir.Model) -> tuple[np.ndarray, np.ndarray]:
    """The stored numbers and scales of the model's weight."""
    values, scales = (value.const_value.numpy() for value in weight_of(model).inputs)
    return values, scales


def test_fp8_numbers_stay_fp8_numbers_when_their_scale_is_raised() -> None:
    """Rounded to whole numbers, as integers are, all below a half would be lost."""
    values = normal(64, 16).astype(FLOAT8)
    scales = np.geomspace(2e-6, 1e-4, 16).astype(np.float32)
    model = stored(values, scales, axis=1)
    cast = cast_nodes(model, "float16")
    onnx.checker.check_model(model_bytes(cast), full_check=True)
    found, raised = read(cast)
    assert (found.dtype, raised.dtype) == (FLOAT8, np.float16)
    assert raised.min() >= SMALLEST_NORMAL
    exact = values.astype(np.float32) * scales
    after = found.astype(np.float32) * raised.astype(np.float32)
    # A float16 scale is off by 2^-11 at most; a number of 2^-6 that moves by 2^5 rounds to steps of 2^-9.
    assert (np.abs(after - exact) <= np.abs(exact) * 2.0**-10 + raised.astype(np.float32) * 2.0**-10).all()
    assert (found.astype(np.float32) % 1 != 0).mean() > 0.5


def test_fp8_scales_move_by_powers_of_two_so_that_no_bit_is_lost() -> None:
    values, scales = np.array([[448.0, 17.0, 0.75]], FLOAT8).T, np.float32(3e-5)
    found = lifted(weight_of(stored(np.repeat(values, 2, 1), np.full(2, scales), axis=1)), "float16")
    assert found is not None
    np.testing.assert_array_equal(
        found[0].astype(np.float32), values.astype(np.float32) / 4 * np.ones((1, 2))
    )
    np.testing.assert_array_equal(found[1], scales * 4)


def test_scales_that_float16_holds_are_left_alone() -> None:
    for values in (normal(4, 2).astype(FLOAT8), np.ones((4, 2), np.int8)):
        assert (
            lifted(weight_of(stored(values, np.full(2, SMALLEST_NORMAL, np.float32), axis=1)), "float16")
            is None
        )


def test_bfloat16_holds_scales_that_float16_does_not() -> None:
    node = weight_of(stored(normal(4, 2).astype(FLOAT8), np.full(2, 1e-20, np.float32), axis=1))
    assert lifted(node, "bfloat16") is None


def test_fp8_weights_too_quiet_for_float16_keep_their_layer_in_float32() -> None:
    """2^-9 of FP8's smallest step at float16's smallest normal number: nothing would be left of them."""
    model = stored(np.full((16, 16), 0.25, FLOAT8), np.full(16, 1e-9, np.float32), axis=1)
    plan = plan_cast(model, "float16")
    assert plan.slots == {}
    assert plan.kept["weight"] == (
        "its constant 'scale' holds scales of 1e-09 to 1e-09, which are no normal numbers in float16"
    )


def test_integers_become_coarser_where_their_scale_is_raised() -> None:
    values = np.array([[100, 3], [-50, 1]], np.int8)
    scales = np.array([0.01, 3e-5], np.float32)
    found = lifted(weight_of(stored(values, scales, axis=1)), "float16")
    assert found is not None
    np.testing.assert_array_equal(found[0], [[100, 1], [-50, 0]])
    np.testing.assert_array_equal(found[1], np.float32([0.01, SMALLEST_NORMAL]))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_dead_block_of_int4_weights_gets_a_scale_that_float16_holds(axis: int) -> None:
    values = np.random.default_rng(0).integers(-7, 8, (64, 64)).astype(INT4)
    scales = np.full((64, 64), 0.01, np.float32)
    scales, values = scales.take(np.arange(4), axis), values.copy()
    dead = np.zeros((64, 64), bool)
    dead[:16, :8] = True
    if axis == 1:
        dead = dead.T
    values[dead] = 0
    scales[(slice(0, 1), slice(0, 8)) if axis == 0 else (slice(0, 8), slice(0, 1))] = 1e-8
    cast = cast_nodes(stored(values, scales, axis=axis, block_size=16), "float16")
    onnx.checker.check_model(model_bytes(cast), full_check=True)
    found, raised = read(cast)
    assert found.dtype == INT4
    assert raised.shape == scales.shape
    assert raised.min() == SMALLEST_NORMAL
    np.testing.assert_array_equal(found, values)
