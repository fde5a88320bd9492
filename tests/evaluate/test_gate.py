from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jettison.core.errors import RecipeError
from jettison.evaluate.gate import Candidate, Evidence, Gate, choose, judge, samples_needed
from jettison.evaluate.interval import paired_interval
from jettison.evaluate.portability import Portability
from jettison.evaluate.speed import Latency

GATE = Gate()


def interval(worse: int = 0, samples: int = 2000, better: int = 0, confidence: float = 0.95):
    variant, baseline = np.zeros(samples), np.zeros(samples)
    variant[:better] = 1
    baseline[better : better + worse] = 1
    return paired_interval(variant, baseline, confidence=confidence)


def speed(times: float, margin: float = 0.01) -> Latency:
    return Latency("int8", 5.0, 6.0, times, times - margin, times + margin, 100)


def evidence(**changes) -> Evidence:
    values = {"interval": interval(), "size_bytes": 25, "baseline_size_bytes": 100, "speed": speed(1.5)}
    return Evidence(**(values | changes))


def test_a_good_variant_is_accepted_with_the_figures_that_speak_for_it():
    report = judge(GATE, evidence(compiles=True))
    assert report.accepted
    assert report.reasons == (
        "score +0, at worst -0.001497 at 95% confidence: within the tolerance of 0.01",
        "1.50 times the baseline's speed",
        "0.25 of the baseline's size",
        "compiles for the target",
    )


def test_a_loss_beyond_the_tolerance_is_refused():
    report = judge(GATE, evidence(interval=interval(worse=50)))
    assert not report.accepted
    assert report.reasons == (
        "score -0.025 on 2000 samples (50 worse, 0 better): more than the tolerance of 0.01",
    )


def test_too_few_samples_refuse_and_say_how_many_it_takes():
    report = judge(GATE, evidence(interval=interval(samples=100)))
    assert report.reasons == (
        "score +0 on 100 samples (0 worse, 0 better), but a loss of up to 0.02951 cannot be excluded "
        "at 95% confidence: more than the tolerance of 0.01; "
        "even without any difference that takes about 299 samples",
    )
    assert judge(GATE, evidence(interval=interval(samples=299))).accepted
    assert not judge(GATE, evidence(interval=interval(samples=298))).accepted


@given(st.floats(0.001, 0.2), st.floats(0.6, 0.999))
@settings(max_examples=30, deadline=None)
def test_the_samples_needed_are_exactly_enough_where_nothing_differs(tolerance, confidence):
    gate = Gate(tolerance=tolerance, confidence=confidence)
    needed = samples_needed(gate)
    enough = interval(samples=needed + 1, confidence=confidence)
    assert judge(gate, evidence(interval=enough)).accepted
    if needed > 1:
        assert not judge(
            gate, evidence(interval=interval(samples=needed - 1, confidence=confidence))
        ).accepted


def test_no_number_of_samples_proves_a_tolerance_of_zero():
    assert samples_needed(Gate(tolerance=0)) is None
    assert samples_needed(Gate(tolerance=1)) is None
    assert not judge(Gate(tolerance=0), evidence()).accepted
    assert judge(Gate(tolerance=0), evidence(interval=interval(better=200, samples=2000))).accepted


@given(st.integers(1, 5000), st.floats(0.55, 0.999), st.data())
@settings(max_examples=40, deadline=None)
def test_a_tolerance_of_zero_is_never_proven_where_nothing_gets_better_and_the_reason_says_so(
    samples, confidence, data
):
    gate = Gate(tolerance=0, confidence=confidence)
    found = interval(samples=samples, worse=0, confidence=confidence)
    (reason,) = judge(gate, evidence(interval=found)).reasons
    assert reason.endswith(
        "more than the tolerance of 0; no number of samples proves a tolerance of 0 unless the score rises: "
        "give one above 0"
    )
    scores = np.array(data.draw(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=40)))
    worse = np.array(data.draw(st.lists(st.floats(0, 0.1), min_size=scores.size, max_size=scores.size)))
    continuous = paired_interval(scores - worse, scores, confidence=confidence)
    assert not judge(gate, evidence(interval=continuous)).accepted


def test_a_tolerance_of_zero_is_said_to_need_a_rising_score_where_some_samples_do_get_better():
    (reason,) = judge(Gate(tolerance=0), evidence(interval=interval(better=9, worse=9))).reasons
    assert reason.endswith("unless the score rises: give one above 0")
    assert judge(Gate(tolerance=0), evidence(interval=interval(better=40, worse=9))).accepted


def test_a_slower_variant_is_refused_even_if_it_is_smaller():
    report = judge(GATE, evidence(speed=speed(0.93)))
    assert report.reasons == ("0.93 times the baseline's speed (0.92 to 0.94), where 1 is asked",)
    assert judge(Gate(min_speedup=0.9), evidence(speed=speed(0.93))).accepted


@pytest.mark.parametrize(
    ("gate", "changes", "reason"),
    [
        (
            Gate(),
            {"speed": speed(0.996, 0.0032)},
            "0.996 times the baseline's speed (0.99 to 0.999), where 1 is asked",
        ),
        (
            Gate(),
            {"speed": speed(0.998, 0.03), "size_bytes": 100},
            "0.998 times the baseline's speed (0.97 to 1.03), where 1 is asked of a file that is not smaller",
        ),
        (
            Gate(min_speedup=1.5),
            {"speed": speed(1.4999, 0.01), "size_bytes": 100},
            "1.4999 times the baseline's speed (1.49 to 1.51), where 1.5 is asked of a file that is not "
            "smaller",
        ),
        (
            Gate(),
            {"speed": None, "size_bytes": 9501, "baseline_size_bytes": 10000},
            "not smaller (0.9501 of the baseline's size, where below 0.95 counts), and its speed was not "
            "measured on the target",
        ),
        (
            Gate(tolerance=0.024999999),
            {"interval": interval(worse=50)},
            "score -0.025 on 2000 samples (50 worse, 0 better): more than the tolerance of 0.024999999",
        ),
        (
            Gate(tolerance=0.025000001, confidence=0.999),
            {"interval": interval(worse=50, confidence=0.999)},
            "score -0.025 on 2000 samples (50 worse, 0 better), but a loss of up to 0.03825 cannot be "
            "excluded at 99.9% confidence: more than the tolerance of 0.025000001",
        ),
    ],
)
def test_no_figure_in_a_reason_is_rounded_onto_what_it_is_held_against(gate, changes, reason):
    assert judge(gate, evidence(**changes)).reasons == (reason,)


def test_a_smaller_variant_may_be_as_fast_within_the_measurement():
    assert judge(GATE, evidence(speed=speed(0.995))).accepted
    assert not judge(GATE, evidence(speed=speed(0.995), size_bytes=100)).accepted


def test_the_size_of_a_smaller_file_is_not_rounded_onto_the_share_that_it_is_below():
    report = judge(GATE, evidence(size_bytes=9499, baseline_size_bytes=10000))
    assert report.accepted
    assert report.reasons[-1] == "0.9499 of the baseline's size"


def test_a_variant_neither_faster_nor_smaller_says_so():
    report = judge(GATE, evidence(speed=speed(1.005), size_bytes=99))
    assert report.reasons == (
        "not proven to be faster: 1.005 times the baseline's speed (0.99 to 1.01), and not smaller (0.99 of "
        "the baseline's size, where below 0.95 counts)",
    )
    assert judge(GATE, evidence(speed=speed(1.05), size_bytes=120)).accepted


def test_a_larger_variant_has_to_reach_the_speed_asked_for():
    gate = Gate(min_speedup=1.5)
    assert not judge(gate, evidence(speed=speed(1.49, 0.02), size_bytes=100)).accepted
    assert judge(gate, evidence(speed=speed(1.51, 0.02), size_bytes=100)).accepted
    assert not judge(gate, evidence(speed=speed(1.4, 0.02))).accepted


def test_without_speed_the_size_and_the_compiler_decide():
    assert judge(GATE, evidence(speed=None)).accepted
    assert judge(GATE, evidence(speed=None, compiles=True)).accepted
    assert judge(GATE, evidence(speed=None, compiles=False)).reasons == ("does not compile for the target",)
    assert judge(GATE, evidence(speed=None, size_bytes=100)).reasons == (
        "not smaller (1.00 of the baseline's size, where below 0.95 counts), and its speed was not measured "
        "on the target",
    )


def test_a_refusal_of_the_compiler_is_told_in_its_words():
    refusal = "UNSUPPORTED_NODE for Einsum at node 3: no importer"
    report = judge(GATE, evidence(speed=None, compiles=False, refusal=refusal))
    assert report.reasons == (
        "does not compile for the target: UNSUPPORTED_NODE for Einsum at node 3: no importer",
    )


def test_a_file_that_saturates_on_this_cpu_is_refused():
    report = judge(GATE, evidence(portability=Portability(kernel_db=7.1, simulation_db=15.6)))
    assert report.reasons == (
        "not portable between CPUs: 7.1 dB by this CPU's kernels, 15.6 dB in exact arithmetic; 8.5 dB apart, "
        "where 0.3 dB are allowed (8-bit products saturate in 16-bit sums; pair-safe weights avoid it)",
    )
    assert judge(GATE, evidence(portability=Portability(kernel_db=22.8, simulation_db=22.9))).accepted


def test_fp8_on_a_cpu_is_not_told_to_be_saturated_integers():
    text = Portability(kernel_db=-7.6, simulation_db=26.3, holds_float8=True).text
    assert text.startswith(
        "not portable between CPUs: -7.6 dB by this CPU's kernels, 26.3 dB in exact arithmetic"
    )
    assert "FP8, which is for GPUs" in text
    assert "pair-safe" not in text


def test_one_sample_is_no_plural():
    report = judge(
        GATE, evidence(broken=1, interval=paired_interval(np.zeros(1), np.zeros(1), confidence=0.95))
    )
    assert report.reasons[0] == "outputs hold NaN or infinity for 1 of 1 sample"


@given(st.floats(-10, 100), st.floats(-10, 100))
def test_portability_is_symmetric_and_forgives_rounding(kernel, simulation):
    one = Portability(kernel_db=kernel, simulation_db=simulation)
    other = Portability(kernel_db=simulation, simulation_db=kernel)
    assert one.gap_db == -other.gap_db
    assert one.is_portable == other.is_portable
    assert one.is_portable == (abs(kernel - simulation) <= 0.3 or min(kernel, simulation) >= 60)
    assert ("not portable" in one.text) != one.is_portable


def test_broken_outputs_are_the_first_reason():
    report = judge(GATE, evidence(broken=3, interval=interval(worse=50)))
    assert report.reasons[0] == "outputs hold NaN or infinity for 3 of 2000 samples"
    assert len(report.reasons) == 2


def test_all_reasons_are_given_at_once():
    worst = evidence(
        interval=interval(worse=100),
        compiles=False,
        speed=speed(0.5),
        portability=Portability(kernel_db=1.3, simulation_db=13.1),
        broken=1,
    )
    assert len(judge(GATE, worst).reasons) == 5


def test_an_interval_at_another_confidence_is_refused():
    with pytest.raises(RecipeError, match=r"gate: expected an interval at 0.95, found 0.9"):
        judge(GATE, evidence(interval=interval(confidence=0.9)))


@pytest.mark.parametrize(
    "keys",
    [{"tolerence": 0.1}, {"tolerance": -0.1}, {"confidence": 0.5}, {"confidence": 95}, {"min_speedup": 0},
     {"tolerance": float("nan")}],
)  # fmt: skip
def test_a_gate_refuses_unknown_keys_and_impossible_values(keys):
    with pytest.raises(ValidationError, match=next(iter(keys))):
        Gate.model_validate(keys)


def candidate(**changes) -> Candidate:
    some = evidence(**changes)
    return Candidate(some, judge(GATE, some))


def test_the_fastest_accepted_variant_is_chosen():
    choice = choose(
        {
            "part": candidate(speed=speed(1.3)),
            "full": candidate(speed=speed(1.6)),
            "wrong": candidate(speed=speed(2.5), interval=interval(worse=100)),
        },
        baseline="fp32",
    )
    assert choice.name == "full"
    assert choice.reasons[0] == "full is the fastest of 2 accepted variants"
    assert "1.60 times the baseline's speed" in choice.reasons


def test_among_equal_speeds_the_smaller_wins_then_the_better_score():
    equal = {"large": candidate(speed=speed(1.61), size_bytes=30), "small": candidate(speed=speed(1.6))}
    assert choose(equal, baseline="fp32").name == "small"
    scores = {"worse": candidate(interval=interval(worse=3)), "better": candidate()}
    assert choose(scores, baseline="fp32").name == "better"


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        (
            {"large": candidate(speed=speed(1.61), size_bytes=30), "x": candidate(speed=speed(1.6))},
            "x is the smallest of 2 equally fast ones, of 2 accepted variants",
        ),
        (
            {
                "slow": candidate(speed=speed(1.2)),
                "tiny": candidate(speed=speed(1.6), size_bytes=25, interval=interval(worse=3)),
                "x": candidate(speed=speed(1.6), size_bytes=25.3),
            },
            "x is the most accurate at worst of 2 equally small ones, which are the smallest of 2 equally "
            "fast ones, of 3 accepted variants",
        ),
        (
            {
                "tiny": candidate(speed=None, size_bytes=25, interval=interval(worse=3)),
                "x": candidate(speed=None, size_bytes=25.3),
                "half": candidate(speed=None, size_bytes=50),
            },
            "x is the most accurate at worst of 2 equally small ones, which are the smallest of 3 accepted "
            "variants",
        ),
    ],
)
def test_the_reason_is_what_decided_and_names_nothing_the_smallest_that_is_not(variants, reason):
    choice = choose(variants, baseline="fp32")
    assert choice.name == "x"
    assert choice.reasons[0] == reason


def test_without_speeds_the_smallest_is_chosen():
    variants = {"int8": candidate(speed=None), "fp16": candidate(speed=None, size_bytes=50)}
    choice = choose(variants, baseline="fp32")
    assert choice.name == "int8"
    assert choice.reasons[0] == "int8 is the smallest of 2 accepted variants"


def test_the_baseline_wins_where_nothing_holds_and_every_reason_is_told():
    choice = choose({"int8": candidate(speed=speed(0.5)), "fp8": candidate(compiles=False)}, baseline="fp32")
    assert choice.name == "fp32"
    assert choice.reasons == (
        "int8: 0.50 times the baseline's speed (0.49 to 0.51), where 1 is asked",
        "fp8: does not compile for the target",
    )
    assert choose({}, baseline="fp32").reasons == ("there is no variant",)


def test_variants_that_could_not_be_made_are_among_the_reasons_for_the_baseline():
    refused = {"dynamic": "refused: TensorRT cannot run it"}
    choice = choose({"int8": candidate(speed=speed(0.5))}, baseline="fp32", refused=refused)
    assert choice.reasons == (
        "int8: 0.50 times the baseline's speed (0.49 to 0.51), where 1 is asked",
        "dynamic: refused: TensorRT cannot run it",
    )
    assert choose({"int8": candidate()}, baseline="fp32", refused=refused).name == "int8"


@given(st.lists(st.tuples(st.floats(0.5, 3), st.integers(10, 150)), max_size=6), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_choice_is_accepted_and_does_not_depend_on_the_order(variants, shuffler):
    named = {
        str(k): candidate(speed=speed(times), size_bytes=size) for k, (times, size) in enumerate(variants)
    }
    choice = choose(named, baseline="fp32")
    items = list(named.items())
    shuffler.shuffle(items)
    assert choose(dict(items), baseline="fp32").name == choice.name
    if choice.name == "fp32":
        assert not any(some.report.accepted for some in named.values())
    else:
        assert named[choice.name].report.accepted
