"""Losses are measured before a softmax or a decision, under the names that the outputs have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from jettison.graph.clean import clean
from jettison.graph.judged import is_blind, judged_view
from zoo.builder import Net
from zoo.session import run

WIDTH = 8


def net_with(*ends):
    """A Gemm named `scores`, and what each of `ends` adds to it as an output."""
    net = Net("ends")
    scores = net.gemm(net.input("x", ["batch", WIDTH]), (WIDTH, 5), to="scores")
    for end in ends:
        end(net, scores)
    return clean(ir.from_proto(net.model()))


def softmax(net, scores):
    net.output(net.named("Softmax", scores, to="probabilities", axis=-1), ["batch", 5])


def logits(net, scores):
    net.output(scores, ["batch", 5])


def number_of_class(net, scores):
    kept = net.op("ArgMax", net.op("LogSoftmax", scores, axis=-1), axis=1, keepdims=1)
    flat = net.named("Squeeze", kept, net.const(np.array([1], np.int64)), to="class")
    net.output(flat, ["batch"], TensorProto.INT64)


def best_three(net, scores):
    values, places = net.op("TopK", scores, net.const(np.array([3], np.int64)), outputs=2, axis=1)
    net.output(values, ["batch", 3])
    net.output(places, ["batch", 3], TensorProto.INT64)


def is_large(net, scores):
    net.output(net.op("Greater", scores, net.const(np.float32(0))), ["batch", 5], TensorProto.BOOL)


def ran(model):
    x = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    return run(ir.to_proto(model).SerializeToString(), {"x": x})


@pytest.mark.parametrize("end", [softmax, number_of_class])
def test_output_gives_what_went_into_its_softmax_or_decision_under_its_own_name(end):
    model = net_with(end)
    name = model.graph.outputs[0].name
    found = ran(judged_view(model))
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name], ran(net_with(logits))["scores"])


def test_both_outputs_of_topk_give_the_scores():
    found = ran(judged_view(net_with(best_three)))
    assert [array.shape for array in found.values()] == [(3, 5), (3, 5)]


def test_scores_that_are_an_output_themselves_stay_one_beside_their_softmax():
    found = ran(judged_view(net_with(softmax, logits)))
    assert list(found) == ["probabilities", "scores"]
    np.testing.assert_array_equal(found["probabilities"], found["scores"])


def test_model_without_such_ends_is_its_own_view_and_the_given_one_is_never_changed():
    plain, model = net_with(logits), net_with(softmax)
    assert judged_view(plain) is plain
    before = ir.to_proto(model).SerializeToString()
    judged_view(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_softmax_inside_the_model_stays():
    def gated(net, scores):
        inside = net.op("Mul", net.op("Softmax", scores, axis=-1), scores)
        net.output(inside, ["batch", 5])

    model = net_with(gated)
    assert judged_view(model) is model


@pytest.mark.parametrize(
    ("ends", "blind"),
    [((softmax,), False), ((number_of_class,), False), ((is_large,), True), ((is_large, logits), False)],
)
def test_blind_is_a_model_on_none_of_whose_outputs_a_loss_shows(ends, blind):
    assert is_blind(net_with(*ends)) is blind


def test_view_is_a_valid_model():
    view = ir.to_proto(judged_view(net_with(softmax, number_of_class, best_three)))
    x = np.zeros((2, WIDTH), np.float32)
    assert len(ReferenceEvaluator(view).run(None, {"x": x})) == 4
