"""Bisection: the smallest set of nodes that the compiler does not take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from breakers import BREAKERS, FLOAT32, LAYER, SCALES, WEIGHT, conv, model, node, pair
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.targets import parse_target
from jettison.engines.tensorrt.bisect import bisect, cut, smallest
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import Bisection, Outcome, PreflightReport, RefusedNode
from jettison.graph.save import model_bytes

needs_compiler = pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")


def report(outcome: Outcome, *refusals: RefusedNode) -> PreflightReport:
    return PreflightReport(
        target="sm89",
        compiled_for="sm89",
        nearest=False,
        module="tensorrt_rtx",
        version="1",
        outcome=outcome,
        refusals=refusals,
    )


def without(operator: str, outcome: Outcome = "refused") -> Callable[[ir.Model], PreflightReport]:
    """A compiler that refuses that operator and nothing else, or dies of it."""

    def ask(asked: ir.Model) -> PreflightReport:
        onnx.checker.check_model(ir.to_proto(asked))
        found = next((each for each in asked.graph if each.op_type == operator), None)
        if found is None:
            return report("compiles")
        named = RefusedNode(code="BAD", description="no", node=found.name, operator=operator)
        return report(outcome, *([named] if outcome == "refused" else []))

    return ask


def found_in(proto: onnx.ModelProto, ask: Callable[[ir.Model], PreflightReport], most: int = 60) -> Bisection:
    opened = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    before = ir.to_proto(opened).SerializeToString(deterministic=True)
    result = bisect(opened, ask(opened), ask, most_trials=most)
    assert ir.to_proto(opened).SerializeToString(deterministic=True) == before, "the model stays as it is"
    assert result is not None
    return result


def chain() -> onnx.ModelProto:
    """Twenty nodes, one of which is a Softmax; pairs at both ends."""
    kinds = ["Relu", "Neg", "Abs", "Softmax", *["Tanh", "Neg"] * 4]
    names = ["c", *(f"v{place}" for place in range(len(kinds) - 1)), "r"]
    between = [node(kind, [names[place]], names[place + 1]) for place, kind in enumerate(kinds)]
    return model(
        [*pair("x"), *LAYER, conv("x_dq", "c"), *between, *pair("r"), conv("r_dq", "y")], {**SCALES, **WEIGHT}
    )


@given(count=st.integers(1, 40), data=st.data())
def test_ddmin_finds_exactly_what_is_needed(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    assert smallest(range(count), lambda some: needed <= set(some)) == sorted(needed)


@pytest.mark.parametrize("outcome", ["refused", "crashed"])
def test_one_node_among_many_is_found(outcome: Outcome) -> None:
    result = found_in(chain(), without("Softmax", outcome))
    assert (result.nodes, result.pairs, result.is_smallest) == (("v3",), (), True)
    assert result.leave_out is None
    assert result.trials <= 20


def test_a_refused_node_that_is_named_needs_few_trials() -> None:
    assert found_in(chain(), without("Softmax")).trials <= 3  # without pairs, then the node itself


def test_a_pair_is_named_with_the_pass_that_made_it() -> None:
    def ask(asked: ir.Model) -> PreflightReport:
        scale = "r_q" in {each.name for each in asked.graph}
        return (
            report("refused", RefusedNode(code="BUILDER", description="no")) if scale else report("compiles")
        )

    result = found_in(chain(), ask)
    assert (result.nodes, result.pairs) == (("r_q",), ("r_q",))
    assert result.leave_out == (
        "{quantize: full}; leave it out, or name the layer behind the pair in its keep_float"
    )


def test_a_cut_that_fails_otherwise_does_not_mislead() -> None:
    """A part without the Relu breaks in its own way, which is not what is looked for."""

    def ask(asked: ir.Model) -> PreflightReport:
        kinds = {each.op_type for each in asked.graph}
        if "Softmax" in kinds and "Relu" in kinds:
            return report("refused", RefusedNode(code="BAD", description="no"))
        return report("refused", RefusedNode(code="OTHER", description="no"))

    assert set(found_in(chain(), ask).nodes) == {"v0", "v3"}


def test_where_the_trials_run_out_the_part_is_not_called_smallest() -> None:
    result = found_in(chain(), without("Softmax", "crashed"), most=2)
    assert not result.is_smallest
    assert "v3" in result.nodes


def test_a_model_that_compiles_has_nothing_to_find() -> None:
    opened = ir.from_proto(chain())
    assert bisect(opened, report("compiles"), without("Softmax")) is None


def test_a_cut_keeps_names_types_and_shapes() -> None:
    opened = ir.from_proto(onnx.shape_inference.infer_shapes(chain()))
    places = [place for place, each in enumerate(opened.graph) if each.name in ("v2", "v3")]
    part = cut(opened, places)
    assert [value.name for value in part.graph.inputs] == ["v1"]
    assert [value.name for value in part.graph.outputs] == ["v3"]
    assert list(part.graph.inputs[0].shape or ())[1:] == [16, 8, 8]


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize(
    ("code", "nodes"),
    [
        ("T101", {"dynamic"}),
        ("T103", {"thing"}),
        ("T104", {"nonzero"}),
        ("T110", {"b_dq"}),
        ("T111", {"x_q"}),
        ("T113", {"x_q"}),
        ("T115", {"w_dq"}),
    ],
)
def test_a_planted_breaker_is_pinned_to_its_node(code: str, nodes: set[str]) -> None:
    target = parse_target("sm86")

    def ask(asked: ir.Model) -> PreflightReport:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model_bytes(asked))
            return preflight(path, target)

    result = found_in(BREAKERS[code].build(), ask)
    assert nodes <= set(result.nodes)
    assert len(result.nodes) <= 2
    assert result.is_smallest
    assert (result.leave_out is not None) == (code in ("T110", "T113", "T115"))  # what passes of ours write


def test_weights_stored_in_integers_are_units_too() -> None:
    """The breaker is a stored weight with a bad scale: its pair is named, and no other."""

    def ask(asked: ir.Model) -> PreflightReport:
        bad = any(value.name == "bad" for value in asked.graph.initializers.values())
        return report("refused", RefusedNode(code="BUILDER", description="no")) if bad else report("compiles")

    other = {"w2": WEIGHT["w"], "bad": np.full(16, 0.002, FLOAT32)}
    weight = [*LAYER, node("DequantizeLinear", ["w2", "bad", "zw"], "w2_dq", axis=0)]
    nodes = [*pair("x"), *weight, conv("x_dq", "c"), *pair("c"), conv("c_dq", "y", weight="w2_dq")]
    assert found_in(model(nodes, {**SCALES, **WEIGHT, **other}), ask).pairs == ("w2_dq",)
