"""Whether two models look at the same parts of a sample, found by hiding them one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from evaluate_fakes import spec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from jettison.core.errors import ModelError
from jettison.core.samples import Samples, samples_of
from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.agreement import falls, rank_correlation, top_overlap
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.saliency import SaliencyPlan, SaliencyReport, explain_saliency

IMAGE = spec("image", ("batch", 1, 8, 8))
SCORES = spec("scores", ("batch", 2))
PLAN = SaliencyPlan(patches_per_side=4, samples=3)


@dataclass
class Model:
    """A runner made of a function that gives the score of class 1; class 0 scores as much below zero."""

    score: Callable[[Arrays], np.ndarray]
    inputs: tuple[TensorSpec, ...] = (IMAGE,)
    outputs: tuple[TensorSpec, ...] = (SCORES,)
    sizes: list[int] = field(default_factory=list)

    def run(self, arrays: Arrays) -> Arrays:
        score = self.score(arrays)
        self.sizes.append(len(score))
        return {"scores": np.stack([-score, score], axis=1).astype(np.float32)}


def corner(down: int = 0, right: int = 0, **options) -> Model:
    """A model that reads nothing but one of the 2 x 2 patches."""
    area = slice(2 * down, 2 * down + 2), slice(2 * right, 2 * right + 2)
    return Model(lambda arrays: arrays["image"][:, 0, area[0], area[1]].sum(axis=(1, 2)), **options)


def weighted(weights: np.ndarray) -> Model:
    """A linear model over all pixels."""
    return Model(lambda arrays: np.tensordot(arrays["image"][:, 0], weights, axes=2))


def images(count: int = 5, seed: int = 0) -> Samples:
    """Grey noise, with corners that are brighter than its mean."""
    pixels = np.random.default_rng(seed).uniform(0.1, 0.9, (count, 1, 8, 8)).astype(np.float32)
    pixels[:, :, :2, :2] += 1
    pixels[:, :, 6:, 6:] += 1
    return samples_of({"image": pixels}, specs=[IMAGE])


def explained(baseline: Model, variant: Model, samples: Samples, plan: SaliencyPlan = PLAN) -> SaliencyReport:
    found = explain_saliency(baseline, variant, samples, plan=plan)
    assert isinstance(found, SaliencyReport), found
    return found


def why_not(baseline: Model, samples: Samples, plan: SaliencyPlan = PLAN) -> str:
    found = explain_saliency(baseline, baseline, samples, plan=plan)
    assert isinstance(found, NotApplicable), found
    return found.reason


@pytest.mark.parametrize(("down", "right"), [(0, 0), (0, 3), (2, 1)])
def test_a_model_that_reads_one_patch_is_seen_to(down, right):
    samples = images(1)
    found = explained(corner(down, right), corner(), samples).samples[0]
    pixels = next(samples.batches(1)).inputs["image"][0, 0]
    patch = pixels[2 * down : 2 * down + 2, 2 * right : 2 * right + 2]
    expected = np.zeros((4, 4))
    expected[down, right] = patch.sum() - 4 * pixels.mean()
    np.testing.assert_allclose(found.baseline_map, expected, atol=1e-5)
    assert np.count_nonzero(found.baseline_map) == 1


def test_identical_models_agree_fully():
    found = explained(weighted(WEIGHTS), weighted(WEIGHTS), images())
    assert (found.rank_correlation, found.rank_correlation_low, found.top_overlap) == (1.0, 1.0, 1.0)
    assert (found.kind, found.input, found.layout, found.broken) == ("image", "image", "nchw", 0)
    assert len(found.samples) == 3


def test_a_model_that_reads_another_corner_agrees_in_nothing():
    found = explained(corner(), corner(3, 3), images())
    assert found.top_overlap == 0.0
    assert found.rank_correlation < 0.1


def test_damage_lowers_the_agreement_and_rounding_does_not():
    rng = np.random.default_rng(1)
    rounded = np.rint(WEIGHTS * 64) / 64
    shuffled = rng.permutation(WEIGHTS.reshape(-1)).reshape(8, 8)
    fine = explained(weighted(WEIGHTS), weighted(rounded), images())
    damaged = explained(weighted(WEIGHTS), weighted(shuffled), images())
    assert fine.rank_correlation > 0.98
    assert damaged.rank_correlation < 0.7
    assert damaged.rank_correlation_low < damaged.rank_correlation < fine.rank_correlation


def test_both_maps_are_about_the_class_that_the_baseline_decides_for():
    variant = Model(lambda arrays: corner().score(arrays) - 100)
    found = explained(corner(), variant, images(1)).samples[0]
    assert (found.class_number, found.variant_class) == (1, 0)
    assert found.rank_correlation == 1.0
    np.testing.assert_allclose(found.baseline_map, found.variant_map, atol=1e-4)


def test_a_model_that_reads_nothing_agrees_with_its_like_and_with_no_other():
    blind = Model(lambda arrays: np.ones(len(arrays["image"])))
    same, other = explained(blind, blind, images()), explained(corner(), blind, images())
    assert (same.rank_correlation, same.top_overlap) == (1.0, 1.0)
    assert (other.rank_correlation, other.top_overlap) == (0.0, 0.0)


@pytest.mark.parametrize("asked", [None, "nhwc"])
def test_channels_may_lie_last(asked):
    side = 8 if asked is None else 3
    shape = spec("image", ("batch", side, side, 3))
    pixels = np.random.default_rng(0).uniform(0.1, 1, (1, side, side, 3)).astype(np.float32)
    model = Model(lambda arrays: arrays["image"][:, 0, 0].sum(axis=1), inputs=(shape,))
    plan = SaliencyPlan(patches_per_side=side, layout=asked)
    found = explained(model, model, samples_of({"image": pixels}, specs=[shape]), plan)
    expected = np.zeros((side, side))
    expected[0, 0] = (pixels[0, 0, 0] - pixels[0].mean(axis=(0, 1))).sum()
    assert found.layout == "nhwc"
    np.testing.assert_allclose(found.samples[0].baseline_map, expected, atol=1e-5)


def test_bytes_stay_bytes_and_other_inputs_stay_whole():
    specs = (spec("image", ("batch", 3, 8, 8), "uint8"), spec("gain", ("batch", 1)))
    seen = []

    def score(arrays: Arrays) -> np.ndarray:
        seen.append((arrays["image"].dtype, set(arrays["gain"][:, 0])))
        return 1 + arrays["image"][:, 0, 0, 0] * arrays["gain"][:, 0]

    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(1, 3, 8, 8)
    samples = samples_of({"image": pixels, "gain": np.array([[2]], np.float32)}, specs=specs)
    found = explained(Model(score, inputs=specs), Model(score, inputs=specs), samples)
    assert {dtype for dtype, _ in seen} == {np.dtype(np.uint8)}
    assert all(gains == {2.0} for _, gains in seen)
    assert found.samples[0].baseline_map[0][0] == 2 * (0 - 32)


def test_more_patches_than_pixels_are_not_made():
    found = explained(corner(), corner(), images(1), SaliencyPlan(patches_per_side=50))
    assert np.shape(found.samples[0].baseline_map) == (8, 8)


def test_samples_are_spread_over_the_set_or_chosen_by_number():
    spread = explained(corner(), corner(), images(10), PLAN)
    chosen = explained(corner(), corner(), images(10), SaliencyPlan(numbers=(9, -1, 2, 99)))
    assert [sample.sample for sample in spread.samples] == [0, 3, 6]
    assert [sample.sample for sample in chosen.samples] == [2, 9]
    assert "none of the samples [99] is in the set of 10" in why_not(
        corner(), images(10), SaliencyPlan(numbers=(99,))
    )


def test_neither_batch_size_nor_a_fixed_batch_changes_the_maps():
    fixed = spec("image", (4, 1, 8, 8))
    small, large = SaliencyPlan(patches_per_side=4, batch_size=3), SaliencyPlan(patches_per_side=4)
    runner = weighted(WEIGHTS)
    rigid = Model(weighted(WEIGHTS).score, inputs=(fixed,))
    found = [
        explained(runner, runner, images(), small),
        explained(runner, runner, images(), large),
        explained(rigid, rigid, images(), large),
    ]
    assert max(runner.sizes[:10]) <= 3
    assert set(rigid.sizes) == {4}
    for other in found[1:]:
        for one, two in zip(found[0].samples, other.samples, strict=True):
            np.testing.assert_allclose(one.baseline_map, two.baseline_map, atol=1e-5)


def test_progress_counts_the_runs_of_both_models():
    told: list[tuple[int, int]] = []
    explain_saliency(
        corner(), corner(), images(), plan=PLAN, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (96, 96)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_scores_that_are_not_numbers_count_as_no_agreement():
    samples = images(2)
    broken = Model(lambda arrays: np.where(arrays["image"][:, 0, 0, 0] == FIRST, np.nan, 1.0))
    found = explained(corner(), broken, samples)
    assert found.broken == 1
    assert found.samples[0].variant_map[0][0] is None
    assert (found.samples[0].rank_correlation, found.samples[0].top_overlap) == (0.0, 0.0)
    assert found.samples[0].variant_class == -1
    json.loads(found.model_dump_json(), parse_constant=pytest.fail)


def test_models_of_different_classes_are_refused():
    more = Model(corner().score)
    more.run = lambda arrays: {"scores": np.zeros((len(arrays["image"]), 5), np.float32)}
    with pytest.raises(ModelError, match="expected the baseline's 2 classes, found 5"):
        explain_saliency(corner(), more, images(), plan=PLAN)


IDS, MASK = (
    spec("input_ids", ("batch", "length"), "int64"),
    spec("attention_mask", ("batch", "length"), "int64"),
)
VALUES = np.array([0.0, 5.0, 1.0, -2.0])


def reader(values: np.ndarray = VALUES) -> Model:
    """Adds up a value for each token that is not masked."""
    return Model(
        lambda arrays: (values[arrays["input_ids"]] * arrays["attention_mask"]).sum(axis=1) + 100,
        inputs=(IDS, MASK),
    )


def texts(ids: list[int], visible: int) -> Samples:
    row = np.array([ids], np.int64)
    mask = (np.arange(len(ids)) < visible).astype(np.int64)[None]
    return samples_of({"input_ids": row, "attention_mask": mask}, specs=[IDS, MASK])


def test_each_token_is_left_out_once_and_padding_is_not():
    found = explained(reader(), reader(VALUES[::-1].copy()), texts([1, 2, 3, 0, 0], 3))
    assert (found.kind, found.input, found.layout) == ("tokens", "attention_mask", None)
    np.testing.assert_allclose(found.samples[0].baseline_map, [[5.0, 1.0, -2.0]], atol=1e-3)
    np.testing.assert_allclose(found.samples[0].variant_map, [[1.0, 5.0, 0.0]], atol=1e-3)
    assert found.top_overlap == 0.0


def test_tokens_of_a_long_text_are_left_out_in_neighbouring_groups():
    found = explained(reader(), reader(), texts([1, 1, 2, 2], 4), SaliencyPlan(most_tokens=2))
    np.testing.assert_allclose(found.samples[0].baseline_map, [[10.0, 2.0]], atol=1e-3)


@pytest.mark.parametrize("visible", [0, 1])
def test_a_text_of_one_token_cannot_be_explained(visible):
    assert "no sample has two parts" in why_not(reader(), texts([1, 2], visible))


def test_numbers_in_a_table_cannot_be_hidden():
    table = spec("features", ("batch", 8))
    model = Model(lambda arrays: arrays["features"].sum(axis=1), inputs=(table,))
    reason = why_not(model, samples_of({"features": np.ones((2, 8), np.float32)}, specs=[table]))
    assert "parts can be hidden in images (rank 4) and in tokens" in reason
    assert "the inputs are features float32 batchx8" in reason


def test_a_model_without_class_scores_is_told_so():
    boxes = corner(outputs=(spec("boxes", ("batch", 2)),))
    assert "the model decides no classes" in why_not(boxes, images())


def test_decisions_without_scores_cannot_be_explained():
    deciding = Model(corner().score, outputs=(spec("class", ("batch",), "int64"),))
    deciding.run = lambda arrays: {"class": np.ones(len(arrays["image"]), np.int64)}
    assert "decisions without the scores" in why_not(deciding, images())


WEIGHTS = np.random.default_rng(7).normal(size=(8, 8))
FIRST = next(images(2).batches(1)).inputs["image"][0, 0, 0, 0]

maps = numpy_arrays(np.float64, (4, 5), elements=st.integers(-6, 6).map(float))


def test_spearman_gives_equal_values_their_mean_rank():
    first, second = np.array([[1.0, 2.0, 2.0, 4.0]]), np.array([[10.0, 30.0, 20.0, 40.0]])
    assert rank_correlation(first, second) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))


@given(maps, maps)
def test_rank_correlation_is_symmetric_bounded_and_blind_to_monotone_change(first, second):
    found = rank_correlation(first, second)
    assert -1 <= found <= 1
    assert found == pytest.approx(rank_correlation(second, first))
    assert found == pytest.approx(rank_correlation(np.exp(first), second**3))
    assert rank_correlation(first, first) == 1.0
    if np.ptp(first) > 0:
        assert rank_correlation(first, -first) == pytest.approx(-1.0)


@given(maps, maps)
def test_overlap_is_symmetric_and_full_for_equal_maps(first, second):
    found = top_overlap(first, second)
    assert 0 <= found <= 1
    assert found == top_overlap(second, first)
    assert top_overlap(first, first) == 1.0


def test_the_top_tenth_is_rounded_up_takes_ties_and_nothing_that_speaks_against():
    first = np.array([[5.0, 4.0, *[1.0] * 9]])
    second = np.array([[5.0, 1.0, 4.0, *[0.0] * 8]])
    assert top_overlap(first, second) == 0.5
    assert top_overlap(np.array([[3.0, 3.0, 3.0, 0.0]]), np.array([[3.0, 1.0, 0.0, 0.0]])) == pytest.approx(
        1 / 3
    )
    assert top_overlap(-first, -first) == 1.0
    assert top_overlap(first, -first) == 0.0


def test_falls_below_what_float32_resolves_are_zero():
    found = falls(1000.0, np.array([1000.0001, 999.9999, 990.0]))
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] == pytest.approx(10.0, abs=0.001)
    assert np.isnan(falls(1.0, np.array([np.nan]))).all()
    assert falls(0.0, np.zeros(2)).tolist() == [0.0, 0.0]
