"""Joint evaluations: what is judged, in which order, and what is answered when they are cut short."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.compress.passes import Measurement
from jettison.compress.quantization.search import Point, Search
from jettison.compress.quantization.trial import Trial

NAMES = tuple("abcdefghij")


def front_of(length):
    """Choices of ever fewer layers: dearer, and with less damage."""
    return [
        Point(frozenset(NAMES[: length - index]), float(index + 1), float(length - index))
        for index in range(length)
    ]


class Judged:
    """A trial whose choices hold up to so many layers; remembers in which order they were judged."""

    def __init__(self, most, *, budget=12, evaluations_in_time=10**6, **figures):
        self.most, self.figures, self.order = most, figures, []
        self.trial = Trial(
            self.judge, 0.01, budget, is_out_of_time=lambda: len(self.order) >= evaluations_in_time
        )

    def judge(self, layers):
        self.order.append(len(layers))
        lost = 0.0 if len(layers) <= self.most else -0.5
        found = {"score_delta": lost, "score_delta_low": lost, "sqnr_db": None, **self.figures}
        return Measurement(**found)


@given(st.integers(1, 10), st.integers(0, 10))
def test_the_cheapest_choice_that_holds_is_found_and_no_choice_is_judged_twice(length, most):
    judged = Judged(most)
    found = judged.trial.fastest(front_of(length))
    assert (0 if found is None else len(found.layers)) == min(most, length)
    assert len(judged.order) == len(set(judged.order)) <= 1 + length.bit_length()
    assert judged.order[0] == length
    assert not judged.trial.is_incomplete


def test_where_the_cheapest_choice_holds_nothing_else_is_judged():
    judged = Judged(most=10)
    assert judged.trial.fastest(front_of(10)) == front_of(10)[0]
    assert judged.order == [10]


@given(st.integers(2, 10), st.integers(0, 10), st.integers(2, 5))
def test_budget_is_kept_and_its_last_evaluation_is_for_the_least_damage(length, most, budget):
    judged = Judged(most, budget=budget)
    found = judged.trial.fastest(front_of(length))
    assert len(judged.order) <= budget
    assert (found is None) == (most == 0)
    assert found is None or len(found.layers) <= most
    assert not judged.trial.is_cut_short


@pytest.mark.parametrize("most", [0, 1])
def test_out_of_time_the_least_damage_is_judged_and_nothing_beside_it(most):
    judged = Judged(most, evaluations_in_time=1)
    found = judged.trial.fastest(front_of(10))
    assert judged.order == [10, 1]
    assert found == (front_of(10)[-1] if most else None)
    assert judged.trial.is_cut_short
    assert judged.trial.is_incomplete


def test_out_of_time_the_best_choice_known_is_taken():
    judged = Judged(most=6, evaluations_in_time=2)
    found = judged.trial.fastest(front_of(10))
    assert judged.order == [10, 5]
    assert found is not None
    assert len(found.layers) == 5
    assert judged.trial.is_cut_short


def search_with(costs, damages):
    """Every layer with its own cost in float, nothing in integers."""
    return Search(
        tuple(costs), damages, lambda layers: sum(cost for name, cost in costs.items() if name not in layers)
    )


def test_a_further_layer_is_taken_back_into_integers_where_that_holds():
    """Layers a, b and c with growing damage: from a alone, both others are tried, the harmless one first."""
    search = search_with({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.1, "b": 0.2, "c": 0.3})
    judged = Judged(most=2)
    start = search.price(frozenset("a"))
    found = judged.trial.take_back(start, search)
    assert found.layers == frozenset("ab")
    assert found.cost < start.cost
    assert all(count > 1 for count in judged.order)


def test_nothing_is_taken_back_where_nothing_more_holds():
    search = search_with({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.1, "b": 0.2, "c": 0.3})
    judged = Judged(most=1)
    start = search.price(frozenset("a"))
    assert judged.trial.take_back(start, search) == start
    assert judged.order, "but it was tried"


@pytest.mark.parametrize(("limits", "tried"), [({"budget": 3}, 3), ({"evaluations_in_time": 2}, 2)])
def test_taking_back_ends_with_the_evaluations_and_with_the_time(limits, tried):
    costs = dict.fromkeys(NAMES, 1.0)
    search = search_with(costs, costs)
    judged = Judged(most=1, **limits)
    judged.trial.take_back(search.price(frozenset("a")), search)
    assert len(judged.order) == tried
    assert judged.trial.is_cut_short == ("evaluations_in_time" in limits)


def test_a_dearer_neighbour_of_a_better_choice_is_not_judged():
    """Once c is in, which saves most, adding b alone to the start would be a step back."""
    search = search_with({"a": 1.0, "b": 1.0, "c": 5.0}, {"a": 0.1, "b": 0.2, "c": 0.2})
    judged = Judged(most=2)
    found = judged.trial.take_back(search.price(frozenset("a")), search)
    assert found.layers == frozenset("ac")
    judged_sets = list(judged.trial.measured)
    assert frozenset("ab") not in judged_sets


@pytest.mark.parametrize(
    ("low", "best_low", "delta", "holds", "few"),
    [
        (-0.005, -0.002, -0.001, True, False),
        (-0.02, -0.002, -0.001, False, False),
        (-0.02, -0.015, -0.001, True, True),
        (-0.03, -0.015, -0.02, False, True),
        (-0.01, -0.01, -0.01, True, False),
    ],
)
def test_the_lower_bound_decides_unless_no_choice_could_prove_it(low, best_low, delta, holds, few):
    judged = Judged(10, score_delta_low=low, best_low=best_low, score_delta=delta)
    assert judged.trial.holds(front_of(1)[0]) is holds
    assert judged.trial.are_too_few is few


def test_points_of_the_front_used_here_are_a_front():
    for left, right in itertools.pairwise(front_of(10)):
        assert left.cost < right.cost
        assert left.damage > right.damage
