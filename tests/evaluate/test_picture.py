"""Samples as pictures: what a reader of PNG gets back."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from jettison.evaluate.picture import MOST_PIXELS, picture_of


def pixels(png):
    """Bytes (height, width, channels), and every checksum right."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + content),)
        chunks[kind], at = content, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


def test_a_picture_of_bytes_is_those_bytes():
    image = np.random.default_rng(1).integers(0, 256, (1, 5, 7, 3), np.uint8)
    np.testing.assert_array_equal(pixels(picture_of({"x": image})), image[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_numbers_are_stretched_from_their_lowest_to_their_highest(dtype):
    image = np.array([[[[-2, 0], [2, 2]]]], dtype)
    assert pixels(picture_of({"x": image}))[..., 0].tolist() == [[0, 128], [255, 255]]


def test_channels_first_and_last_give_the_same_picture():
    image = np.random.default_rng(2).random((1, 3, 8, 9), np.float32)
    assert picture_of({"x": image}) == picture_of({"x": image.transpose(0, 2, 3, 1)})


def test_what_is_no_number_is_dark_and_a_flat_image_is_no_error():
    image = np.array([[[[np.nan, np.inf], [0, 0]]]], np.float32)
    assert not pixels(picture_of({"x": image})).any()


def test_a_large_image_is_thinned():
    assert pixels(picture_of({"x": np.zeros((1, 1, 4 * MOST_PIXELS, 10), np.uint8)})).shape[0] == MOST_PIXELS


@pytest.mark.parametrize("shape", [(1, 10), (1, 5, 8, 8), (1, 1, 8, 0)])
def test_what_is_no_image_has_no_picture(shape):
    assert picture_of({"x": np.zeros(shape, np.float32)}) is None
