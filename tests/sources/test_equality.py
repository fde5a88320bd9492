"""When answers are equal: by a share of the largest value, integers exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.sources.equality import TOLERANCE, differences


def told(expected, found):
    return list(differences({"y": np.asarray(expected)}, {"y": np.asarray(found)}))


@given(st.floats(-1e3, 1e3, width=32), st.floats(0.01, 0.9))
def test_a_difference_within_the_tolerance_of_the_peak_passes_and_ten_times_it_does_not(value, share):
    peak = np.float64(2e3)
    expected = np.array([value, peak])
    assert told(expected, expected + np.array([share * TOLERANCE * peak, 0])) == []
    assert told(expected, expected + np.array([10 * TOLERANCE * peak, 0])) != []


def test_the_message_names_output_difference_and_scale():
    assert told(np.float32([1, 4]), np.float32([1.5, 4])) == [
        "output 'y' differs by 0.5, with values up to 4 and a tolerance of 0.0001 of that"
    ]


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ([[1.0, 2.0]], [1.0, 2.0], "is of shape [2] instead of [1, 2]"),
        ([1, 2, 3], [1, 2, 4], "differs in 1 of 3 values"),
        ([True, False], [True, True], "differs in 1 of 2 values"),
        ([1.0, np.nan], [1.0, 1.0], "has NaN or infinity in other places"),
    ],
)
def test_shapes_integers_and_what_is_no_number_have_to_agree(expected, found, words):
    assert told(expected, found) == [f"output 'y' {words}"]


def test_equal_places_of_nan_and_values_near_zero_pass():
    assert told([np.nan, 1.0], [np.nan, 1.0]) == []
    assert told([0.0, 0.0], [1e-7, 0.0]) == []
    assert told(np.float16([1.0]), np.float16([1.005])) == [], "float16 resolves a thousandth"
