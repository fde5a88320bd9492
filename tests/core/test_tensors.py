"""Tensor specifications: shapes as text both ways, and why an array does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.dtypes import of_name
from jettison.core.errors import InputError
from jettison.core.tensors import Dimension, TensorSpec, format_shape, parse_shape


def spec(*shape: Dimension) -> TensorSpec:
    return TensorSpec(name="image", dtype=of_name("float32"), shape=shape)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_a_shape_is_read_as_it_was_written(sizes: list[int]) -> None:
    assert parse_shape(format_shape(sizes)) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "x", "1x", "1x-3", "1x3.5", "axb", "1 x 3"])
def test_a_shape_that_is_no_numbers_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected whole numbers joined by x\. Write it like 1x3x224x224"):
        parse_shape(text)


def test_open_dimensions_are_written_by_name_or_as_a_question_mark() -> None:
    assert str(spec("batch", 3, None)) == "image float32 batchx3x?"
    assert format_shape(()) == "scalar"


def test_openness_is_told_for_the_batch_and_for_any_dimension() -> None:
    assert (spec("n", 3).is_dynamic, spec("n", 3).has_dynamic_batch) == (True, True)
    assert (spec(2, "h").is_dynamic, spec(2, "h").has_dynamic_batch) == (True, False)
    assert (spec(2, 3).is_dynamic, spec().has_dynamic_batch) == (False, False)


def test_a_mismatch_tells_the_expected_and_the_found_shape() -> None:
    assert spec("n", 3).mismatch((7, 3)) is None
    assert spec("n", 3).mismatch((7, 4)) == "expected shape nx3, found 7x4"
    assert spec("n", 3).mismatch(()) == "expected 2 dimensions (nx3), found scalar"


def test_a_specification_survives_json() -> None:
    found = spec("n", 3, None)
    assert TensorSpec.model_validate_json(found.model_dump_json()) == found


def test_an_unknown_element_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown element type 'float31'"):
        TensorSpec(name="x", dtype="float31", shape=())
