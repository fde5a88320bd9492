"""Laws of the e-processes: expectation at most 1 under the hypothesis, sums over nodes, stable logarithms."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.experiment.eprocess import (
    BET_FACTORS,
    HIGHER_ODDS,
    LARGEST_STAKE,
    LOWER_ODDS,
    bet_sizes,
    e_value,
    log_e_above,
    log_e_below,
    log_e_rate,
    log_mean_exp,
    log_wealths_above,
)
from jettison.experiment.mismatch import log_e_split

ITEMS = 6
"""3^6 = 729 and 2^6 = 64 sequences are enumerated, each with its probability."""

ROUNDING = 1e-12
"""Sums of some hundred products near 1."""


def outcomes(better, same, worse):
    return [(1.0, better), (0.0, same), (-1.0, worse)]


def expectation_of_units(log_e, mean, disagreement):
    """E[e] after six units, by enumeration."""
    chances = {1: (disagreement + mean) / 2, 0: 1 - disagreement, -1: (disagreement - mean) / 2}
    total = 0.0
    for units in itertools.product(chances, repeat=ITEMS):
        probability = math.prod(chances[unit] for unit in units)
        counts = [(float(score), units.count(score)) for score in chances]
        total += probability * math.exp(log_e(counts))
    return total


def expectation_of_events(log_e, probability):
    total = 0.0
    for events in range(ITEMS + 1):
        chance = math.comb(ITEMS, events) * probability**events * (1 - probability) ** (ITEMS - events)
        total += chance * math.exp(log_e(events, ITEMS))
    return total


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.2, 0.9])
@pytest.mark.parametrize("planned", [0.01, 0.04, 0.5, 1.0])
def test_quality_expects_just_one_at_the_margin_whatever_was_planned(margin, planned):
    bets = bet_sizes(margin, planned)
    for log_e in (log_e_above, log_e_below):
        found = expectation_of_units(lambda some, e=log_e: e(some, mean=-margin, bets=bets), -margin, 0.95)
        assert found == pytest.approx(1, abs=ROUNDING)


@pytest.mark.parametrize("excess", [0.001, 0.01, 0.04])
def test_quality_expects_less_than_one_inside_its_hypothesis_and_more_outside(excess):
    bets = bet_sizes(0.01, 0.05)

    def above(some):
        return log_e_above(some, mean=-0.01, bets=bets)

    def below(some):
        return log_e_below(some, mean=-0.01, bets=bets)

    worse, better = -0.01 - excess, -0.01 + excess
    assert expectation_of_units(above, worse, 0.06) < 1 < expectation_of_units(above, better, 0.06)
    assert expectation_of_units(below, better, 0.06) < 1 < expectation_of_units(below, worse, 0.06)


def test_quality_is_the_formula_of_the_method():
    margin, planned, (better, same, worse) = 0.01, 0.04, (7, 300, 4)
    wealths = []
    for factor in (0.5, 1, 2, 4):
        bet = min(factor * margin / planned, 0.9 / (1 - margin))
        wealths.append(
            (1 + bet * (1 + margin)) ** better
            * (1 + bet * margin) ** same
            * (1 + bet * (margin - 1)) ** worse
        )
    found = log_e_above(outcomes(better, same, worse), mean=-margin, bets=bet_sizes(margin, planned))
    assert found == pytest.approx(math.log(sum(wealths) / 4), abs=1e-12)


def test_bets_never_stake_more_than_nine_tenths():
    lost = log_wealths_above([(-1.0, 1)], mean=-0.5, bets=bet_sizes(0.5, 0.01))
    assert [math.exp(value) for value in lost] == pytest.approx([1 - LARGEST_STAKE] * len(BET_FACTORS))


def test_without_disagreement_it_takes_about_five_units_a_margin():
    bets = bet_sizes(0.01, 0.04)
    first = next(n for n in range(1000) if log_e_above([(0.0, n)], mean=-0.01, bets=bets) >= math.log(20))
    assert first == 462  # 4.6 / margin


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("odds", [HIGHER_ODDS, LOWER_ODDS])
def test_rate_expects_just_one_at_its_border(probability, odds):
    found = expectation_of_events(lambda k, n: log_e_rate([(probability, k, n)], odds), probability)
    assert found == pytest.approx(1, abs=ROUNDING)


@pytest.mark.parametrize("odds", [HIGHER_ODDS, LOWER_ODDS])
def test_rate_expects_less_than_one_on_its_side(odds):
    inside, outside = (0.02, 0.1) if odds is HIGHER_ODDS else (0.1, 0.02)

    def log_e(events, trials):
        return log_e_rate([(0.05, events, trials)], odds)

    assert expectation_of_events(log_e, inside) < 1 < expectation_of_events(log_e, outside)


def test_rate_is_a_mixture_of_likelihood_ratios():
    null, events, trials = 0.03, 5, 40
    ratios = []
    for odds in HIGHER_ODDS:
        share = odds * null / (1 - null + odds * null)
        ratios.append((share / null) ** events * ((1 - share) / (1 - null)) ** (trials - events))
    found = log_e_rate([(null, events, trials)], HIGHER_ODDS)
    assert found == pytest.approx(math.log(sum(ratios) / len(ratios)), abs=1e-12)


def test_stages_of_a_ramp_multiply_within_each_alternative():
    def alternatives(*trials):
        return [log_e_rate(trials, (odds,)) for odds in HIGHER_ODDS]

    early, late = (0.1, 3, 20), (0.5, 30, 50)
    sums = [one + other for one, other in zip(alternatives(early), alternatives(late), strict=True)]
    assert log_e_rate([early, late], HIGHER_ODDS) == pytest.approx(log_mean_exp(sums), abs=1e-12)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_stage_without_choice_tells_nothing(probability):
    assert log_e_rate([(probability, 5, 5)], HIGHER_ODDS) == 0


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.97])
def test_split_expects_just_one_under_the_planned_share(share):
    found = expectation_of_events(lambda k, n: log_e_split([(share, k, n)]), share)
    assert found == pytest.approx(1, abs=1e-9)  # ln Gamma of 10,000 has eleven digits after the point


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_split_is_a_martingale_from_any_state(share):
    """The mean over the next unit is the e-value before it: what makes it safe to look whenever one likes."""
    for candidate, units in ((0, 0), (3, 10), (40, 60)):
        before = math.exp(log_e_split([(share, candidate, units)]))
        given = math.exp(log_e_split([(share, candidate + 1, units + 1)]))
        kept = math.exp(log_e_split([(share, candidate, units + 1)]))
        assert share * given + (1 - share) * kept == pytest.approx(before, rel=1e-9)


def test_split_over_stages_is_their_product_for_each_prior():
    both = log_e_split([(0.1, 10, 100), (0.5, 52, 100)])
    assert log_e_split([(0.5, 52, 100), (0.1, 10, 100)]) == pytest.approx(both, abs=1e-9)
    assert log_e_split([(0.1, 0, 0), (0.5, 52, 100)]) == log_e_split([(0.5, 52, 100)])
    assert log_e_split([]) == 0


counts = st.tuples(*[st.integers(0, 1000)] * 3)


@given(counts, counts)
def test_wealths_of_two_nodes_add_up(first, second):
    bets = bet_sizes(0.01, 0.04)
    one, other, both = (
        log_wealths_above(outcomes(*some), mean=-0.01, bets=bets)
        for some in (first, second, [a + b for a, b in zip(first, second, strict=True)])
    )
    assert [a + b for a, b in zip(one, other, strict=True)] == pytest.approx(list(both), abs=1e-9)


@given(st.lists(st.floats(-1, 1, allow_nan=False), max_size=30), st.floats(0.001, 0.5))
def test_scores_of_units_add_up_in_any_grouping(scores, margin):
    bets = bet_sizes(margin, 0.1)
    alone = [log_wealths_above([(score, 1)], mean=-margin, bets=bets) for score in scores]
    together = log_wealths_above([(score, 1) for score in scores], mean=-margin, bets=bets)
    sums = [math.fsum(wealths[place] for wealths in alone) for place in range(len(bets))]
    assert sums == pytest.approx(list(together), abs=1e-9)


@given(counts, st.floats(0.001, 0.3))
def test_a_better_unit_never_speaks_against_and_a_worse_never_for(some, margin):
    better, same, worse = some
    bets = bet_sizes(margin, 0.05)

    def both(*counted):
        told = outcomes(*counted)
        return log_e_above(told, mean=-margin, bets=bets), log_e_below(told, mean=-margin, bets=bets)

    above, below = both(better, same, worse)
    assert both(better + 1, same, worse)[0] > above > both(better, same, worse + 1)[0]
    assert both(better + 1, same, worse)[1] < below < both(better, same, worse + 1)[1]


@pytest.mark.parametrize("million", [1, 1000])
def test_counts_of_a_billion_keep_the_sign_and_the_scale(million):
    bets, n = bet_sizes(0.01, 0.04), million * 10**6
    equal = log_e_above(outcomes(n // 50, n - n // 25, n // 50), mean=-0.01, bets=bets)
    growth = max(
        0.02 * math.log1p(bet * 1.01) + 0.96 * math.log1p(bet * 0.01) + 0.02 * math.log1p(bet * -0.99)
        for bet in bets
    )
    assert equal == pytest.approx(growth * n - math.log(4), rel=1e-9)  # only the best bet is left of four
    border = outcomes(3 * n // 200, n - n // 25, 5 * n // 200)
    assert log_e_above(border, mean=-0.01, bets=bets) < 0
    assert log_e_below(border, mean=-0.01, bets=bets) < 0
    assert log_e_rate([(0.01, n // 50, n)], HIGHER_ODDS) / n == pytest.approx(0.003914, rel=1e-2)
    assert abs(log_e_split([(0.5, n // 2, n)])) < 20  # ln(n / concentration) / 2 and less: nothing wrong


def test_the_e_value_stays_a_number_of_json():
    assert e_value(1e9) == e_value(1e12) < math.inf
    assert e_value(-1e9) == 0
    assert e_value(math.log(20)) == pytest.approx(20)


def test_the_mean_of_logarithms_survives_any_size():
    assert log_mean_exp([5000.0, 5000.0]) == pytest.approx(5000)
    assert log_mean_exp([5000.0, -5000.0]) == pytest.approx(5000 - math.log(2))
    assert log_mean_exp([-math.inf, -math.inf]) == -math.inf
