"""Junctions: found around exactly the values that may be divided channel by channel, and nowhere else."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from junction_cases import KEPT, MOVED, Build, Case

from jettison.graph.clean import clean
from jettison.graph.junction import find_junctions
from zoo.session import cleaned
from zoo.table import ZOO


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_junctions_are_found_where_both_sides_take_the_factor(case: Case) -> None:
    found = find_junctions(case.model())
    assert {tuple(junction.reads): junction.channels for junction in found} == case.junctions
    assert all(junction.name == next(iter(junction.reads)) for junction in found)


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_only_values_that_no_maker_can_divide_are_multiplied(case: Case) -> None:
    assert {bool(junction.multiplied) for junction in find_junctions(case.model())} == {case.multiplied}


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_no_junction_is_found_where_the_factor_would_change_something(build: Build) -> None:
    assert find_junctions(clean(ir.from_proto(build().model()))) == ()


def test_a_multiplication_serves_products_only() -> None:
    """Other readers keep the value: here a Sin, and a Div whose constant could have taken the factor."""
    (junction,) = find_junctions(MOVED["LayerNormalization, residual"].model())
    assert len(junction.multiplied) == 3
    assert set(junction.multiplied) == {change.node for change in junction.weights}


@pytest.mark.parametrize("name", ZOO)
def test_no_value_lies_in_two_junctions(name: str) -> None:
    reads = [read for junction in find_junctions(cleaned(name)) for read in junction.reads]
    assert len(reads) == len(set(reads))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("conv_relu_chain", 2),
        ("depthwise_clip", 0),
        ("residual_projection", 3),
        ("attention_layernorm", 3),
        ("attention_decomposed", 3),
        ("matmul_bias", 1),
        ("shared_weight", 0),
        ("half_precision", 0),
        ("no_weighted_op", 0),
    ],
)
def test_junctions_of_zoo_models(name: str, count: int) -> None:
    assert len(find_junctions(cleaned(name))) == count
