"""Decisions: what promotes, what stops, what makes a comparison worthless, and which of them comes first."""

from __future__ import annotations

import pytest
from ab_cases import BASELINE, counted, rules, settings, tallies, totals
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from jettison.core.errors import InputError
from jettison.experiment.tally import Arms, Tally
from jettison.experiment.verdict import decide

PROVEN = Tally(better=60, same=2900, worse=55)
HARMED = Tally(better=5, same=500, worse=55)
LATENCY = {"limit_ms": 50, "quantile": 0.99}
SKEWED = ((5000, Arms(baseline_units=600, candidate_units=400)),)
FAILING = ((5000, Arms(baseline_errors=5, candidate_errors=40)),)


def values(verdict):
    return {entry.name: entry for entry in verdict.e_values}


@pytest.mark.parametrize(
    ("counts", "decision"),
    [
        ((60, 2900, 55), "promote"),
        ((48, 3000, 52), "continue"),
        ((5, 500, 35), "rollback"),
        ((0, 461, 0), "continue"),
        ((0, 462, 0), "promote"),
        ((0, 0, 0), "continue"),
    ],
)
def test_three_counters_decide(counts, decision):
    assert decide(rules(), totals(*counts)).decision == decision


def test_a_verdict_says_why_in_words():
    assert decide(rules(), counted(PROVEN)).reasons == (
        "the candidate is worse by less than 0.01 on average: e = 50.65, where 20 is asked",
    )
    assert decide(rules(), counted(HARMED)).reasons == (
        "the candidate is worse by more than 0.01 on average: e = 3.881e+07, where 20 is asked",
    )
    assert decide(rules(), totals()).reasons == (
        "not proven yet: the candidate is worse by less than 0.01 on average: e = 1, where 20 is asked",
    )


def test_at_the_last_unit_without_proof_it_is_exhausted_and_not_promoted():
    verdict = decide(rules(max_units=3100), totals(48, 3000, 52))
    assert verdict.decision == "exhausted"
    assert verdict.reasons[0] == "3100 units are judged, max_units is 3100"
    assert verdict.reasons[1].startswith("not proven yet: the candidate is worse by less than 0.01")


def test_a_proof_at_the_last_unit_still_promotes():
    assert decide(rules(max_units=462), totals(0, 462, 0)).decision == "promote"


def test_no_promotion_before_min_units_but_a_rollback():
    verdict = decide(rules(min_units=5000), counted(PROVEN))
    assert verdict.decision == "continue"
    assert verdict.reasons == ("3015 units are judged, min_units is 5000",)
    assert decide(rules(min_units=5000), counted(HARMED)).decision == "rollback"


def test_disagreements_without_a_label_count_as_worse_until_they_have_one():
    waiting = Tally(better=40, same=2900, worse=35, agree=2900, disagree=115)
    verdict = decide(rules(), counted(waiting))
    assert (verdict.decision, verdict.pending) == ("continue", 40)
    assert "40 units wait for a label or an answer, and count as worse until then" in verdict.reasons
    labelled = waiting + Tally(better=20, worse=20)
    assert decide(rules(), counted(labelled)).decision == "promote"
    assert decide(rules(), counted(labelled)).e_values == decide(rules(), counted(PROVEN)).e_values


def test_missing_labels_do_not_roll_back():
    assert decide(rules(), counted(Tally(same=500, agree=500, disagree=60))).decision == "continue"
    assert decide(rules(), counted(Tally(same=500, worse=60))).decision == "rollback"


def test_a_lost_answer_of_the_candidate_is_a_worse_unit():
    lost = Tally(same=500, offered=600, candidate_lost=55)
    told = values(decide(rules(max_loss=0.5), counted(lost + Tally(same=45))))
    worse = values(decide(rules(), counted(Tally(same=545, worse=55))))
    for name in ("quality", "quality-against"):
        assert told[name].log_e == pytest.approx(worse[name].log_e)


def test_answers_that_never_come_cannot_promote():
    """A candidate that hangs on hard inputs is judged on the easy ones, and must not gain by it."""
    assert decide(rules(), counted(Tally(same=470, agree=470, offered=470))).decision == "promote"
    assert decide(rules(), counted(Tally(same=470, agree=470, offered=490))).decision == "continue"


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_lost_answers_make_a_comparison_invalid(arm):
    tally = PROVEN + Tally(offered=3500, **{f"{arm}_lost": 200})
    verdict = decide(rules(), counted(tally))
    assert verdict.decision == "invalid"
    assert f"answers of the {arm} are missing for more than 1% of the units: e = " in verdict.reasons[0]
    assert "begin anew" in verdict.reasons[-1]


def test_a_skewed_split_is_invalid_and_never_promotes():
    verdict = decide(rules(), counted(PROVEN + Tally(arms=SKEWED)))
    assert verdict.decision == "invalid"
    assert "the traffic was not split as planned: e = " in verdict.reasons[0]


def test_a_skewed_split_is_judged_by_each_weight_of_a_ramp():
    ramp = ((1000, Arms(baseline_units=900, candidate_units=100)), (5000, Arms(500, 500)))
    assert decide(rules(), counted(PROVEN + Tally(arms=ramp))).decision == "promote"


def test_an_invalid_comparison_does_not_roll_back_for_quality_but_says_so():
    verdict = decide(rules(), counted(HARMED + Tally(arms=SKEWED)))
    assert verdict.decision == "invalid"
    assert "the candidate is worse by more than 0.01" in verdict.reasons[1]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (Tally(within_limit=900, over_limit=100), "more than 1% of the candidate's answers take over 50 ms"),
        (Tally(within_limit=9, arms=FAILING), "the candidate fails more often than the baseline"),
    ],
)
def test_a_guard_rolls_back_even_an_invalid_comparison(harm, words):
    asked = rules(latency=LATENCY, guard_errors=True)
    verdict = decide(asked, counted(PROVEN + harm + Tally(arms=SKEWED)))
    assert verdict.decision == "rollback"
    assert words in verdict.reasons[0]
    assert "the traffic was not split as planned" in verdict.reasons[1]


def test_a_configured_guard_that_has_seen_nothing_holds_a_promotion():
    asked = rules(latency=LATENCY, slices=[{"name": "night", "margin": 0.05}])
    verdict = decide(asked, counted(PROVEN))
    assert verdict.decision == "continue"
    assert verdict.reasons == (
        "the latency guard has seen no request",
        "no unit of the slice 'night' is judged",
    )
    seen = counted(PROVEN + Tally(within_limit=100), night=Tally(same=1))
    assert decide(asked, seen).decision == "promote"


def test_a_slice_rolls_back_what_is_good_on_the_whole():
    asked = rules(slices=[{"name": "night", "margin": 0.02}, {"name": "day", "margin": 0.02}])
    night = Tally(better=2, same=200, worse=30)
    verdict = decide(asked, counted(PROVEN, night=night, day=PROVEN))
    assert verdict.decision == "rollback"
    assert verdict.reasons[0].startswith("in night the candidate is worse by more than 0.02 on average: e = ")
    assert values(verdict)["slice-night-against"].threshold == pytest.approx(40)  # two guards share 0.05


def test_a_slice_may_have_to_be_proven_too():
    asked = rules(slices=[{"name": "night", "margin": 0.1, "proof": True}])
    held = decide(asked, counted(PROVEN, night=Tally(same=5)))
    assert held.decision == "continue"
    assert held.reasons[0].startswith("not proven yet: in night the candidate is worse by less than 0.1")
    assert decide(asked, counted(PROVEN, night=Tally(same=100))).decision == "promote"


def test_latency_may_have_to_be_proven_too():
    asked = rules(latency=LATENCY | {"proven_quantile": 0.97})
    held = decide(asked, counted(PROVEN + Tally(within_limit=50)))
    assert held.decision == "continue"
    assert "less than 3% of the candidate's answers take over 50 ms" in held.reasons[0]
    assert decide(asked, counted(PROVEN + Tally(within_limit=990, over_limit=5))).decision == "promote"


def test_agreement_alone_promotes_without_labels():
    asked = rules(evidence="agreement")
    verdict = decide(asked, counted(Tally(agree=440)))
    assert verdict.decision == "promote"
    assert "the two answer differently on less than 0.01 of the units" in verdict.reasons[0]
    assert verdict.estimates.difference is None
    assert 0 < verdict.estimates.disagreement.high < 0.01


def test_disagreement_without_labels_ends_with_what_to_do():
    verdict = decide(rules(evidence="agreement", max_units=2000), counted(Tally(agree=1900, disagree=100)))
    assert verdict.decision == "exhausted"
    assert "label the disagreements, and set evidence: labels" in verdict.reasons[-1]


def test_answers_under_way_count_as_different():
    assert decide(rules(evidence="agreement"), counted(Tally(agree=440, offered=450))).decision == "continue"


def aa(**changed):
    return settings(is_aa=True, candidate=BASELINE, guard_errors=False, **changed)


def test_an_a_a_experiment_promotes_nothing():
    asked = aa()
    verdict = decide(asked, counted(Tally(same=470), experiment=asked.id))
    assert verdict.decision == "exhausted"
    assert verdict.reasons[0] == "A/A passed: there is nothing to promote"


@pytest.mark.parametrize(("side", "word"), [("better", "better"), ("worse", "worse")])
def test_a_model_that_differs_from_itself_is_a_fault_of_the_road(side, word):
    asked = aa()
    verdict = decide(asked, counted(Tally(same=400, **{side: 40}), experiment=asked.id))
    assert verdict.decision == "invalid"
    assert f"the model is {word} than itself: e = " in verdict.reasons[0]


def test_an_a_a_experiment_is_as_watchful_to_either_side():
    asked = aa()
    one, other = (
        decide(asked, counted(tally, experiment=asked.id)) for tally in (Tally(9, 90, 2), Tally(2, 90, 9))
    )
    assert values(one)["itself-better"].log_e == pytest.approx(values(other)["itself-worse"].log_e)
    assert values(one)["itself-better"].threshold == pytest.approx(40)


def test_counters_of_another_experiment_are_refused():
    with pytest.raises(InputError, match=r"expected counters of experiment '[0-9a-f]{32}', found 'other'"):
        decide(settings(), counted(PROVEN, experiment="other"))


@hypothesis_settings(max_examples=60)
@given(tallies, tallies)
def test_a_fractional_score_moves_a_verdict_as_its_neighbours_do(first, second):
    """Two thirds of a worse unit lie between no and one worse unit, in both tests."""
    asked, both = rules(), first + second
    middle = values(decide(asked, counted(both + Tally(scores=((-1333, 1),)))))
    none, one = (values(decide(asked, counted(both + more))) for more in (Tally(same=1), Tally(worse=1)))
    assert one["quality"].log_e < middle["quality"].log_e < none["quality"].log_e
    assert none["quality-against"].log_e < middle["quality-against"].log_e < one["quality-against"].log_e


def test_the_estimate_lies_between_its_bounds_and_holds_fractions():
    verdict = decide(rules(), counted(Tally(better=1, same=98, scores=((-1000, 1),))))
    difference = verdict.estimates.difference
    assert difference.value == pytest.approx((1 - 0.5) / 100)
    assert difference.low < difference.value < difference.high
