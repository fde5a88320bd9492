"""The sets of a run: nothing that decides may have been searched on, and what was seen is said."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.errors import SamplesError
from jettison.core.samples import samples_of
from jettison.core.tensors import TensorSpec
from jettison.evaluate.gate import Gate
from jettison.evaluate.metrics import Metric, resolve_metric
from jettison.pipeline.sample_sets import calibration_notes, metric_notes, open_sets, search_metric
from jettison.recipe import ModelSource, Recipe, SampleSources
from jettison.recipe_text import parse_variant

SPECS = [TensorSpec(name="x", dtype="float32", shape=("n", 2))]
FULL, PARTIAL = (parse_variant(f"it=[{{quantize: {kind}}}]") for kind in ("full", "partial"))


@pytest.fixture
def opened(tmp_path):
    """Opens sets of numbered rows: ranges of numbers by set, and the variant that they are for."""

    def open_(variant=FULL, *, labels=None, **numbers):
        sources = {}
        for name, rows in numbers.items():
            column = np.asarray(rows, np.float32)
            arrays = {"x": np.stack([column, -column], axis=1)}
            np.savez(tmp_path / f"{name}.npz", **arrays, **({} if labels is None else {"labels": labels}))
            sources[name] = str(tmp_path / f"{name}.npz")
        recipe = Recipe(
            model=ModelSource(name="m", path=tmp_path),
            samples=SampleSources(**sources),
            variants=(variant,),
        )
        return open_sets(recipe, SPECS)

    return open_


def refused(opened, **numbers):
    with pytest.raises(SamplesError) as caught:
        opened(PARTIAL, **numbers)
    assert caught.value.exit_code == 2
    return f"{caught.value.detail}. {caught.value.fix}"


def test_sets_of_their_own_need_no_note(opened):
    sets = opened(PARTIAL, calibration=range(4), search=range(4, 8), evaluation=range(8, 20))
    assert (sets.calibration.count, sets.search.count, sets.evaluation.count) == (4, 4, 12)
    assert (sets.is_halved, sets.notes) == (False, ())


def test_a_search_on_all_that_decides_is_refused_in_whatever_order_it_stands(opened):
    told = refused(opened, calibration=range(4), search=[9, 7, 8, 1, 2], evaluation=range(7, 10))
    assert told == (
        "expected evaluation samples that no search sees, found all 3 among the search samples, by which "
        "variant 'it' judges its choices. Give other samples with --search (search in the recipe), or none"
    )


def test_a_search_on_calibration_samples_that_decide_is_refused(opened):
    told = refused(opened, calibration=range(5), evaluation=range(5))
    assert told.endswith(
        "found all 5 among the calibration samples, by which variant 'it' judges its choices. Give other "
        "samples with --search (search in the recipe), or leave evaluation out, so that calibration is halved"
    )


def test_a_search_on_the_set_that_is_halved_is_refused(opened):
    assert "found all 4 among the search samples" in refused(opened, calibration=range(8), search=range(8))
    sets = opened(PARTIAL, calibration=range(8))
    assert sets.search is sets.calibration
    assert sets.notes == ("one sample set was given: halved by seed 0 into calibration and evaluation",)


def test_where_nothing_searches_equal_sets_are_told_and_allowed(opened):
    sets = opened(FULL, calibration=range(5), evaluation=range(5))
    assert sets.notes == (
        "the evaluation samples are those of the calibration (all 5): no evidence on unseen ones; "
        "give others, or leave evaluation out, so that calibration is halved",
    )
    assert opened(FULL, calibration=range(5), search=range(5, 9), evaluation=range(5, 9)).notes == ()


def test_samples_that_two_sets_share_are_counted(opened):
    both = {"calibration": range(6), "search": range(4, 9), "evaluation": range(5, 12)}
    assert opened(PARTIAL, **both).notes == (
        "4 of 7 evaluation samples are among those that the search judges by",
        "1 of 7 evaluation samples are among those of the calibration",
    )
    assert opened(FULL, **both).notes == ("1 of 7 evaluation samples are among those of the calibration",)


def test_shared_calibration_samples_by_which_a_search_judges_are_told(opened):
    assert opened(PARTIAL, calibration=range(6), evaluation=range(4, 9)).notes == (
        "2 of 5 evaluation samples are among those of the calibration, by which the search judges too",
    )


SCORES = [TensorSpec(name="scores", dtype="float32", shape=("n", 3))]
BOXES = [TensorSpec(name="boxes", dtype="float32", shape=("n", 3))]


@pytest.fixture
def judging(opened):
    """What a search on samples without labels judges by, where the evaluation samples have some."""

    def judge(metric, *, outputs=SCORES, variant=PARTIAL, labels=None):
        sets = opened(variant, calibration=range(3), labels=labels)
        recipe = Recipe(
            model=ModelSource(name="m", path="m"), samples=SampleSources(calibration="c"), variants=(variant,)
        )
        return search_metric(recipe, sets.search, metric=metric, outputs=outputs).name

    return judge


OWN = Metric("own:metric", needs_labels=True, needs_baseline=False, function=lambda some: np.ones(len(some)))


def test_agreement_stands_in_for_top1_in_a_search_without_labels_and_a_note_says_so(judging, opened):
    assert judging(resolve_metric("top1")) == "agreement"
    assert judging(resolve_metric("top1"), labels=np.arange(3)) == "top1"
    assert judging(resolve_metric("sqnr")) == "sqnr"
    sets = opened(PARTIAL, calibration=range(4), evaluation=range(4, 9))
    assert notes_of(sets, searched_by="agreement") == [
        "the search judges by agreement with the tolerance for top1, since its samples have no labels; give "
        "search samples with labels to have it judge as the verdict does"
    ]
    assert notes_of(sets, searched_by="top1") == []


@pytest.mark.parametrize(("metric", "outputs"), [(OWN, SCORES), (resolve_metric("top1"), BOXES)])
def test_a_metric_in_another_unit_does_not_stand_in_for_one_that_needs_labels(judging, metric, outputs):
    with pytest.raises(SamplesError) as caught:
        judging(metric, outputs=outputs)
    assert caught.value.detail == (
        "expected labels, since variant 'it' judges its choices on these samples and the metric "
        f"'{metric.name}' needs them, found none"
    )
    assert "--search (search in the recipe)" in caught.value.fix


def test_labels_of_calibration_samples_are_not_asked_where_nothing_searches(judging):
    top1, beyond = resolve_metric("top1"), np.array([0, 1, 7])
    assert judging(top1, variant=FULL, labels=beyond) == "top1"
    assert judging(OWN, variant=FULL) == "own:metric"
    with pytest.raises(SamplesError, match="expected a class from 0 to 2, found 7"):
        judging(top1, labels=beyond)


def test_a_set_whose_halves_are_equal_is_not_advised_to_be_halved(opened):
    assert refused(opened, calibration=[1, 1, 1, 1]).endswith(
        "or a calibration set in which not all samples are equal"
    )


def notes_of(sets, *, metric="top1", is_named=True, searched_by=None, **gate):
    found = metric_notes(sets, metric=metric, is_named=is_named, gate=Gate(**gate), searched_by=searched_by)
    return list(found)


def test_halves_that_are_too_few_for_the_tolerance_are_told_with_how_many_it_takes(opened):
    few, enough = opened(calibration=range(400)), opened(calibration=range(598))
    assert notes_of(few) == [
        "halving leaves 200 samples that decide, where a tolerance of 0.01 at 95% confidence takes about 299 "
        "even if not one differs: give at least 598 samples, or evaluation samples of their own"
    ]
    assert notes_of(enough) == []
    assert notes_of(few, tolerance=0.05) == notes_of(few, tolerance=0) == []
    assert notes_of(few, metric="mae") == []
    assert notes_of(opened(calibration=range(400), evaluation=range(400, 450))) == []


def test_labels_that_the_default_metric_does_not_use_are_told(opened):
    sets = opened(calibration=range(5), evaluation=range(5, 10), labels=np.linspace(0, 1, 5))
    (note,) = notes_of(sets, metric="agreement", is_named=False)
    assert note.startswith("no metric fits the labels (float64, one value each), so the metric is agreement")
    assert notes_of(sets, metric="agreement") == []


@pytest.mark.parametrize(
    ("count", "kind", "notes"),
    [
        (1, "full", ["1 calibration sample: ranges of activations are guesses; 128 are plenty"]),
        (15, "full", ["15 calibration samples: ranges of activations are guesses; 128 are plenty"]),
        (16, "full", []),
        (1, "float16", []),
    ],
)
def test_few_calibration_samples_are_told_where_ranges_are_taken_from_them(tmp_path, count, kind, notes):
    recipe = Recipe(
        model=ModelSource(name="m", path=tmp_path),
        samples=SampleSources(calibration="c"),
        variants=(parse_variant(f"it=[{{quantize: {kind}}}]"),),
    )
    samples = samples_of({"x": np.zeros((count, 2), np.float32)}, specs=SPECS)
    assert list(calibration_notes(recipe, samples)) == notes
