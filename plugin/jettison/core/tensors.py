"""Names, element types and shapes of a model's inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from jettison.core import dtypes
from jettison.core.dtypes import ElementType
from jettison.core.errors import InputError

Dimension = int | str | None
"""A size, the name of a dynamic dimension, or None for one without a name."""


def _element_type(value: Any) -> ElementType:
    row = value if isinstance(value, ElementType) else dtypes.of_name(str(value))
    if row is None:
        raise ValueError(f"unknown element type {value!r}")
    return row


ElementTypeField = Annotated[
    ElementType, PlainValidator(_element_type), PlainSerializer(lambda row: row.name, return_type=str)
]


class TensorSpec(BaseModel):
    """Name, element type and shape of one input or output."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    dtype: ElementTypeField
    shape: tuple[Dimension, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is left open."""
        return any(not isinstance(size, int) for size in self.shape)

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first dimension is left open."""
        return bool(self.shape) and not isinstance(self.shape[0], int)

    def mismatch(self, shape: Sequence[int]) -> str | None:
        """Why an array of that shape does not fit, or None if it does."""
        if len(shape) != len(self.shape):
            expected_rank = f"{len(self.shape)} dimensions ({format_shape(self.shape)})"
            return f"expected {expected_rank}, found {format_shape(shape)}"
        for expected, found in zip(self.shape, shape, strict=True):
            if isinstance(expected, int) and expected != found:
                return f"expected shape {format_shape(self.shape)}, found {format_shape(shape)}"
        return None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: Sequence[Dimension]) -> str:
    """The shape as people write it: `1x3x224x224`, open dimensions by name or `?`."""
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def parse_shape(text: str) -> tuple[int, ...]:
    """The sizes in `1x3x224x224`.

    Raises:
        InputError: The text is not whole numbers joined by x.
    """
    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise InputError(
            f"shape {text!r}", detail="expected whole numbers joined by x", fix="Write it like 1x3x224x224"
        )
    return tuple(int(size) for size in text.split("x"))


Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
"""Arrays by the name of the input or output that they belong to."""
