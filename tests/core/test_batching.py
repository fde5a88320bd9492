"""Batches made to fit what a model demands."""

from collections.abc import Iterable

import numpy as np
import pytest

from jettison.core.batching import fitting_batches, fixed_batch_size, one_batch, padded
from jettison.core.dtypes import of_name
from jettison.core.errors import ModelError
from jettison.core.samples import Samples, samples_of
from jettison.core.tensors import Arrays, TensorSpec


def spec(*shape: int | str | None, name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype=of_name("float32"), shape=shape)


@pytest.mark.parametrize(
    ("shapes", "size"),
    [([("n", 3)], None), ([(4, 3)], 4), ([("n", 3), (4, 3)], 4), ([("n", 3), ()], 1)],
    ids=["open", "fixed", "mixed", "scalar"],
)
def test_the_batch_size_that_inputs_demand(shapes: list[tuple[int | str, ...]], size: int | None) -> None:
    assert fixed_batch_size([spec(*shape) for shape in shapes]) == size


def test_inputs_fixed_to_different_sizes_are_told() -> None:
    with pytest.raises(ModelError, match=r"expected one batch size .*found \{'a': 2, 'b': 4\}"):
        fixed_batch_size([spec(2, 3, name="a"), spec(4, 3, name="b")])


@pytest.mark.parametrize(("first", "rows"), [("n", [0]), (2, [0, 1]), (5, [0, 1, 2, 2, 2])])
def test_one_batch_has_the_fixed_size_though_there_are_fewer_samples(
    first: int | str, rows: list[int]
) -> None:
    array = np.arange(9, dtype=np.float32).reshape(3, 3)
    inputs = [spec(first, 3)]
    found = one_batch(samples_of({"x": array}, specs=inputs), inputs)
    assert found["x"].tolist() == array[rows].tolist()


def test_a_batch_that_is_large_enough_is_left_alone() -> None:
    array = np.zeros((3, 2))
    assert padded({"x": array}, 3)["x"] is array


def numbered(count: int) -> Samples:
    return samples_of({"x": np.arange(count, dtype=np.float32)[:, None]}, specs=[spec(None, 1)])


def rows(batches: Iterable[Arrays]) -> list[list[float]]:
    return [batch["x"].ravel().tolist() for batch in batches]


def test_open_batches_are_of_the_size_asked_for_and_end_shorter() -> None:
    assert rows(fitting_batches(numbered(5), [spec(None, 1)], size=2)) == [[0, 1], [2, 3], [4]]


def test_fixed_batches_fill_the_last_one_up_or_leave_it_out() -> None:
    assert rows(fitting_batches(numbered(5), [spec(2, 1)])) == [[0, 1], [2, 3], [4, 4]]
    assert rows(fitting_batches(numbered(5), [spec(2, 1)], fill_last=False)) == [[0, 1], [2, 3]]


def test_the_only_batch_is_never_left_out() -> None:
    assert rows(fitting_batches(numbered(1), [spec(2, 1)], fill_last=False)) == [[0, 0]]


@pytest.mark.parametrize(
    ("count", "size", "batches"),
    [
        (2, 4, [[0, 1, 0, 1]]),
        (3, 4, [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]),
        (4, 6, [[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 2, 3]]),
    ],
)
def test_in_an_only_batch_that_is_too_short_each_sample_counts_alike(
    count: int, size: int, batches: list[list[float]]
) -> None:
    assert rows(fitting_batches(numbered(count), [spec(size, 1)], fill_last=False)) == batches


def test_progress_counts_samples_not_what_was_filled_up() -> None:
    seen = []
    list(fitting_batches(numbered(5), [spec(2, 1)], progress=lambda *found: seen.append(found)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
