"""`{quantize: partial}`: the tolerance holds, an answer every time, and a search that can be broken off."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from onnx import TensorProto
from small_models import feature_net, features, model_of, samples_for

from jettison.compress.passes import Measurement, Workpiece
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes
from zoo.session import cleaned
from zoo.table import ZOO

MODEL = "residual_add"
STORED = 2
"""Tensors that a layer in integers stores: its weight and its bias."""


def quantized_layers(model):
    """How many weights of the model are integers."""
    return sum(node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer() for node in model.graph)


def even_costs(integer=5.0):
    """Every layer takes 10 us in float, and half of it in integers unless told; borders are free."""
    names = [layer.name for layer in find_layers(cleaned(MODEL).graph)]
    figures = {"base": 1.0, "quantize": 0.0, "dequantize": 0.0}
    for name in names:
        figures |= {f"float {name}": 10.0, f"integer {name}": integer}
    return figures


class Judge:
    """Judges a model by how many of its stored tensors are integers: more than `most` break the tolerance."""

    def __init__(self, most):
        self.most, self.seen = most, 0

    def __call__(self, model):
        self.seen += 1
        low = -0.001 if quantized_layers(model) <= self.most else -0.5
        return Measurement(score_delta=low, score_delta_low=low, sqnr_db=30.0)


class Memory(dict):
    """Figures by key, as a store keeps them; costs are given, since those of so small a model are noise.

    `noises` are those of repairs, by name and in the order in which they are tried; 1 beyond.
    """

    def __init__(self, known=(), *, costs=None, noises=None):
        super().__init__(known)
        self.costs, self.noises = costs or even_costs(), noises

    def __call__(self, key, compute):
        if key not in self:
            self[key] = self.figures(key, compute)
        return self[key]

    def figures(self, key, compute):
        if key.startswith("costs "):
            return self.costs
        if key.startswith("repair ") and self.noises is not None:
            return {"noise": self.noises.get(key.removeprefix("repair "), 1.0)}
        return compute()

    def names(self, start):
        return [key for key in self if key.startswith(start)]


@pytest.fixture(scope="module")
def samples():
    return samples_of(ZOO[MODEL].inputs(48, 0), specs=input_specs(cleaned(MODEL)))


def piece(judge, memory=None, target="cpu"):
    known = Memory() if memory is None else memory
    return Workpiece(cleaned(MODEL), parse_target(target), measure=judge, remember=known, tolerance=0.01)


def test_everything_in_integers_where_everything_holds(samples):
    judge = Judge(most=10**6)
    result = QuantizePartial()(piece(judge), samples)
    assert all(layer.quantized for layer in result.layers)
    assert result.evaluations == judge.seen <= 12


def test_only_what_holds_is_kept_in_integers(samples):
    most = 2
    result = QuantizePartial()(piece(Judge(most)), samples)
    assert quantized_layers(result.model) <= most


def test_answer_even_where_nothing_holds(samples):
    result = QuantizePartial()(piece(Judge(most=-1)), samples)
    assert quantized_layers(result.model) > 0
    assert result.warnings == (
        "no choice of layers held the tolerance of 0.01 on the search samples, not even the one with the "
        "least damage, which this is",
    )
    assert result.notes[-1].endswith("joint evaluations")
    assert not any("in integers" in note for note in result.notes)


def test_budget_of_joint_evaluations_is_kept(samples):
    judge = Judge(most=2)
    result = QuantizePartial(max_evaluations=2)(piece(judge), samples)
    assert judge.seen <= 2
    assert result.evaluations <= 2


def test_search_that_was_broken_off_goes_on_and_ends_with_the_same_answer(samples):
    """Killed after each figure in turn, the search asks only for what it does not know yet."""
    whole = Memory()
    expected = QuantizePartial()(piece(Judge(3), whole), samples)
    keys = list(whole)
    for done in range(len(keys)):
        known = Memory({key: whole[key] for key in keys[:done]})
        judge = Judge(3)
        result = QuantizePartial()(piece(judge, known), samples)
        assert [layer.quantized for layer in result.layers] == [layer.quantized for layer in expected.layers]
        joint = [key for key in keys[:done] if key.startswith("joint-")]
        assert judge.seen == expected.evaluations - len(joint)


def test_search_out_of_time_ends_with_the_best_choice_known_and_says_so(samples):
    judge = Judge(most=2)
    left = after_repairs(judge)
    result = QuantizePartial()(dataclasses.replace(piece(judge), time_left_s=left), samples)
    assert judge.seen == 2, "the cheapest choice, and the one with the least damage"
    assert 0 < quantized_layers(result.model) <= 2
    assert result.is_cut_short
    assert result.warnings == (
        "the time for the search ran out, and a longer one may find more: the same command goes on where "
        "this one stopped",
    )


def after_repairs(judge):
    """A clock that leaves plenty of time until the first joint evaluation, and none after it."""
    return lambda: -1.0 if judge.seen else 100.0


def test_search_without_any_time_still_judges_one_choice(samples):
    judge = Judge(most=10**6)
    timed = dataclasses.replace(piece(judge), time_left_s=lambda: 0.0)
    result = QuantizePartial()(timed, samples)
    assert judge.seen == 1
    assert all(layer.quantized for layer in result.layers)
    assert result.warnings == ("half of the time for the search was spent, and 7 repairs were not tried",)
    assert result.is_cut_short


def test_all_in_integers_is_judged_first(samples):
    judge = Judge(most=10**6)
    result = QuantizePartial()(piece(judge), samples)
    assert judge.seen == 1
    assert all(layer.quantized for layer in result.layers)
    assert result.warnings == ()
    assert not result.is_cut_short


def test_two_evaluations_judge_the_ends_of_the_front_and_the_search_says_that_it_was_not_gone_through(
    samples,
):
    judge = Judge(most=STORED)
    result = QuantizePartial(max_evaluations=2)(piece(judge), samples)
    assert judge.seen == 2
    assert quantized_layers(result.model) == STORED
    assert result.warnings == (
        "the 2 joint evaluations allowed were spent before the choices were searched through: more of them "
        "(max_evaluations) may find a cheaper one",
    )
    assert not result.is_cut_short, "the same command would end in the same way"


def test_nothing_is_quantized_where_integers_are_slower(samples):
    judge, memory = Judge(most=10**6), Memory(costs=even_costs(integer=20.0))
    given = piece(judge, memory)
    result = QuantizePartial()(given, samples)
    assert judge.seen == 0
    assert model_bytes(result.model) == model_bytes(given.model)
    assert {layer.reason for layer in result.layers} == {
        "left in float by the search: integers are not predicted to be cheaper"
    }
    assert result.counterpart is None
    assert result.notes[-2:] == ("predicted speed-up 1.00 (measured on this machine)", "0 joint evaluations")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith(
        "nothing was quantized, since no choice of layers is predicted to cost less than float; all in "
        "integers: predicted speed-up 0.5"
    )


def test_layers_that_the_search_left_in_float_tell_what_they_would_cost(samples):
    kept = find_names()[0]
    result = QuantizePartial(keep_float=(kept,))(piece(Judge(most=2)), samples)
    reasons = {layer.node: layer.reason for layer in result.layers if not layer.quantized}
    assert reasons.pop(kept) == "left in float as asked"
    assert reasons
    for reason in reasons.values():
        assert re.fullmatch(
            r"left in float by the search: alone in integers it leaves \d+\.\d dB SQNR", reason
        ), reason


def find_names():
    return [layer.name for layer in find_layers(cleaned(MODEL).graph)]


MAX_PLAIN = "ranges by max, bias correction left out"
MAX_CORRECTED = "ranges by max, bias correction kept"
MSE_CORRECTED = "ranges by mse, bias correction kept"


def test_figures_of_other_repairs_are_not_taken_for_those_of_this_model(samples):
    """A resumed run has time for more repairs than the first one had, and finds a better candidate."""
    noises = {MAX_PLAIN: 0.3, MAX_CORRECTED: 0.2, MSE_CORRECTED: 0.1}
    memory, first = Memory(noises=noises), Judge(most=10**6)
    hurried = dataclasses.replace(piece(first, memory), time_left_s=lambda: -1.0)
    assert QuantizePartial()(hurried, samples).notes[0].startswith(MAX_CORRECTED)
    second = Judge(most=10**6)
    resumed = QuantizePartial()(piece(second, memory), samples)
    assert resumed.notes[0].startswith(MSE_CORRECTED)
    assert second.seen == 1, "the model of other repairs was not judged yet"
    for start in ("joint-", "costs", "damages"):
        assert len(memory.names(start)) == 2, start
    fresh = QuantizePartial()(piece(Judge(most=10**6), Memory(noises=noises)), samples)
    assert model_bytes(fresh.model) == model_bytes(resumed.model)


def test_too_few_search_samples_are_judged_by_their_score_and_the_result_says_so(samples):
    """The lower bound of a model without any difference lies below the tolerance: no bound proves it."""

    def judge(model):
        lost = -0.001 * quantized_layers(model)
        return Measurement(score_delta=lost, score_delta_low=lost - 0.5, sqnr_db=30.0, best_low=-0.5)

    given = dataclasses.replace(piece(judge), tolerance=0.003)
    result = QuantizePartial()(given, samples)
    assert quantized_layers(result.model) == STORED, "one layer costs 0.002, two cost more than is allowed"
    assert result.warnings == (
        "the search samples are too few to prove a tolerance of 0.003 of any choice, so choices were judged "
        "by their score alone: give more by --search or samples.search",
    )
    assert any("whose score falls by 0.003 on the search samples" in note for note in result.notes)


def deciding(*, over_scores):
    """Two layers and a decision: by the highest score, or by whether the first one is above zero."""
    net, x = feature_net(32)
    scores = net.gemm(net.op("Relu", net.gemm(x, (32, 64))), (64, 16))
    if over_scores:
        net.output(net.named("ArgMax", scores, to="y", axis=1, keepdims=0), ["batch"], TensorProto.INT64)
    else:
        is_above = net.op("Greater", scores, net.const(np.float32(0)))
        net.output(is_above, ["batch", 16], TensorProto.BOOL)
    return model_of(net)


@pytest.mark.parametrize("over_scores", [True, False])
def test_a_search_that_cannot_see_any_loss_says_so(over_scores):
    """A loss shows on scores behind an ArgMax, and on no truth behind a comparison."""
    model = deciding(over_scores=over_scores)
    memory = Memory()
    given = Workpiece(model, parse_target("cpu"), measure=Judge(most=STORED), remember=memory)
    result = QuantizePartial(objective="bits")(given, samples_for(model, features(32, 48)))
    (key,) = memory.names("damages")
    assert all((damage > 0) == over_scores for damage in memory[key].values())
    assert any("could not be measured" in text for text in result.warnings) != over_scores
    full = QuantizeFull(repair="measure")(given, samples_for(model, features(32, 48)))
    assert any("no repair could be told from another" in text for text in full.warnings) != over_scores
    assert QuantizeFull()(given, samples_for(model, features(32, 48))).warnings == ()


def test_gpu_cost_is_labelled_an_estimate(samples):
    result = QuantizePartial()(piece(Judge(10**6), target="sm89"), samples)
    assert any("estimated from the rates of L4" in note for note in result.notes)
    assert not any("measured on this machine" in note for note in result.notes)


def test_keep_float_is_obeyed(samples):
    first = QuantizePartial()(piece(Judge(10**6)), samples).layers[0].node
    result = QuantizePartial(keep_float=(first,))(piece(Judge(10**6)), samples)
    kept = {layer.node: layer.quantized for layer in result.layers}
    assert not kept[first]
    assert sum(kept.values()) == len(kept) - 1


def test_refused_without_anything_to_judge_by():
    refusal = QuantizePartial().check(dataclasses.replace(piece(None), measure=None))
    assert refusal is not None
    assert "something to judge its choices by" in refusal.reasons[0]


def test_given_model_stays_as_it_is(samples):
    given = piece(Judge(10**6))
    before = [node.name for node in given.model.graph]
    QuantizePartial()(given, samples)
    assert [node.name for node in given.model.graph] == before
    assert np.all([node.op_type != "QuantizeLinear" for node in given.model.graph])


def test_note_says_where_the_samples_are_too_few_to_judge_it():
    few = samples_of(ZOO[MODEL].inputs(8, 0), specs=input_specs(cleaned(MODEL)))
    result = QuantizePartial()(piece(Judge(10**6)), few)
    assert any("too few to hold some out" in note for note in result.notes)
