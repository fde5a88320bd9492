"""Shapes and targets of a preflight: what is asked, what is chosen, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.errors import InputError, TargetError
from jettison.core.targets import CAPABILITIES, parse_target
from jettison.engines.tensorrt.capabilities import NAMEABLE, compiled_for
from jettison.engines.tensorrt.shapes import OpenInput, ShapeRange, choose_ranges, parse_shape_range

IMAGES = OpenInput(name="images", shape=(-1, 3, 224, 224), dimension_names=("batch", "", "", ""))


def range_of(name: str, *shapes: tuple[int, ...]) -> ShapeRange:
    return ShapeRange(name=name, minimum=shapes[0], optimum=shapes[1], maximum=shapes[2])


def test_a_range_is_read_from_three_shapes() -> None:
    found = parse_shape_range("a=b=1x3,2x3,8x3")
    assert found == range_of("a=b", (1, 3), (2, 3), (8, 3))


def test_one_shape_is_a_range_of_that_shape() -> None:
    assert parse_shape_range("x=4x3") == range_of("x", (4, 3), (4, 3), (4, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x3,2x3,8x3", "shapes '1x3,2x3,8x3': expected NAME=MIN,OPT,MAX or NAME=SHAPE."),
        ("x=1x3,8x3", "shapes 'x=1x3,8x3': expected NAME=MIN,OPT,MAX or NAME=SHAPE."),
        ("image=64x", "shape '64x' for 'image': expected whole numbers joined by x."),
        ("x=1x3,2x,8x3", "shape '2x' for 'x': expected whole numbers joined by x."),
        ("x=", "shape '' for 'x': expected whole numbers joined by x."),
        ("x=8x3,2x3,1x3", "shapes for 'x': expected minimum <= optimum <= maximum, found 8, 2, 1."),
        ("x=1x3,2x3,8", "shapes for 'x': expected three shapes of one rank, found 1x3, 2x3, 8."),
    ],
)
def test_a_bad_range_is_an_input_error_that_names_the_input(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_shape_range(text)
    example = "Write it like --shapes images=1x3x224x224,4x3x224x224,8x3x224x224"
    assert str(caught.value) == f"{message} {example}"


@given(
    st.text("abc=:/.0", min_size=1),
    st.lists(st.lists(st.integers(1, 99), min_size=3, max_size=3), min_size=1),
)
def test_writing_and_reading_a_range_gives_it_back(name: str, sizes: list[list[int]]) -> None:
    ordered = [sorted(triple) for triple in sizes]
    found = range_of(name, *(tuple(triple[place] for triple in ordered) for place in range(3)))
    assert parse_shape_range(str(found)) == found


def test_an_open_batch_goes_from_one_to_eight() -> None:
    (found,) = choose_ranges([IMAGES], [])
    assert str(found) == "images=1x3x224x224,8x3x224x224,8x3x224x224"


def test_open_height_and_width_get_multiples_of_32() -> None:
    item = OpenInput(name="x", shape=(1, 3, -1, -1), dimension_names=("", "", "height", "width"))
    (found,) = choose_ranges([item], [])
    assert str(found) == "x=1x3x128x128,1x3x224x224,1x3x256x256"


def test_a_closed_input_needs_no_range() -> None:
    item = OpenInput(name="x", shape=(1, 3), dimension_names=("", ""))
    assert choose_ranges([item], []) == ()


def test_dimensions_of_one_name_get_one_size() -> None:
    ids = OpenInput(name="ids", shape=(-1, -1), dimension_names=("batch", "sequence"))
    mask = OpenInput(name="mask", shape=(-1, -1), dimension_names=("sequence", "sequence"))
    first, second = choose_ranges([ids, mask], [])
    assert second.maximum == (first.maximum[1], first.maximum[1])


def test_a_given_range_fixes_dimensions_of_the_same_name_elsewhere() -> None:
    ids = OpenInput(name="ids", shape=(-1, -1), dimension_names=("batch", "sequence"))
    mask = ids.model_copy(update={"name": "mask"})
    first, second = choose_ranges([ids, mask], [range_of("mask", (2, 7), (3, 8), (4, 9))])
    assert (first.minimum, first.optimum, first.maximum) == ((2, 7), (3, 8), (4, 9))
    assert second.name == "mask"


@pytest.mark.parametrize("shape", [(1, 1, 224, 224), (1, 3, 224), (0, 3, 224, 224)])
def test_a_range_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \?x3x224x224, found"):
        choose_ranges([IMAGES], [range_of("images", shape, shape, shape)])


def test_a_range_for_no_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"shapes for 'image': expected one of the inputs \['images'\]"):
        choose_ranges([IMAGES], [range_of("image", (1,), (1,), (1,))])


def test_values_of_a_shape_input_must_be_given() -> None:
    item = OpenInput(name="size", shape=(2,), dimension_names=("",), is_shape_tensor=True)
    with pytest.raises(InputError, match="input 'size': it carries a shape, whose values cannot be guessed"):
        choose_ranges([item], [])
    values = range_of("size", (1, 64), (4, 64), (8, 64))
    assert choose_ranges([item], [values]) == (values,)


@pytest.mark.parametrize(
    ("asked", "compiled"),
    [("sm87", "sm86"), ("sm90", "sm89"), ("sm100", "sm120"), ("sm103", "sm120"), ("sm110", "sm120")],
)
def test_a_gpu_that_cannot_be_named_is_stood_in_for_and_said_so(asked: str, compiled: str) -> None:
    place = compiled_for(parse_target(asked))
    assert (place.name, place.nearest) == (compiled, True)
    assert f"does not compile for {asked}" in str(place.note)


@pytest.mark.parametrize("capability", sorted(CAPABILITIES))
def test_every_gpu_of_the_project_has_a_place(capability: int) -> None:
    place = compiled_for(parse_target(f"sm{capability}"))
    assert place.compute_capability in NAMEABLE
    assert place.nearest == (capability not in NAMEABLE)


def test_the_generic_target_is_compiled_for_a_gpu_without_fp8() -> None:
    place = compiled_for(parse_target("tensorrt"))
    assert (place.name, place.nearest) == ("sm86", True)
    assert "neither FP8 nor FP4" in str(place.note)


def test_the_cpu_has_no_preflight() -> None:
    with pytest.raises(TargetError, match="Use --target tensorrt"):
        compiled_for(parse_target("cpu"))
