"""YAML whose keys stand once each."""

from __future__ import annotations

import pytest

from jettison.core.errors import RecipeError
from jettison.core.strict_yaml import load_yaml


def load(text):
    return load_yaml(text, what="recipe", fix="Correct it")


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2", "{a: 1, 'a': 2}", "b: {a: 1, c: 2, a: 3}", "- {a: 1, a: 1}", "x: &x {a: 1, a: 2}\ny: *x"],
)
def test_key_that_stands_twice_is_refused(text):
    with pytest.raises(RecipeError, match="the key 'a' stands twice, in lines 1 and"):
        load(text)


def test_equal_keys_of_different_mappings_are_taken():
    assert load("{a: {k: 1}, b: {k: 2}, c: [{k: 3}, {k: 4}]}") == {
        "a": {"k": 1}, "b": {"k": 2}, "c": [{"k": 3}, {"k": 4}]
    }  # fmt: skip


def test_key_as_a_number_and_as_text_are_two():
    assert load("{1: a, '1': b}") == {1: "a", "1": "b"}


def test_merged_key_may_be_overridden():
    text = "base: &base {a: 1, b: 2}\nmore: &more\n  <<: *base\n  a: 3\nmost:\n  <<: *more\n  a: 4\n"
    assert load(text)["most"] == {"a": 4, "b": 2}


def test_code_is_not_run():
    with pytest.raises(RecipeError, match="not YAML"):
        load("!!python/object/apply:os.system [echo]")


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(RecipeError, match="not YAML"):
        load("[" * 5000)
