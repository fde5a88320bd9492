"""The search over layers: its front, its moves, and how near it comes to trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.compress.quantization.search import Point, Search, pareto, spread

NAMES = [f"layer{index}" for index in range(10)]


def chain(seed):
    """Ten layers in a row with random gains and damages, and a cost wherever neighbours differ."""
    generator = np.random.default_rng(seed)
    gains = dict(zip(NAMES, generator.uniform(0.2, 1.0, len(NAMES)), strict=True))
    damages = dict(zip(NAMES, generator.lognormal(0, 1.5, len(NAMES)), strict=True))

    def cost(layers):
        inside = [name in layers for name in NAMES]
        borders = sum(left != right for left, right in itertools.pairwise([False, *inside, False]))
        return 20.0 - sum(gains[name] for name in layers) + 0.4 * borders

    return damages, cost


def every_choice(damages, cost):
    for size in range(len(NAMES) + 1):
        for chosen in itertools.combinations(NAMES, size):
            layers = frozenset(chosen)
            yield Point(layers, cost(layers), sum(damages[name] for name in layers))


points = st.builds(
    Point,
    st.frozensets(st.sampled_from(NAMES)),
    st.floats(0.1, 10, allow_nan=False),
    st.floats(0, 10, allow_nan=False),
)


@given(st.lists(points, min_size=1, max_size=30))
def test_no_point_of_a_front_is_beaten_and_every_other_point_is(found):
    front = pareto(found)
    for left, right in itertools.pairwise(front):
        assert left.cost < right.cost or (left.cost == right.cost and left.damage < right.damage)
        assert left.damage > right.damage
    for point in found:
        assert any(best.cost <= point.cost and best.damage <= point.damage for best in front)


@pytest.mark.parametrize("seed", range(6))
def test_front_comes_near_to_that_of_every_choice(seed):
    """For every choice on the exact front there is one as cheap to 2 %, with at most 1 dB more damage."""
    damages, cost = chain(seed)
    found = Search(NAMES, damages, cost).front()
    for exact in pareto(every_choice(damages, cost)):
        allowed = exact.damage * 10**0.1 + 1e-12
        assert any(point.cost <= 1.02 * exact.cost and point.damage <= allowed for point in found), exact


def test_front_holds_both_ends():
    damages, cost = chain(0)
    front = Search(NAMES, damages, cost).front()
    assert front[-1].layers == frozenset()
    assert front[0].cost == min(point.cost for point in every_choice(damages, cost))


def test_spread_keeps_the_ends_and_leaves_the_untouched_model_out():
    damages, cost = chain(1)
    front = Search(NAMES, damages, cost).front()
    few = spread(front, 4)
    assert len(few) <= 4
    assert few[0] == front[0]
    assert few[-1] == front[-2]
    assert all(point.layers for point in few)


def test_neighbours_are_cheaper_and_sorted_by_damage_per_gain():
    damages, cost = chain(2)
    search = Search(NAMES, damages, cost)
    start = search.price(frozenset(NAMES[:3]))
    found = search.neighbours(start)
    rates = [(point.damage - start.damage) / (start.cost - point.cost) for point in found]
    assert found
    assert all(point.cost < start.cost and start.layers < point.layers for point in found)
    assert rates == sorted(rates)
