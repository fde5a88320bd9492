"""Which weights are removed: laws of thresholds, of exact sparsity and of two in four."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.compress.pruning.masks import below, deviations_of, smallest, two_of_four
from jettison.compress.pruning.schedule import cubic_sparsity

SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.0, 1.0)


def weights(seed: int, *, zeros: float = 0.0, levels: int = 0) -> list[np.ndarray]:
    """Three weights of different shapes and scales; with `levels` many magnitudes are equal."""
    rng = np.random.default_rng(seed)
    found = []
    for scale, shape in ((1.0, (5, 8, 3, 3)), (0.2, (12, 7)), (3.0, (1, 4))):
        weight = rng.normal(0, scale, shape)
        if levels:
            weight = np.rint(weight * levels / 3) / levels
        weight[rng.random(shape) < zeros] = 0
        found.append(weight.astype(np.float32))
    return found


@given(seed=SEEDS, share=SHARES, levels=st.sampled_from([0, 4]), zeros=st.sampled_from([0.0, 0.3]))
def test_the_sparsity_is_reached_exactly(seed: int, share: float, levels: int, zeros: float) -> None:
    scores = [np.abs(weight) for weight in weights(seed, zeros=zeros, levels=levels)]
    masks = smallest(scores, share)
    count = sum(score.size for score in scores)
    already = sum(int(np.count_nonzero(score == 0)) for score in scores)
    assert [mask.shape for mask in masks] == [score.shape for score in scores]
    assert sum(int(np.count_nonzero(mask)) for mask in masks) == max(round(share * count), already)


@given(seed=SEEDS, share=SHARES, levels=st.sampled_from([0, 4]))
def test_nothing_that_goes_scores_more_than_what_stays(seed: int, share: float, levels: int) -> None:
    scores = [np.abs(weight) for weight in weights(seed, levels=levels)]
    masks = smallest(scores, share)
    gone = np.concatenate([score[mask] for score, mask in zip(scores, masks, strict=True)])
    kept = np.concatenate([score[~mask] for score, mask in zip(scores, masks, strict=True)])
    assert max(gone, default=0) <= min(kept, default=np.inf)


@given(seed=SEEDS, first=SHARES, second=SHARES)
def test_more_sparsity_never_brings_a_weight_back(seed: int, first: float, second: float) -> None:
    scores = [np.abs(weight) for weight in weights(seed, levels=4)]
    low, high = (smallest(scores, share) for share in sorted((first, second)))
    assert not any((less & ~more).any() for less, more in zip(low, high, strict=True))


@given(seed=SEEDS, threshold=st.floats(1e-6, 5))
def test_a_threshold_removes_exactly_what_is_below_it(seed: int, threshold: float) -> None:
    for weight in weights(seed):
        np.testing.assert_array_equal(below(weight, threshold), np.abs(weight) < threshold)


def test_a_weight_at_the_threshold_stays() -> None:
    np.testing.assert_array_equal(below(np.float32([-0.5, 0.25, 0.5, 0]), 0.5), [False, True, False, True])


@given(seed=SEEDS, deviations=st.floats(0.01, 4), factor=st.floats(1e-3, 1e3))
def test_a_threshold_in_deviations_does_not_depend_on_a_layers_scale(
    seed: int, deviations: float, factor: float
) -> None:
    """The same weights go whatever the layer is multiplied by, but for those within rounding of the edge."""
    weight = weights(seed)[0]
    scaled = weight * np.float32(factor)
    threshold = deviations_of(weight, deviations)
    clear = np.abs(np.abs(weight) - threshold) > 1e-4 * threshold
    found = below(scaled, deviations_of(scaled, deviations))
    np.testing.assert_array_equal(found[clear], below(weight, threshold)[clear])


@given(seed=SEEDS, axis=st.integers(0, 3), levels=st.sampled_from([0, 2]))
def test_every_four_loses_its_two_smallest(seed: int, axis: int, levels: int) -> None:
    shape = [3, 5, 2, 6]
    shape[axis] = 8
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, shape)
    scores = np.abs(np.rint(weight * levels) if levels else weight).astype(np.float32)
    mask = two_of_four(scores, axis)
    fours, gone = (np.moveaxis(array, axis, -1).reshape(-1, 4) for array in (scores, mask))
    zeros = (fours == 0).sum(axis=1)
    np.testing.assert_array_equal(gone.sum(axis=1), np.maximum(zeros, 2))
    kept = np.where(gone, 0, fours).sum(axis=1)
    np.testing.assert_allclose(kept, np.sort(fours, axis=1)[:, 2:].sum(axis=1), rtol=1e-6)


def test_of_equal_weights_in_a_four_the_first_two_go() -> None:
    np.testing.assert_array_equal(two_of_four(np.ones((1, 4), np.float32), 1), [[True, True, False, False]])


def test_the_schedule_begins_fast_and_ends_slowly() -> None:
    found = [cubic_sparsity(step, 100, final=0.8) for step in (0, 25, 50, 75, 100)]
    assert found == pytest.approx([0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8])


@given(
    steps=st.integers(0, 50),
    begin=st.integers(0, 20),
    initial=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_the_schedule_goes_from_one_end_to_the_other_and_never_back(
    steps: int, begin: int, initial: float, final: float
) -> None:
    found = [
        cubic_sparsity(step, steps, final=final, initial=initial, begin=begin)
        for step in range(begin + steps + 5)
    ]
    assert all(value == initial for value in found[:begin])
    assert all(value == final for value in found[begin + steps :])
    signs = np.sign(np.diff(found)) * np.sign(final - initial)
    assert (signs >= 0).all() or np.abs(np.diff(found)[signs < 0]).max() < 1e-12
