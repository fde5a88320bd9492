from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from evaluate_fakes import some_samples, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.core.errors import RecipeError, SamplesError
from jettison.evaluate.answers import Answers
from jettison.evaluate.metrics import METRIC_NAMES, WORST_MAE, default_metric, metric_for, resolve_metric

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]], np.float32)


def answers(outputs, labels=None, baseline=None, first=0) -> Answers:
    pack = {"y": outputs} if isinstance(outputs, np.ndarray) else outputs
    base = {"y": baseline} if isinstance(baseline, np.ndarray) else baseline
    return Answers(pack, labels, base, first)


def test_a_users_metric_that_was_edited_is_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_metric", raising=False)
    (tmp_path / "own_metric.py").write_text("def scores(outputs):\n    return [1.0] * len(outputs['y'])")
    before = resolve_metric("own_metric:scores").identity
    assert resolve_metric("own_metric:scores").identity == before
    (tmp_path / "own_metric.py").write_text("def scores(outputs):\n    return [0.0] * len(outputs['y'])")
    assert resolve_metric("own_metric:scores").identity != before
    assert resolve_metric("top1").identity == "top1"


def test_top1_is_one_where_the_highest_score_is_the_labels():
    found = resolve_metric("top1")(answers(SCORES, labels=np.array([1, 1, 2])))
    assert found.tolist() == [1.0, 0.0, 1.0]
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[1], [0], [2]], np.uint8),
        np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.2, 0.2, 0.6]], np.float32),
    ],
)
def test_labels_may_be_a_column_one_hot_or_shares(labels):
    assert resolve_metric("top1")(answers(SCORES, labels=labels)).tolist() == [1.0, 1.0, 1.0]


def test_class_scores_may_carry_dimensions_of_size_one_and_stand_behind_other_outputs():
    outputs = {"boxes": np.zeros((3, 5, 4), np.float32), "y": SCORES[:, :, None, None]}
    assert resolve_metric("top1")(answers(outputs, labels=np.array([1, 0, 2]))).all()


def test_a_model_that_decides_inside_is_judged_by_its_decision():
    decided = np.array([1, 0, 2], np.int64)
    assert resolve_metric("top1")(answers(decided, labels=np.array([1, 0, 1]))).tolist() == [1, 1, 0]
    assert resolve_metric("agreement")(answers(decided, baseline=decided)).all()


def test_a_row_with_nan_is_wrong_in_every_metric():
    broken = np.tile(SCORES, (1, 3)).copy()
    broken[1, 0] = np.nan  # numpy's argmax would call that the highest, and it is the label
    base = np.tile(SCORES, (1, 3))
    labels = np.array([1, 0, 2])
    for name in ("top1", "top5", "agreement", "sqnr"):
        assert resolve_metric(name)(answers(broken, labels=labels, baseline=base))[1] == 0.0
        assert resolve_metric(name)(answers(base, labels=labels, baseline=base))[1] == 1.0
    assert resolve_metric("mae")(answers(broken, baseline=base))[1] == WORST_MAE


def test_top5_counts_ties_in_the_order_of_the_classes():
    tied = np.zeros((2, 8), np.float32)
    assert resolve_metric("top5")(answers(tied, labels=np.array([4, 5]))).tolist() == [1.0, 0.0]


def test_top5_refuses_five_classes():
    with pytest.raises(
        RecipeError, match=r"expected scores of more than 5 classes, found 3 classes. Choose top1"
    ):
        resolve_metric("top5")(answers(SCORES, labels=np.array([1, 0, 2])))


@given(st.integers(0, 10**6), st.integers(6, 30))
@settings(max_examples=30, deadline=None)
def test_top5_is_never_below_top1(seed, classes):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (40, classes)).astype(np.float32)
    some = answers(scores, labels=generator.integers(0, classes, 40))
    assert (resolve_metric("top5")(some) >= resolve_metric("top1")(some)).all()


def test_agreement_compares_decisions_and_not_scores():
    variant = SCORES * 100
    variant[2] = [9, 1, 1]
    assert resolve_metric("agreement")(answers(variant, baseline=SCORES)).tolist() == [1, 1, 0]


def test_sqnr_of_0_99_is_20_db():
    base = np.ones((1, 100), np.float32)
    found = resolve_metric("sqnr")(answers(base * 1.1, baseline=base))
    assert found == pytest.approx(0.99, abs=1e-6)


def test_sqnr_has_a_floor_and_a_meaning_for_silence():
    base = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    variant = np.array([[9.0, 9.0], [0.0, 0.0], [0.0, 1.0], [0.0, np.nan]])
    assert resolve_metric("sqnr")(answers(variant, baseline=base)).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_sqnr_is_that_of_the_worst_output():
    base = {"boxes": np.full((1, 4), 600.0), "classes": np.ones((1, 4)), "count": np.array([3])}
    variant = base | {"classes": np.full((1, 4), 0.5)}
    assert resolve_metric("sqnr")(answers(variant, baseline=base)) == pytest.approx(0.75)


def test_mae_is_minus_the_error_against_the_baseline_or_float_labels():
    base, variant = np.array([[1.0, 2.0]]), np.array([[1.5, 2.0]])
    mae = resolve_metric("mae")
    assert mae(answers(variant, baseline=base)).tolist() == [-0.25]
    assert mae(answers(variant, labels=np.array([[0.5, 0.0]]), baseline=base)).tolist() == [-1.5]
    assert mae(answers(variant, labels=np.array([7]), baseline=base)).tolist() == [-0.25]


def test_equal_infinities_are_no_error():
    masked = np.array([[-np.inf, 1.0, 2.0]], np.float32)
    assert resolve_metric("mae")(answers(masked, baseline=masked)).tolist() == [0.0]
    assert resolve_metric("sqnr")(answers(masked, baseline=masked)).tolist() == [1.0]


@given(st.sampled_from([name for name in METRIC_NAMES if name != "mae"]), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_scores_do_not_depend_on_how_samples_are_batched(name, seed):
    generator = np.random.default_rng(seed)
    base = generator.normal(size=(12, 9)).astype(np.float32)
    variant = base + generator.normal(0, 0.5, (12, 9)).astype(np.float32)
    labels = generator.integers(0, 9, 12)
    whole = resolve_metric(name)(answers(variant, labels=labels, baseline=base))
    cut = int(generator.integers(1, 12))
    parts = [
        resolve_metric(name)(answers(variant[part], labels=labels[part], baseline=base[part]))
        for part in (slice(0, cut), slice(cut, 12))
    ]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-12)
    assert ((whole >= 0) & (whole <= 1)).all()


def test_an_unknown_metric_is_answered_with_the_nearest_name():
    with pytest.raises(RecipeError) as error:
        resolve_metric("agrement")
    assert str(error.value).startswith("metric 'agrement': there is no such metric. Did you mean agreement? ")
    assert error.value.exit_code == 2


def test_labels_missing_or_impossible_are_told():
    top1 = resolve_metric("top1")
    with pytest.raises(SamplesError, match=r"expected samples with labels, found none"):
        top1(answers(SCORES))
    with pytest.raises(SamplesError, match=r"expected a class from 0 to 2, found 7 at sample 65"):
        top1(answers(SCORES, labels=np.array([0, 7, 1]), first=64))
    with pytest.raises(SamplesError, match=r"expected whole numbers .*, found float32 \(3,\)"):
        top1(answers(SCORES, labels=np.array([0, 1, 1], np.float32)))
    with pytest.raises(SamplesError, match=r"expected 3 columns, as many as classes, found 4"):
        top1(answers(SCORES, labels=np.eye(4)[:3]))
    with pytest.raises(
        SamplesError, match=r"expected the shape of the first float output, \(3, 3\), found \(3,\)"
    ):
        resolve_metric("mae")(answers(SCORES, labels=np.array([0.5, 1.5, 2.0])))


def test_a_metric_that_does_not_fit_the_outputs_says_which_would():
    masks = np.zeros((2, 4, 8, 8), np.float32)
    with pytest.raises(
        RecipeError, match=r"expected an output of class scores.*\(2, 4, 8, 8\).*Choose sqnr or mae"
    ):
        resolve_metric("agreement")(answers(masks, baseline=masks))
    decided = np.array([1, 2])
    with pytest.raises(RecipeError, match=r"expected a floating point output, found \['y'\] without any"):
        resolve_metric("sqnr")(answers(decided, baseline=decided))
    with pytest.raises(RecipeError, match=r"no baseline was given"):
        resolve_metric("mae")(answers(masks))


def test_check_raises_before_any_work():
    with pytest.raises(
        SamplesError, match=r"metric 'top1': expected samples with labels, found none in arrays"
    ):
        resolve_metric("top1").check(some_samples(labels=False), has_baseline=True)
    with pytest.raises(RecipeError, match=r"metric 'agreement': it compares with a baseline's outputs"):
        resolve_metric("agreement").check(some_samples(), has_baseline=False)


@pytest.mark.parametrize(
    ("labels", "output", "expected"),
    [
        (True, spec("logits", ("batch", 10)), "top1"),
        (np.eye(10, dtype=np.float32)[np.zeros(20, int)], spec("logits", ("batch", 10)), "top1"),
        (True, spec("label", ("batch",), "int64"), "top1"),
        (False, spec("label", ("batch",), "int64"), "agreement"),
        (False, spec("logits", ("batch", 10, 1, 1)), "agreement"),
        (False, spec("image_embeds", ("batch", 512)), "sqnr"),
        (False, spec("masks", ("batch", 4, 8, 8)), "sqnr"),
        (False, spec("price", ("batch", 1)), "sqnr"),
        (np.zeros(20, np.float32), spec("price", ("batch", 1)), "mae"),
        (np.zeros(20, np.float32), spec("logits", ("batch", 10)), "agreement"),
        (np.zeros((20, 8, 8), np.int64), spec("masks", ("batch", 4, 8, 8)), "sqnr"),
    ],
)
def test_the_default_metric_follows_from_labels_and_outputs(labels, output, expected):
    assert default_metric(some_samples(labels=labels), [output]).name == expected


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("own_metrics")
    monkeypatch.setitem(sys.modules, "own_metrics", module)
    return module


def test_a_users_function_gets_what_its_parameters_name(own):
    own.both = lambda labels, outputs: outputs["y"][:, 0] + labels
    own.against = lambda y, baseline: y["y"][:, 0] - baseline["y"][:, 0]
    own.maybe = lambda outputs, labels=None, power=2: outputs["y"][:, 0] ** (power * (labels is None))
    some = answers(SCORES, labels=np.array([1, 2, 3]), baseline=SCORES * 0)
    both, against = resolve_metric("own_metrics:both"), resolve_metric("own_metrics:against")
    assert both(some) == pytest.approx(SCORES[:, 0] + [1, 2, 3])
    assert against(some) == pytest.approx(SCORES[:, 0])
    assert (both.needs_labels, both.needs_baseline) == (True, False)
    assert (against.needs_labels, against.needs_baseline) == (False, True)
    maybe = resolve_metric("own_metrics:maybe")
    assert not maybe.needs_labels
    assert maybe(answers(SCORES)) == pytest.approx(SCORES[:, 0] ** 2)


def test_a_users_wrong_answer_names_function_and_sample(own):
    own.short = lambda outputs: outputs["y"][:2, 0]
    own.nan = lambda outputs: outputs["y"][:, 0] * [1, np.nan, 1]
    own.text = lambda outputs: ["a"] * len(outputs["y"])
    own.fails = lambda outputs: outputs["logits"]
    with pytest.raises(
        RecipeError, match=r"'own_metrics:short': expected 3 scores for samples 32 to 34, .*\(2,\)"
    ):
        resolve_metric("own_metrics:short")(answers(SCORES, first=32))
    with pytest.raises(
        RecipeError, match=r"'own_metrics:nan': expected finite scores, found nan at sample 33"
    ):
        resolve_metric("own_metrics:nan")(answers(SCORES, first=32))
    with pytest.raises(RecipeError, match=r"'own_metrics:text': it failed on samples 0 to 2 with ValueError"):
        resolve_metric("own_metrics:text")(answers(SCORES))
    with pytest.raises(RecipeError, match=r"it failed on samples 0 to 2 with KeyError: 'logits'") as error:
        resolve_metric("own_metrics:fails")(answers(SCORES))
    assert error.value.exit_code == 2


def test_a_users_function_that_cannot_be_called_is_refused_at_once(own):
    own.strange = lambda outputs, target: outputs[target]
    own.nothing = lambda: 0
    own.only = lambda labels: labels * 0
    own.number = 3
    for name in ("strange", "nothing", "only"):
        with pytest.raises(RecipeError, match=r"expected parameters outputs, labels and baseline, found"):
            resolve_metric(f"own_metrics:{name}")
    with pytest.raises(RecipeError, match=r"is no function"):
        resolve_metric("own_metrics:number")
    with pytest.raises(RecipeError, match=r"own_metrics:gone"):
        resolve_metric("own_metrics:gone")
    with pytest.raises(RecipeError, match=r"no_such_package_here"):
        resolve_metric("no_such_package_here:gone")


def test_top5_of_a_model_with_five_classes_is_refused_before_any_work():
    samples = some_samples(labels=np.zeros(20, np.int64))
    with pytest.raises(RecipeError, match="expected scores of more than 5 classes, found 5 classes"):
        metric_for("top5", samples, [spec("scores", ("batch", 5))])
    for shape in (("batch", 6), ("batch", "classes")):
        assert metric_for("top5", samples, [spec("scores", shape)]).name == "top5"


@pytest.mark.parametrize("name", ["top1", "top5"])
def test_labels_with_more_than_two_dimensions_are_refused_before_any_work(name):
    samples = some_samples(labels=np.zeros((20, 1, 1), np.int64))
    with pytest.raises(SamplesError, match="found int64 of shape 1x1 in sample 0"):
        metric_for(name, samples, [spec("scores", ("batch", 10))])
