"""Geometry of the charts: places, round figures, fronts, labels that do not cover each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.report import words
from jettison.report.axes import axis_over
from jettison.report.course import Course, EValue, Look, chart_of
from jettison.report.front import best_of, fronts_of
from jettison.report.run_file import Layer, LayerInput, Seen, Target, Variant
from jettison.report.strips import SPARK_WIDTH, latencies_of, profile_of, spark_of

figures = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(figures, max_size=20))
def test_every_value_lies_on_its_axis_with_some_round_figures(values):
    axis = axis_over(values, 0.0, 400.0)
    assert all(-0.1 <= axis.at(value) <= 400.1 for value in values)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 12
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)


def test_ticks_are_round():
    assert [tick.text for tick in axis_over([0.0, 1.0], 0, 100, margin=0.0).ticks()] == [
        "0.0", "0.2", "0.4", "0.6", "0.8", "1.0",
    ]  # fmt: skip


points = st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float))


@given(st.lists(points, max_size=12))
def test_a_point_is_on_the_front_exactly_where_no_other_beats_it(found):
    best = set(best_of(found))
    for x, y in found:
        beaten = any(a <= x and b <= y and (a, b) != (x, y) for a, b in found)
        assert ((x, y) in best) != beaten


def target(*variants, **fields):
    base = Variant(size_bytes=4_000_000, score=0.9, latency_ms=4.0)
    return Target(target="cpu", baseline=base, variants=variants, **fields)


def variant(name, **fields):
    return Variant(**{"name": name, "size_bytes": 1_000_000, "score": 0.9, "latency_ms": 2.0, **fields})


def test_a_rejected_variant_is_shown_and_not_on_the_front():
    fast = variant("fast", latency_ms=1.0, score=0.95, accepted=False)
    latency, _ = fronts_of(target(fast, variant("good", accepted=True), chosen="good"))
    kinds = {dot.name: dot.kind for dot in latency.dots}
    assert kinds == {"baseline": "baseline", "fast": "rejected", "good": "chosen"}
    good = next(dot for dot in latency.dots if dot.name == "good")
    assert latency.line.startswith(f"M{good.x},{good.y}")


def test_a_target_without_latencies_has_one_chart():
    base = Variant(size_bytes=4_000_000, score=0.9)
    found = fronts_of(Target(baseline=base, variants=(variant("int8", latency_ms=None),)))
    assert [front.title for front in found] == ["Score and size"]


def test_names_do_not_cover_each_other():
    _, size = fronts_of(target(*(variant(f"variant-{number}") for number in range(5))))
    placed = [dot.label for dot in size.dots if dot.label]
    assert len(placed) >= 4
    assert len({(side, y) for _, y, side in placed}) == len(placed)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("word", [words.number, words.signed, words.percent, words.size, words.times])
def test_what_is_no_number_is_a_dash(word, value):
    assert word(value) == "\N{EN DASH}"
    assert words.datum(value) == ""


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (words.number(0.9485), "0.9485"),
        (words.number(1234567.0), "1,234,567"),
        (words.signed(-0.00213), "\N{MINUS SIGN}0.00213"),
        (words.signed(0.0), "+0"),
        (words.size(866224), "866\N{NARROW NO-BREAK SPACE}kB"),
        (words.percent(0.264), "26.4\N{NARROW NO-BREAK SPACE}%"),
        (words.times(1.779), "1.78\N{MULTIPLICATION SIGN}"),
        (words.counted(1, "layer"), "1 layer"),
        (words.counted(2000, "layer"), "2,000 layers"),
    ],
)
def test_figures_in_words(told, text):
    assert told == text


def test_the_ends_of_the_range_lie_within_the_histogram_that_they_cut():
    seen = Seen(low=-2.0, high=6.0, shares=(0.1, 0.7, 0.1, 0.1))
    spark = spark_of(LayerInput(low=-1.0, high=4.0, seen=seen))
    assert 0 < spark.low < spark.high < SPARK_WIDTH
    assert spark.low == pytest.approx(
        1 + (SPARK_WIDTH - 2) / 8, abs=3
    )  # an eighth from the left, but the margin


@pytest.mark.parametrize(
    "seen", [None, Seen(), Seen(low=1.0, high=1.0, shares=(1.0,)), Seen(low=0, high=1, shares=(0.0,))]
)
def test_a_histogram_of_nothing_is_not_drawn(seen):
    assert spark_of(LayerInput(seen=seen)) is None


def test_strips_need_a_whole_distribution():
    whole = tuple(float(number) for number in range(1, 10))
    found = latencies_of(
        target(variant("a", latency_quantiles_ms=whole), variant("b", latency_quantiles_ms=(1.0, 2.0)))
    )
    assert [row.name for row in found.rows] == ["a"]
    assert found.rows[0].places == tuple(sorted(found.rows[0].places))
    assert latencies_of(target(variant("b"))) is None


def test_the_line_over_many_layers_keeps_the_noisiest():
    layers = [Layer(node=str(number), sqnr_db=40.0) for number in range(5000)]
    layers[2500] = Layer(node="bad", sqnr_db=3.0)
    found = profile_of(layers)
    assert found.together > 1
    heights = [float(step.partition("H")[0].rpartition(",")[2]) for step in found.path.split("L")]
    assert sum(height > min(heights) + 50 for height in heights) == 1


def test_a_course_is_drawn_in_powers_of_ten_with_what_is_asked():
    tests = (EValue("quality", "promote", "as good", math.log(100), 20.0, True),)
    looks = tuple(Look("", units, {"quality": units * math.log(100) / 10}) for units in range(11))
    chart = chart_of(Course("e", "promote", (), 10, 0, tests, looks))
    assert [line.name for line in chart.lines] == ["quality"]
    assert [mark.text for mark in chart.thresholds] == ["20"]
    end = float(chart.lines[0].path.rpartition(",")[2])
    assert end < chart.thresholds[0].at, "log10 of 100 is above log10 of 20"


def test_a_long_course_is_thinned_and_keeps_its_end():
    looks = tuple(Look("", units, {"q": 1.0}) for units in range(4000))
    chart = chart_of(
        Course("e", "continue", (), 0, 0, (EValue("q", "promote", "", 1.0, 20.0, False),), looks)
    )
    assert chart.lines[0].path.count("L") < 310
    assert chart.lines[0].path.rpartition("L")[2].startswith("706.0,")


def test_a_verdict_without_looks_has_no_chart():
    assert chart_of(Course("e", "continue", (), 0, 0, ())) is None
