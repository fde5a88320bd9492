"""Hides parts of one sample: patches of an image, or tokens of a text.

A part of an image is hidden by the image's own mean, channel by channel, which keeps its brightness; a token
by a zero in the attention mask, which takes it out without a stand-in that the model would read. The
other inputs stay as they are.

Image: the first input of rank 4 with numbers in it. Its channels lie on the smaller of axis 1 (NCHW) and
axis 3 (NHWC), on axis 1 where both are equal, unless the caller knows better.
Tokens: an input (batch, length) whose name holds "mask", beside another one of whole numbers.
Source: Zeiler and Fergus 2013, Visualizing and Understanding Convolutional Networks (arXiv 1311.2901),
section 4.2, which hides patches by grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.explanation import NotApplicable

Layout = Literal["nchw", "nhwc"]
_MASK = "mask"


class Occluder(Protocol):
    """Hides parts of a sample; parts are counted in rows of a map, from its top left."""

    @property
    def kind(self) -> Literal["image", "tokens"]:
        """What the sample is taken for."""
        ...

    @property
    def input(self) -> str:
        """Name of the input in which parts are hidden."""
        ...

    @property
    def layout(self) -> Layout | None:
        """Where the channels of an image lie."""
        ...

    def grid(self, row: Arrays) -> tuple[int, int]:
        """Rows and columns of the map of that sample."""
        ...

    def hidden(self, row: Arrays, parts: range) -> Arrays:
        """The sample (first axis 1) once for each of these parts, which is hidden there."""
        ...


def occluder_of(
    specs: Sequence[TensorSpec],
    row: Arrays,
    *,
    patches_per_side: int,
    most_tokens: int,
    layout: Layout | None,
) -> Occluder | NotApplicable:
    """What can be hidden in samples like that one, or why nothing can."""
    image = next((spec for spec in specs if len(spec.shape) == 4 and spec.dtype.numpy.kind in "fiuV"), None)
    if image is not None:
        shape = row[image.name].shape
        found: Layout = layout or ("nchw" if shape[1] <= shape[3] else "nhwc")
        return ImageOccluder(image.name, found, patches_per_side)
    tables = [spec for spec in specs if len(spec.shape) == 2]
    mask = next((spec for spec in tables if _MASK in spec.name.lower()), None)
    if mask is not None and any(spec is not mask and spec.dtype.numpy.kind in "iu" for spec in tables):
        return TokenOccluder(mask.name, most_tokens)
    return NotApplicable(
        reason="parts can be hidden in images (rank 4) and in tokens (rank 2, whole numbers) with an "
        f"attention mask; the inputs are {', '.join(str(spec) for spec in specs)}"
    )


@dataclass(frozen=True)
class ImageOccluder:
    """Hides patches of an image: at most `patches_per_side` along each side, together the whole image."""

    input: str
    layout: Layout
    patches_per_side: int
    kind: Literal["image"] = "image"

    def grid(self, row: Arrays) -> tuple[int, int]:
        """Patches from top to bottom, and from left to right."""
        height, width = (row[self.input].shape[axis] for axis in self._sides)
        return min(self.patches_per_side, height), min(self.patches_per_side, width)

    def hidden(self, row: Arrays, parts: range) -> Arrays:
        """The image once for each patch, the patch filled with the image's mean."""
        image = row[self.input]
        rows, columns = self.grid(row)
        tops = np.linspace(0, image.shape[self._sides[0]], rows + 1).astype(np.int64)
        lefts = np.linspace(0, image.shape[self._sides[1]], columns + 1).astype(np.int64)
        copies, mean = np.repeat(image, len(parts), axis=0), self._mean(image)
        for index, part in enumerate(parts):
            down, right = divmod(part, columns)
            area = slice(tops[down], tops[down + 1]), slice(lefts[right], lefts[right + 1])
            if self.layout == "nchw":
                copies[index, :, area[0], area[1]] = mean
            else:
                copies[index, area[0], area[1], :] = mean[0, 0]
        return _repeated(row, len(parts)) | {self.input: copies}

    @property
    def _sides(self) -> tuple[int, int]:
        return (2, 3) if self.layout == "nchw" else (1, 2)

    def _mean(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """One number a channel, in the image's own type: (channels, 1, 1) or (1, 1, channels)."""
        mean = image.astype(np.float64).mean(axis=self._sides, keepdims=True)[0]
        return np.asarray(np.rint(mean) if image.dtype.kind in "iu" else mean).astype(image.dtype)


@dataclass(frozen=True)
class TokenOccluder:
    """Leaves tokens out one by one; of texts with more than `most_tokens`, neighbours together."""

    input: str
    most_tokens: int
    kind: Literal["tokens"] = "tokens"
    layout: None = None

    def grid(self, row: Arrays) -> tuple[int, int]:
        """One row, with as many columns as parts that can be left out."""
        return 1, min(self.most_tokens, int(np.count_nonzero(row[self.input])))

    def hidden(self, row: Arrays, parts: range) -> Arrays:
        """The text once for each part, whose mask is zero."""
        mask = row[self.input]
        groups = np.array_split(np.flatnonzero(mask[0]), self.grid(row)[1])
        copies = np.repeat(mask, len(parts), axis=0)
        for index, part in enumerate(parts):
            copies[index, groups[part]] = 0
        return _repeated(row, len(parts)) | {self.input: copies}


def _repeated(row: Arrays, count: int) -> Arrays:
    return {name: np.repeat(array, count, axis=0) for name, array in row.items()}
