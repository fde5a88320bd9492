from __future__ import annotations

import gc
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from evaluate_fakes import FakeClock, FakeRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jettison.core.errors import RecipeError
from jettison.evaluate.latency import LatencyPlan, compare_calls, compare_latency
from jettison.evaluate.schedule import orders
from jettison.evaluate.speed import SESSION_SHARE, Turns, is_stable, latency_of

MARGIN = math.exp(SESSION_SHARE)
TIMES = {"float": 10.0, "int8": 6.25, "part": 8.0}


def measured(clock: FakeClock, plan: LatencyPlan | None = None):
    return compare_calls(clock.calls(), baseline="float", plan=plan, clock=clock)


def test_constant_times_give_exact_figures_and_stop_at_once():
    report = measured(FakeClock(TIMES))
    assert report.ended == "stable"
    assert report.rounds == LatencyPlan().min_rounds
    int8 = report.latencies["int8"]
    assert (int8.median_ms, int8.p99_ms) == pytest.approx((6.25, 6.25))
    assert int8.speedup == pytest.approx(1.6)
    assert (int8.speedup_low, int8.speedup_high) == pytest.approx((1.6 / MARGIN, 1.6 * MARGIN))
    assert report.latencies["float"].speedup == 1.0
    assert int8.calls == report.rounds * (LatencyPlan().calls_per_turn - 1)


def test_the_first_call_of_a_turn_is_not_counted():
    clock = FakeClock(TIMES)

    class ColdClock(FakeClock):
        def _spend(self, name):
            cold = not self.called or self.called[-1] != name
            super()._spend(name)
            self.now_ns += 5e6 * cold

    cold = measured(ColdClock(TIMES))
    assert cold.latencies == measured(clock).latencies


@given(st.floats(-0.02, 0.5))
@settings(max_examples=20, deadline=None)
def test_a_linear_drift_cancels(drift):
    report = measured(FakeClock(TIMES, drift=lambda seconds: 1 + drift * min(seconds, 10)))
    assert report.latencies["int8"].speedup == pytest.approx(1.6, rel=3e-3)
    assert report.latencies["part"].speedup == pytest.approx(1.25, rel=3e-3)


def test_a_machine_that_becomes_slower_moves_latencies_but_not_the_speedup():
    report = measured(FakeClock(TIMES, drift=lambda seconds: 1.0 if seconds < 1 else 3.0))
    assert report.latencies["int8"].median_ms > 2 * 6.25
    assert report.latencies["int8"].speedup == pytest.approx(1.6, rel=1e-3)


@given(st.permutations(list(TIMES)))
@settings(max_examples=6, deadline=None)
def test_the_order_in_which_variants_are_given_does_not_matter(names):
    noise = np.random.default_rng(3)
    clock = FakeClock({name: TIMES[name] for name in names}, noise=lambda: 1 + 0.1 * noise.random())
    again = np.random.default_rng(3)
    same = FakeClock(TIMES, noise=lambda: 1 + 0.1 * again.random())
    assert measured(clock).latencies == measured(same).latencies


def test_noise_is_measured_longer_and_the_truth_lies_in_the_interval():
    noise = np.random.default_rng(0)
    clock = FakeClock(TIMES, noise=lambda: 1 + noise.exponential(0.1))
    report = measured(clock, LatencyPlan(max_seconds=1e9, max_rounds=4000))
    assert report.ended == "stable"
    assert report.rounds > LatencyPlan().min_rounds
    int8 = report.latencies["int8"]
    assert int8.speedup_low * MARGIN <= 1.6 <= int8.speedup_high / MARGIN
    assert int8.speedup == pytest.approx(1.6, rel=0.015)
    assert int8.p99_ms > int8.median_ms


def test_the_bound_of_a_speedup_errs_in_at_most_five_of_a_hundred():
    noise = np.random.default_rng(0)
    low, high = 0, 0
    for _ in range(400):
        times = 1e7 * (1 + noise.exponential(0.2, (2, 24, 1)))
        turns = Turns(baseline="a", names=("a", "b"), spent={"a": times[0].tolist(), "b": times[1].tolist()})
        found = latency_of(turns, "b")
        low += found.speedup_low * MARGIN > 1
        high += found.speedup_high / MARGIN < 1
    # 0.05 and three standard errors of 400 repetitions
    assert max(low, high) <= 400 * 0.083
    assert min(low, high) > 0


def test_it_stops_at_its_rounds_or_seconds():
    noise = np.random.default_rng(0)
    restless = {"noise": lambda: 1 + 5 * noise.random()}
    by_rounds = measured(FakeClock(TIMES, **restless), LatencyPlan(max_rounds=50, max_seconds=1e9))
    assert (by_rounds.ended, by_rounds.rounds) == ("rounds", 50)
    by_time = measured(FakeClock(TIMES, **restless), LatencyPlan(max_seconds=3))
    assert by_time.ended == "seconds"
    assert 3 <= by_time.seconds < 4


def test_slow_models_get_one_round_of_warm_up_and_two_that_count():
    clock = FakeClock({"float": 30_000.0, "int8": 20_000.0})
    report = measured(clock, LatencyPlan(max_seconds=5))
    assert (report.ended, report.rounds) == ("seconds", 2)
    assert len(clock.called) == 3 * 2 * LatencyPlan().calls_per_turn
    assert report.latencies["int8"].speedup == pytest.approx(1.5)


def test_few_rounds_give_the_range_that_was_seen():
    turns = Turns(baseline="a", names=("a", "b"))
    for a, b in ((20, 10), (20, 20)):
        turns.add({"a": [a], "b": [b]})
    found = latency_of(turns, "b")
    assert (found.speedup_low, found.speedup_high) == pytest.approx((1 / MARGIN, 2 * MARGIN))
    assert found.speedup == pytest.approx(2**0.5)


def turns_of(ratios) -> Turns:
    """Pairs of rounds in which the variant is that many times as fast as the baseline."""
    turns = Turns(baseline="a", names=("a", "b"))
    for ratio in np.repeat(ratios, 2):
        turns.add({"a": [int(1e9 * ratio)], "b": [10**9]})
    return turns


def test_of_twelve_pairs_the_third_from_either_end_bounds_the_speedup():
    # P(Binomial(12, 1/2) <= 2) = 79/4096 = 0.019, and with 3 it is 0.073
    found = latency_of(turns_of(np.arange(1, 13)), "b")
    assert (found.speedup_low * MARGIN, found.speedup_high / MARGIN) == pytest.approx((3, 10))


def test_a_speedup_that_moves_between_the_halves_is_not_stable():
    assert is_stable(turns_of([1.6, 1.625] * 6), 0.01)
    assert not is_stable(turns_of([1.6] * 6 + [1.625] * 6), 0.01)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
def test_every_variant_follows_every_other_equally_often_and_holds_each_place_equally_often(size):
    names = [str(number) for number in range(size)]
    rows = [row for row, _ in zip(orders(names), range(2 * size), strict=False)]
    assert all(sorted(row) == names for row in rows)
    assert all(rows[k] == rows[k + 1][::-1] for k in range(0, 2 * size, 2))
    places = Counter((place, name) for row in rows for place, name in enumerate(row))
    follows = Counter(pair for row in rows for pair in pairwise(row))
    assert set(places.values()) == {2}
    assert len(follows) == size * (size - 1)
    assert len(set(follows.values())) <= 1


def test_the_garbage_collector_pauses_and_comes_back_even_after_an_error():
    seen = []

    def fails():
        seen.append(gc.isenabled())
        raise OSError("the server is gone")

    assert gc.isenabled()
    with pytest.raises(OSError, match="the server is gone"):
        compare_calls({"float": fails}, baseline="float")
    assert seen == [False]
    assert gc.isenabled()


def test_real_runners_are_run_on_the_inputs():
    def slow(x):
        return {"scores": np.linalg.matrix_power(np.eye(60) + x[0, 0], 200)[: len(x), :10]}

    runners = {"float": FakeRunner(slow), "int8": FakeRunner(lambda x: {"scores": x})}
    seen = []
    report = compare_latency(
        runners,
        {"x": np.zeros((4, 10), np.float32)},
        baseline="float",
        plan=LatencyPlan(max_rounds=10, min_rounds=10, max_seconds=5),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert set(runners["int8"].sizes) == {4}
    assert report.latencies["int8"].speedup > 1
    assert seen[-1] == (report.rounds, 10)
    assert seen == sorted(seen)


def test_a_baseline_that_is_not_measured_is_refused():
    with pytest.raises(RecipeError, match=r"baseline 'fp32': expected one of \['float', 'int8', 'part'\]"):
        compare_calls(FakeClock(TIMES).calls(), baseline="fp32")


def test_a_plan_knows_its_keys_and_bounds():
    with pytest.raises(ValidationError):
        LatencyPlan(calls_per_turn=1)
    with pytest.raises(ValidationError):
        LatencyPlan(rounds=3)
