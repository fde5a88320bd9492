"""Pydantic's findings in plain words."""

from __future__ import annotations

import datetime
from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from jettison.core.validation import problem_of, refuse_truth, shown


class Settings(BaseModel):
    code: str = Field(default="ab", pattern="^[a-z]+$")
    exact: bool = False
    either: float | Literal["auto"] = "auto"
    sizes: list[int] = Field(default=[1], max_length=2)
    names: dict[str, int] = {}
    perhaps: bool | None = None
    block: Literal[32, 64, 128] = 128


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"code": "A1"}, "code: expected text of the form ^[a-z]+$, found 'A1'"),
        ({"exact": "perhaps"}, "exact: expected true or false, found 'perhaps'"),
        ({"exact": [1]}, "exact: expected true or false, found [1]"),
        ({"either": "often"}, "either: expected one of auto, or a number, found 'often'"),
        ({"sizes": 3}, "sizes: expected a list, found 3"),
        ({"sizes": ["9" * 5000]}, "sizes.0: expected a whole number of fewer digits, found '999"),
        ({"names": [1]}, "names: expected a mapping of keys, found [1]"),
        ({"block": 48}, "block: expected one of 32, 64, 128, found 48"),
    ],
)
def test_finding_in_words(given, words):
    with pytest.raises(ValidationError) as caught:
        Settings(**given)
    assert problem_of(caught.value).detail.startswith(words)


def test_finding_that_has_no_words_here_keeps_pydantics():
    with pytest.raises(ValidationError) as caught:
        Settings(sizes=[1, 2, 3])
    assert problem_of(caught.value).detail == (
        "sizes: List should have at most 2 items after validation, not 3"
    )


def test_truth_stands_only_where_it_is_asked_for():
    refuse_truth({"exact": True, "perhaps": False, "unknown": True}, Settings)
    refuse_truth("no mapping", Settings)
    with pytest.raises(ValueError, match="expected a number or text for either, found true"):
        refuse_truth({"either": True}, Settings)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (datetime.date(2026, 1, 2), "the date 2026-01-02"),
        ("mse", "'mse'"),
        ([[[[1]]]], "[[[...]]]"),
    ],
)
def test_value_as_it_is_shown(value, text):
    assert shown(value) == text


def test_long_value_is_cut():
    assert len(shown("x" * 10_000)) <= 80
    assert len(shown([["x" * 1000] * 1000] * 1000)) < 5000
