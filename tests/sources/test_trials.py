"""What a model is tried on: batches of several and of one, two sizes of every open axis."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.errors import ModelError, SamplesError
from jettison.sources.trials import open_axes, ordered, trials_of


def rows(count, *size):
    return {"x": np.arange(count * int(np.prod(size)), dtype=np.float32).reshape(count, *size)}


def test_axes_stay_open_where_samples_differ_or_a_name_is_given():
    arrays = {"x": np.zeros((1, 4, 4)), "y": np.zeros((1, 2))}
    found = open_axes(arrays, varying={"x": (2,)}, named={"x": (1,)})
    assert found == {"x": (1, 2), "y": ()}


@pytest.mark.parametrize("named", [{"z": (1,)}, {"x": (3,)}])
def test_axes_that_are_not_there_are_told(named):
    with pytest.raises(ModelError, match=r"dynamic axes .* expected axes of x with axes 0 to 2"):
        open_axes(rows(1, 4, 4), varying={}, named=named)


def test_a_second_size_is_made_by_cutting():
    whole, half = ordered([rows(2, 7, 4)], {"x": (1,)})
    assert (whole["x"].shape, half["x"].shape) == ((2, 7, 4), (2, 3, 4))
    assert np.array_equal(half["x"], whole["x"][:, :3])


def test_given_sizes_are_taken_and_an_export_is_made_from_one_that_shows_the_axis():
    found = ordered([rows(2, 1, 4), rows(2, 6, 4)], {"x": (1,)})
    assert [arrays["x"].shape[1] for arrays in found] == [6, 1]


def test_an_open_axis_of_one_element_only_is_told():
    with pytest.raises(
        SamplesError, match=r"more than one element along the open axes {'x': \(1,\)}, found one"
    ):
        ordered([rows(2, 1, 4)], {"x": (1,)})


def test_each_size_is_tried_in_a_batch_of_three_and_of_one():
    found = [trial["x"] for trial in trials_of([rows(2, 4), rows(5, 6)])]
    assert [array.shape for array in found] == [(3, 4), (1, 4), (3, 6), (1, 6)]
    assert np.array_equal(found[0][2], found[0][0]), "too few rows are repeated"
