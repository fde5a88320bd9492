"""Which shapes an engine is compiled for: smallest, most usual and largest size of every open dimension."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jettison.core.errors import InputError
from jettison.core.tensors import format_shape, parse_shape
from jettison.core.validation import problem_of

Sizes = tuple[int, int, int]
"""Minimum, optimum and maximum."""

BATCH: Sizes = (1, 8, 8)
CHANNELS: Sizes = (3, 3, 3)
SPATIAL: Sizes = (128, 224, 256)
"""Height and width of images: the size of ImageNet's crops between multiples of 32, the stride of most
networks, so that a decoder's skip connections meet."""
VOLUME: Sizes = (16, 32, 64)
SEQUENCE: Sizes = (32, 128, 256)
"""Tokens or time steps, for inputs of rank 2 and 3."""

_UNNAMED = ("", "?")


class ShapeRange(BaseModel):
    """Smallest, most usual and largest shape of one input, the optimization profile of TensorRT.

    For an input that itself carries a shape (the second input of Reshape, say) these are its values.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    @model_validator(mode="after")
    def _is_ordered(self) -> ShapeRange:
        if not len(self.minimum) == len(self.optimum) == len(self.maximum):
            shapes = ", ".join(format_shape(shape) for shape in (self.minimum, self.optimum, self.maximum))
            raise ValueError(f"expected three shapes of one rank, found {shapes}")
        for low, usual, high in zip(self.minimum, self.optimum, self.maximum, strict=True):
            if not low <= usual <= high:
                raise ValueError(f"expected minimum <= optimum <= maximum, found {low}, {usual}, {high}")
        return self

    def __str__(self) -> str:
        shapes = (self.minimum, self.optimum, self.maximum)
        return f"{self.name}={','.join(format_shape(shape) for shape in shapes)}"


class OpenInput(BaseModel):
    """An input of the parsed network: -1 for open dimensions, names where the model has them."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    is_shape_tensor: bool = False

    @property
    def needs_range(self) -> bool:
        """Whether TensorRT asks for an optimization profile."""
        return self.is_shape_tensor or -1 in self.shape


def parse_shape_range(text: str) -> ShapeRange:
    """The range written as `NAME=MIN,OPT,MAX`, or `NAME=SHAPE` for one fixed shape.

    Raises:
        InputError: The text is not of that form, or the three shapes do not fit together; it names the input.
    """
    name, _, shapes = text.rpartition("=")
    parts = shapes.split(",")
    if not name or len(parts) not in (1, 3):
        raise InputError(f"shapes {text!r}", detail="expected NAME=MIN,OPT,MAX or NAME=SHAPE", fix=_EXAMPLE)
    try:
        sizes = [parse_shape(part) for part in (parts * 3 if len(parts) == 1 else parts)]
        return ShapeRange(name=name, minimum=sizes[0], optimum=sizes[1], maximum=sizes[2])
    except InputError as error:
        raise InputError(f"{error.what} for {name!r}", detail=error.detail, fix=_EXAMPLE) from error
    except ValidationError as error:
        raise InputError(f"shapes for {name!r}", detail=problem_of(error).detail, fix=_EXAMPLE) from error


_EXAMPLE = "Write it like --shapes images=1x3x224x224,4x3x224x224,8x3x224x224"


def choose_ranges(inputs: Sequence[OpenInput], given: Sequence[ShapeRange]) -> tuple[ShapeRange, ...]:
    """One range for each input that needs one: the given one, or a default by the dimension's place.

    Dimensions of one name get one default, since TensorRT takes them for equal.

    Raises:
        InputError: A range for an input that does not exist or does not fit, or none for a shape tensor.
    """
    by_name = {range_.name: range_ for range_ in given}
    known = [item.name for item in inputs]
    for name in by_name:
        if name not in known:
            raise InputError(
                f"shapes for {name!r}", detail=f"expected one of the inputs {known}", fix=_EXAMPLE
            )
    sizes = _given_sizes(inputs, by_name)
    chosen: list[ShapeRange] = []
    for item in inputs:
        if item.name in by_name:
            _check_fit(item, by_name[item.name])
        if item.needs_range:
            chosen.append(by_name.get(item.name) or _default(item, sizes))
    return tuple(chosen)


def _given_sizes(inputs: Sequence[OpenInput], by_name: dict[str, ShapeRange]) -> dict[str, Sizes]:
    """Sizes of named dimensions that the user's ranges fix."""
    sizes: dict[str, Sizes] = {}
    for item in inputs:
        if (found := by_name.get(item.name)) is None or item.is_shape_tensor:
            continue
        triples = zip(found.minimum, found.optimum, found.maximum, strict=True)
        for name, triple in zip(item.dimension_names, triples, strict=False):
            if name not in _UNNAMED:
                sizes.setdefault(name, triple)
    return sizes


def _check_fit(item: OpenInput, found: ShapeRange) -> None:
    if item.is_shape_tensor:
        return
    for shape in (found.minimum, found.optimum, found.maximum):
        fits = len(shape) == len(item.shape) and all(
            size == fixed if fixed >= 0 else size > 0 for size, fixed in zip(shape, item.shape, strict=True)
        )
        if not fits:
            expected = format_shape([None if size < 0 else size for size in item.shape])
            raise InputError(
                f"shapes for {item.name!r}",
                detail=f"expected {expected}, found {format_shape(shape)}",
                fix=_EXAMPLE,
            )


def _default(item: OpenInput, sizes: dict[str, Sizes]) -> ShapeRange:
    if item.is_shape_tensor:
        raise InputError(
            f"input {item.name!r}",
            detail="it carries a shape, whose values cannot be guessed",
            fix=f"Give the values: --shapes {item.name}=MIN,OPT,MAX",
        )
    triples = [_sizes_of(item, axis, sizes) for axis in range(len(item.shape))]
    low, usual, high = (tuple(triple[place] for triple in triples) for place in range(3))
    return ShapeRange(name=item.name, minimum=low, optimum=usual, maximum=high)


def _sizes_of(item: OpenInput, axis: int, sizes: dict[str, Sizes]) -> Sizes:
    size = item.shape[axis]
    if size >= 0:
        return (size, size, size)
    name = item.dimension_names[axis]
    fallback = _default_sizes(axis, rank=len(item.shape))
    return fallback if name in _UNNAMED else sizes.setdefault(name, fallback)


def _default_sizes(axis: int, *, rank: int) -> Sizes:
    if axis == 0:
        return BATCH
    if rank <= 3:
        return SEQUENCE
    if axis == 1:
        return CHANNELS
    return SPATIAL if rank == 4 else VOLUME
