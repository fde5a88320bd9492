from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.evaluate.figures import beyond, exact, percent

NUMBERS = st.floats(-1e6, 1e6).map(lambda value: value + 0.0)


@given(NUMBERS, NUMBERS, st.sampled_from([None, 2]))
def test_a_figure_is_read_on_its_own_side_of_the_limit(value, limit, decimals):
    read = float(beyond(value, limit, decimals=decimals))
    assert (read < limit) == (value < limit)
    assert (read > limit) == (value > limit)


@pytest.mark.parametrize(
    ("value", "limit", "decimals", "text"),
    [
        (0.93, 1, 2, "0.93"),
        (0.9992, 1, 2, "0.999"),
        (0.996, 1, 2, "0.996"),
        (1.0, 1, 2, "1.00"),
        (0.029513, 0.01, None, "0.02951"),
        (0.01000004, 0.01, None, "0.01000004"),
        (1 - 2**-53, 1, 2, "0.9999999999999999"),
    ],
)
def test_a_figure_has_as_few_digits_as_that_takes(value, limit, decimals, text):
    assert beyond(value, limit, decimals=decimals) == text


def test_signs_are_shown_where_asked():
    assert (beyond(0.5, 0, sign="+"), beyond(-0.5, 0, sign="+")) == ("+0.5", "-0.5")


def test_settings_read_as_they_were_written():
    assert [exact(value) for value in (1.0, 0, 0.01, 1e-05, 0.0123456789)] == [
        "1", "0", "0.01", "1e-05", "0.0123456789",
    ]  # fmt: skip
    assert [percent(share) for share in (0.95, 0.57, 0.999, 0.99999)] == ["95%", "57%", "99.9%", "99.999%"]


@given(st.floats(0.5, 1, exclude_max=True))
def test_a_share_below_one_never_reads_as_all_of_it(share):
    assert percent(share) != "100%"
    assert float(percent(share)[:-1]) == pytest.approx(share * 100, rel=1e-11)  # 12 digits or more


def test_a_share_next_to_one_has_the_digits_that_it_takes():
    assert [percent(share) for share in (1 - 1e-15, 1.0)] == ["99.9999999999999%", "100%"]
