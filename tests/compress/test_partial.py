"""`{quantize: partial}`: the tolerance holds, an answer every time, and a search that can be broken off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jettison.compress.passes import Measurement, Workpiece
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.partial import QuantizePartial
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs
from zoo.session import cleaned
from zoo.table import ZOO

MODEL = "residual_add"


def quantized_layers(model):
    """How many weights of the model are integers."""
    return sum(node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer() for node in model.graph)


def costs():
    """Every layer twice as fast in integers, borders free."""
    names = [layer.name for layer in find_layers(cleaned(MODEL).graph)]
    figures = {"base": 1.0, "quantize": 0.0, "dequantize": 0.0}
    for name in names:
        figures |= {f"float {name}": 10.0, f"integer {name}": 5.0}
    return figures


class Judge:
    """Judges a model by how many of its stored tensors are integers: more than `most` break the tolerance."""

    def __init__(self, most):
        self.most, self.seen = most, 0

    def __call__(self, model):
        self.seen += 1
        low = -0.001 if quantized_layers(model) <= self.most else -0.5
        return Measurement(score_delta=low, score_delta_low=low, sqnr_db=30.0, speedup=1.2)


class Memory(dict):
    """Figures by key, as a store keeps them; costs are given, since those of so small a model are noise."""

    def __init__(self, *known):
        super().__init__(*known)
        self.setdefault("costs", costs())

    def __call__(self, key, compute):
        if key not in self:
            self[key] = compute()
        return self[key]


@pytest.fixture(scope="module")
def samples():
    return samples_of(ZOO[MODEL].inputs(48, 0), specs=input_specs(cleaned(MODEL)))


def piece(judge, memory=None, target="cpu"):
    return Workpiece(
        cleaned(MODEL), parse_target(target), measure=judge, remember=memory or Memory(), tolerance=0.01
    )


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
    assert result.model is not None
    assert any("no choice of layers held the tolerance" in note for note in result.warnings)


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
        joint = [key for key in keys[:done] if key.startswith("joint")]
        assert judge.seen == expected.evaluations - len(joint)


def test_search_out_of_time_ends_with_the_best_choice_known_and_says_so(samples):
    judge = Judge(most=2)
    timed = dataclasses.replace(piece(judge), time_left_s=lambda: 5.0 if judge.seen < 2 else -1.0)
    result = QuantizePartial()(timed, samples)
    assert judge.seen == 2
    assert any("time for the search ran out" in note for note in result.warnings)


def test_search_without_any_time_still_judges_one_choice(samples):
    judge = Judge(most=10**6)
    timed = dataclasses.replace(piece(judge), time_left_s=lambda: 0.0)
    result = QuantizePartial()(timed, samples)
    assert judge.seen == 1
    assert quantized_layers(result.model) > 0


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
