"""A replay: both models on the same samples in turns, and the counts that follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.core import dtypes
from jettison.core.errors import ExternalError, InputError
from jettison.core.samples import Batch, checked
from jettison.core.tensors import TensorSpec
from jettison.evaluate.metrics import Metric, resolve_metric
from jettison.experiment.replay import Outcome, latency_of, replay, tally_of
from jettison.experiment.tally import Arms, Tally

FLOAT = dtypes.of_name("float32")
SPECS = [TensorSpec(name="x", dtype=FLOAT, shape=("batch", 1))]
OUTPUTS = [TensorSpec(name="y", dtype=FLOAT, shape=("batch", 10))]


class World:
    """Two fake models on one clock; each call is noted."""

    def __init__(self):
        self.now, self.calls = 0, []

    def model(self, name, *, answer=lambda x: x, ms=lambda _: 1.0, fails=()):
        world, count = self, [0]

        class Model:
            inputs, outputs = SPECS, OUTPUTS

            def run(self, arrays):
                x = int(arrays["x"][0, 0])
                world.calls.append(f"{name}{x}")
                count[0] += 1
                world.now += int(1e6 * ms(count[0]))
                if x in fails:
                    raise ExternalError(name, detail="out of memory", fix="Look")
                scores = np.zeros((1, 10), np.float32)
                scores[0, answer(x) % 10] = 1
                return {"y": scores}

        return Model()

    def clock(self):
        return self.now


def samples(count):
    rows = np.arange(count, dtype=np.float32)[:, None]
    labels = np.arange(count) % 10
    return checked(lambda: iter([Batch({"x": rows}, labels)]), source="rows", specs=SPECS)


def run(world, baseline, candidate, count, **more):
    more = {"metric": resolve_metric("top1"), "warm_up": 0, **more}
    return replay((baseline, candidate), samples(count), clock=world.clock, **more)


def names(count):
    return [str(number) for number in range(count)]


def test_the_order_is_abba_after_a_warm_up_that_counts_for_nothing():
    world = World()
    found = run(world, world.model("a"), world.model("b"), 4, warm_up=2)
    assert world.calls == ["a0", "b0", "a1", "b1", "a0", "b0", "b1", "a1", "a2", "b2", "b3", "a3"]
    assert len(found) == 4


def test_labels_say_who_was_right():
    world = World()
    baseline = world.model("a", answer=lambda x: 9 if x == 1 else x)
    candidate = world.model("b", answer=lambda x: 0 if x in (2, 3) else x)
    tally = tally_of(run(world, baseline, candidate, 8), names(8), limit_ms=None)
    assert tally == Tally(offered=8, agree=5, disagree=3, better=1, same=5, worse=2)


def test_without_labels_agreement_counts_and_disagreements_wait():
    world = World()
    candidate = world.model("b", answer=lambda x: x + (x == 3))
    tally = tally_of(run(world, world.model("a"), candidate, 8, metric=None), names(8), limit_ms=None)
    assert tally == Tally(offered=8, agree=7, same=7, disagree=1)
    assert tally.pending == 1


def test_a_unit_counts_once_with_the_mean_of_its_scores():
    world = World()
    candidate = world.model("b", answer=lambda x: x + (x in (0, 1)))
    units = ["clip"] * 4 + ["other"] * 4
    tally = tally_of(run(world, world.model("a"), candidate, 8), units, limit_ms=None)
    assert tally == Tally(offered=2, agree=1, disagree=1, same=1, scores=((-1000, 1),))


def test_lost_answers_are_errors_and_those_of_the_candidate_count_against_it():
    world = World()
    found = run(world, world.model("a", fails={1, 5}), world.model("b", fails={5, 6, 7}), 9)
    tally = tally_of(found, names(9), limit_ms=None)
    assert (tally.baseline_lost, tally.candidate_lost, tally.agree) == (2, 2, 5)
    assert tally.arms == ((5000, Arms(baseline_errors=2, candidate_errors=3)),)


def test_a_server_that_is_gone_ends_it():
    world = World()
    everything = set(range(20))
    with pytest.raises(ExternalError, match="out of memory"):
        run(world, world.model("a", fails=everything), world.model("b", fails=everything), 20)
    assert len(world.calls) == 10


def test_late_answers_are_counted_against_the_limit():
    world = World()
    candidate = world.model("b", ms=lambda call: 30.0 if call % 5 == 0 else 3.0)
    found = run(world, world.model("a"), candidate, 10)
    tally = tally_of(found, names(10), limit_ms=20.0)
    assert (tally.within_limit, tally.over_limit) == (8, 2)


def test_a_drift_cancels_in_the_difference():
    """Every call is slower than the one before by 0.1 ms; the candidate takes 2 ms more."""
    world, calls = World(), [0]

    def drifting(more):
        def ms(_):
            calls[0] += 1
            return 1.0 + more + 0.1 * calls[0]

        return ms

    found = latency_of(run(world, world.model("a", ms=drifting(0)), world.model("b", ms=drifting(2)), 40))
    assert (found.difference_ms, found.low_ms, found.high_ms) == pytest.approx((2.0, 2.0, 2.0))
    assert (found.samples, found.confidence) == (40, 0.95)


def test_a_constant_latency_has_a_tight_difference_and_too_few_samples_none():
    world = World()
    found = latency_of(run(world, world.model("a"), world.model("b", ms=lambda _: 0.5), 12))
    assert (found.baseline_ms, found.candidate_ms, found.difference_ms) == pytest.approx((1.0, 0.5, -0.5))
    assert latency_of([Outcome(1.0, 1.0, True, 0.0)] * 3) is None


def test_scores_beyond_one_are_refused():
    world = World()
    metric = Metric("wild", needs_labels=False, needs_baseline=False, function=lambda _: np.array([-3.0]))
    with pytest.raises(InputError, match=r"expected scores from 0 to 1, .* found"):
        run(world, world.model("a"), world.model("b"), 2, metric=metric)


def test_a_model_of_a_fixed_batch_is_refused():
    world = World()
    model = world.model("a")
    type(model).inputs = [TensorSpec(name="x", dtype=FLOAT, shape=(4, 1))]
    with pytest.raises(InputError, match="found one that takes 4 at a time"):
        run(world, model, world.model("b"), 2)


outcomes = st.builds(
    Outcome,
    baseline_ms=st.sampled_from([None, 1.0]),
    candidate_ms=st.sampled_from([None, 1.0]),
    agrees=st.none(),
    score=st.none(),
)


@given(
    st.lists(st.tuples(outcomes, st.booleans(), st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from("abc")))
)
def test_every_unit_is_offered_once_and_in_one_line(rows):
    """Whatever the outcomes: a unit is lost by one of the two, or agrees, or differs."""
    found = [
        Outcome(o.baseline_ms, o.candidate_ms, agrees, 0.0 if agrees else score)
        if o.baseline_ms and o.candidate_ms
        else o
        for o, agrees, score, _ in rows
    ]
    units = [unit for *_, unit in rows]
    tally = tally_of(found, units, limit_ms=None)
    assert tally.offered == len(set(units))
    assert tally.offered == tally.agree + tally.disagree + tally.baseline_lost + tally.candidate_lost
    assert tally.judged == tally.agree + tally.disagree
