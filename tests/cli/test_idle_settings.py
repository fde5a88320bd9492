"""Settings that nothing reads are refused, as keys in a recipe and as options on the command line."""

from __future__ import annotations

import pytest

from jettison.cli import compress as compress_verb
from jettison.core.errors import ExternalError, RecipeError
from jettison.recipe_text import load_recipe

PARTIAL = "[{name: int8, passes: [{quantize: full}]}, {name: part, passes: [{quantize: partial}]}]"
FULL = "[{name: int8, passes: [{quantize: full}]}, {name: dynamic, passes: [{quantize: dynamic}]}]"


def written(tmp_path, *lines, samples="calibration: calibration.npz"):
    path = tmp_path / "recipe.yaml"
    head = ["model: {name: small, path: model.onnx}", f"samples: {{{samples}}}"]
    path.write_text("\n".join([*head, *lines]))
    return path


def refusal(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.what == f"recipe {path}"
    return f"{caught.value.detail}. {caught.value.fix}"


SEARCHED = "calibration: calibration.npz, search: search.npz"
NOT_SEARCHED = (
    " has no effect: expected a variant that searches, found only int8, dynamic. Leave it out, or add a "
    "variant such as "
)


def test_search_samples_that_no_variant_searches_are_refused(tmp_path):
    words = refusal(written(tmp_path, f"variants: {FULL}", samples=SEARCHED))
    assert words == f"samples.search{NOT_SEARCHED}{{name: part, passes: [{{quantize: partial}}]}}"


def test_time_for_searches_that_no_variant_makes_is_refused(tmp_path):
    words = refusal(written(tmp_path, f"variants: {FULL}", "time_budget_s: 60"))
    assert words == f"time_budget_s{NOT_SEARCHED}{{name: part, passes: [{{quantize: partial}}]}}"


def test_one_variant_that_searches_is_enough(tmp_path):
    found = load_recipe(written(tmp_path, f"variants: {PARTIAL}", "time_budget_s: 60", samples=SEARCHED))
    assert (found.samples.search, found.time_budget_s) == (str(tmp_path / "search.npz"), 60.0)


def test_default_variants_take_what_a_search_would_read(tmp_path):
    found = load_recipe(written(tmp_path, "time_budget_s: 60", samples=SEARCHED))
    assert found.samples.search == str(tmp_path / "search.npz")


@pytest.mark.parametrize("speed", ["1.0", "2"])
def test_least_speed_is_refused_where_no_latency_is_measured(tmp_path, speed):
    gate = f"gate: {{min_speedup: {speed}}}"
    assert refusal(written(tmp_path, "targets: [sm89, tensorrt]", gate)) == (
        "gate.min_speedup has no effect: expected target cpu, where latency is measured, found only sm89, "
        "tensorrt. Leave it out, or give targets: [cpu]"
    )


@pytest.mark.parametrize(
    ("targets", "gate"),
    [("[cpu, sm89]", "{min_speedup: 2}"), ("[cpu]", "{min_speedup: 2}"), ("[sm89]", "{}")],
)
def test_least_speed_is_taken_where_one_target_is_this_machine(tmp_path, targets, gate):
    assert load_recipe(written(tmp_path, f"targets: {targets}", f"gate: {gate}")).gate.tolerance == 0.01


@pytest.fixture
def asked(monkeypatch):
    """The recipe that `compress` makes of its options; nothing is done with it."""
    seen = []

    def keep(recipe, _):
        seen.append(recipe)
        raise ExternalError("the road", detail="it is closed", fix="Stop here")

    monkeypatch.setattr(compress_verb, "walk", keep)
    return seen


def compress(jettison, *options, target="cpu"):
    given = ("model.onnx", "--calibration", "c.npz", "--target", target, "-o", "out", *options)
    return jettison("compress", *given)


@pytest.mark.parametrize("option", ["--search", "--time-budget"])
def test_option_that_no_variant_reads_is_refused_by_its_name(jettison, asked, option):
    answer = compress(jettison, option, "60", "--variant", "int8=[{quantize: full}]")
    assert answer.code == 2
    assert not asked
    assert (
        f"compress: {option} has no effect: expected a variant that searches, found only int8. Leave it out, "
        "or add a variant such as --variant 'part=[{quantize: partial}]'"
    ) in answer.err


@pytest.mark.parametrize("variants", [(), ("--variant", "part=[{quantize: partial}]")])
def test_options_of_a_search_reach_the_recipe(jettison, asked, variants):
    compress(jettison, "--search", "s.npz", "--time-budget", "90.5", *variants)
    assert (asked[0].samples.search, asked[0].time_budget_s) == ("s.npz", 90.5)


def test_without_a_time_budget_a_search_takes_its_time(jettison, asked):
    compress(jettison, "--variant", "part=[{quantize: partial}]")
    assert asked[0].time_budget_s is None


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_time_budget_that_is_no_time_is_refused(jettison, asked, seconds):
    answer = compress(jettison, "--time-budget", seconds)
    assert answer.code == 2
    assert f"time_budget_s: expected a number above 0, found {float(seconds)}" in answer.err


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_time_budget_that_never_ends_is_refused(jettison, asked, value):
    answer = compress(jettison, "--time-budget", value)
    assert answer.code == 2
    assert "time_budget_s: expected" in answer.err
    assert not asked


def test_least_speed_of_a_gpu_is_refused_by_its_option(jettison, asked):
    told = (
        "--min-speedup has no effect: expected target cpu, where latency is measured, found only sm89. Leave "
        "it out, or give --target cpu"
    )
    answer = compress(jettison, "--min-speedup", "1.5", target="sm89")
    assert answer.code == 2
    assert f"compress: {told}" in answer.err
    answer = jettison(
        "evaluate", "a.onnx", "--baseline", "b.onnx", "--evaluation", "e.npz", "--target", "sm89",
        "--min-speedup", "1.5",
    )  # fmt: skip
    assert answer.code == 2
    assert f"evaluate: {told}" in answer.err


@pytest.mark.parametrize(("options", "speed"), [((), 1.0), (("--min-speedup", "1.5"), 1.5)])
def test_least_speed_reaches_the_gate(jettison, asked, options, speed):
    compress(jettison, *options)
    assert asked[0].gate.min_speedup == speed


def test_least_speed_is_a_number_above_0(jettison, asked):
    assert "min_speedup: expected a number above 0, found 0.0" in compress(jettison, "--min-speedup", "0").err


def test_what_default_variants_do_not_read_is_a_note(jettison, workspace):
    """They are Jettison's own choice: whoever leaves the choice to it may always give these samples."""
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--search", workspace / "calibration.npz",
        "--time-budget", 60, "--target", "cpu", "--tolerance", 0.1, "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert answer.code == 0
    told = (
        "not used: search samples and time budget, since no default variant searches; "
        "{quantize: partial} does"
    )
    assert told in answer.document["notes"]


def test_search_whose_time_ran_out_takes_the_best_that_it_found(jettison, workspace):
    """A microsecond is over before repairs are tried; the search makes the one evaluation that it needs."""
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--tolerance", 0.1,
        "--variant", "part=[{quantize: partial, objective: size}]",
        "--time-budget", "1e-6", "-o", workspace / "out", "--json",
    )  # fmt: skip
    notes = " ".join(answer.document["variants"][0]["notes"])
    assert "half of the time for the search was spent, and 7 repairs were not tried" in notes
    assert answer.document["evaluations"] == 1
