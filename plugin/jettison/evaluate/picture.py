"""A sample as a picture that people can look at: PNG by the standard library, without a codec.

Only for show. Numbers other than bytes are stretched from their lowest to their highest, since how the user's
function scaled an image is not known here; large images are thinned, not smoothed.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from jettison.core.tensors import Arrays

MOST_PIXELS = 160
"""On a side: a picture in the report is shown smaller than that."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""With which every PNG file begins."""

_GREY, _COLOUR = 0, 2
_CHANNELS = {1: _GREY, 3: _COLOUR}


def picture_of(row: Arrays) -> bytes | None:
    """The first image of a sample as PNG; None where no input looks like one.

    Args:
        row: Inputs with a first axis of 1; an image has rank 4 and 1 or 3 channels, on the smaller of axis 1
            and axis 3.
    """
    for array in row.values():
        if array.ndim == 4 and array.dtype.kind in "fiuV":
            image = array[0].astype(np.float32) if array.dtype != np.uint8 else array[0]
            return _picture(image if image.shape[0] > image.shape[2] else image.transpose(1, 2, 0))
    return None


def _picture(image: np.ndarray[Any, Any]) -> bytes | None:
    """An image (height, width, channels) as PNG."""
    step = -(-max(image.shape[:2], default=0) // MOST_PIXELS)
    if image.shape[2] not in _CHANNELS or not image.size:
        return None
    return _png(np.ascontiguousarray(_bytes(image[::step, ::step])))


def _bytes(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if image.dtype == np.uint8:
        return image
    known = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(known.min()), float(known.max())
    stretched = np.rint((known - low) * (255.0 / ((high - low) or 1.0)))
    return np.asarray(stretched, np.uint8)


def _png(image: np.ndarray[Any, Any]) -> bytes:
    """Bytes (height, width, channels) as a PNG file.

    Source: Portable Network Graphics, third edition, sections 5 and 11.2: signature, IHDR, IDAT, IEND.
    """
    height, width, channels = image.shape
    lines = b"".join(b"\0" + line.tobytes() for line in image)  # filter 0, before each line
    head = struct.pack(">IIBBBBB", width, height, 8, _CHANNELS[channels], 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")
    return SIGNATURE + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
