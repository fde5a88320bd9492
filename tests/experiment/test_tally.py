"""What is counted: scores in bins, sums, and units that are not known yet."""

from __future__ import annotations

import pytest
from ab_cases import tallies
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.errors import InputError
from jettison.experiment.evidence import outcomes_against, outcomes_for
from jettison.experiment.tally import (
    Arms,
    Tally,
    bin_of,
    scores_at_least,
    scores_at_most,
    unit_tally,
)


@given(st.floats(-1, 1))
def test_a_score_lies_in_its_bin_which_is_a_thousandth_wide_at_most(score):
    tally = unit_tally(score)
    low = [value for value, count in outcomes_against(tally) if count]
    high = [value for value, count in outcomes_for(tally) if count]
    assert len(low) == len(high) == 1
    assert low[0] <= score <= high[0]
    assert high[0] - low[0] < 0.00101


@pytest.mark.parametrize("thousandths", [-1000, -667, -1, 0, 1, 290, 600, 1000])
def test_whole_thousandths_are_kept_as_they_are(thousandths):
    score = thousandths / 1000
    tally = unit_tally(score)
    assert [v for v, count in outcomes_against(tally) if count] == [score]
    assert [v for v, count in outcomes_for(tally) if count] == [score]


def test_a_third_is_counted_between_two_thousandths():
    tally = unit_tally(-1 / 3)
    assert scores_at_least(tally) == [(-0.334, 1)]
    assert scores_at_most(tally) == [(-0.333, 1)]


@pytest.mark.parametrize(
    ("score", "tally"), [(1, Tally(better=1)), (0, Tally(same=1)), (-1.0, Tally(worse=1))]
)
def test_whole_scores_are_the_three_counters(score, tally):
    assert unit_tally(score) == tally


@pytest.mark.parametrize("score", [1.01, -2, float("nan"), float("inf")])
def test_a_score_out_of_range_is_refused(score):
    with pytest.raises(InputError, match=r"expected a number from -1 \(worse\) to 1 \(better\), found"):
        bin_of(score)


@given(tallies, tallies, tallies)
def test_sums_are_the_same_in_any_order(one, two, three):
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Tally() == one


@given(tallies, tallies)
def test_a_sum_holds_its_parts(one, two):
    assert one.is_within(one + two)
    assert (one + two).judged == one.judged + two.judged


def test_a_fallen_count_is_not_within():
    assert not Tally(scores=((5, 2),)).is_within(Tally(scores=((5, 1), (7, 9))))
    assert not Tally(arms=((5000, Arms(1)),)).is_within(Tally(better=9))


def test_units_that_were_asked_and_not_judged_are_pending():
    tally = Tally(
        same=90, better=1, worse=2, agree=90, disagree=8, offered=105, baseline_lost=2, candidate_lost=3
    )
    # 103 had an answer of the baseline, 3 of them none of the candidate, 93 are judged
    assert tally.pending == 7


def test_disagreements_without_labels_are_pending_where_nothing_counts_offers():
    assert Tally(same=90, agree=90, disagree=8).pending == 8
    assert Tally(same=90, worse=8, agree=90, disagree=8).pending == 0


def test_labels_that_come_before_their_disagreement_are_no_debt():
    assert Tally(worse=3).pending == 0


def test_unanswered_units_are_those_of_which_nothing_is_known():
    assert Tally(offered=10, agree=6, disagree=1, baseline_lost=1, candidate_lost=1).unanswered == 1
