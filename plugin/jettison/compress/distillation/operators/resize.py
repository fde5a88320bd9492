"""Resize, nearest and linear, for every way in which ONNX lets coordinates correspond.

Axis by axis, by the formulas of the operator's definition; linear interpolation is separable. Places are
computed in float32 as ONNX Runtime does: in float64 a scale of 1/3 falls on the other side of many a half.
Source: ONNX operator Resize, attributes `coordinate_transformation_mode` and `nearest_mode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jettison.compress.distillation.operators.node import Build, Compute, NoGradientError, text, whole_numbers
from jettison.graph.edit import int_attribute

Floats = np.ndarray[Any, np.dtype[np.float32]]
Coordinates = Callable[[Floats, np.float32, int, int], Floats]
"""From places in the output, the scale, and the sizes of input and output, to places in the input."""


_HALF = np.float32(0.5)


def _single(values: np.ndarray[Any, np.dtype[Any]]) -> Floats:
    return np.asarray(values, dtype=np.float32)


def _half_pixel(places: Floats, scale: np.float32, _: int, __: int) -> Floats:
    return _single((places + _HALF) / scale - _HALF)


def _half_pixel_symmetric(places: Floats, scale: np.float32, source: int, target: int) -> Floats:
    offset = np.float32(source / 2) * (1 - np.float32(target) / (scale * np.float32(source)))
    return _single(offset + (places + _HALF) / scale - _HALF)


def _pytorch_half_pixel(places: Floats, scale: np.float32, _: int, target: int) -> Floats:
    return _half_pixel(places, scale, _, target) if target > 1 else np.zeros_like(places)


def _align_corners(places: Floats, _: np.float32, source: int, target: int) -> Floats:
    if target <= 1:
        return np.zeros_like(places)
    return _single(places * np.float32(source - 1) / np.float32(target - 1))


def _asymmetric(places: Floats, scale: np.float32, _: int, __: int) -> Floats:
    return _single(places / scale)


_COORDINATES: dict[str, Coordinates] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
}

_NEAREST: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda places: np.floor(places) + (places - np.floor(places) > _HALF),
    "round_prefer_ceil": lambda places: np.floor(places) + (places - np.floor(places) >= _HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resize(node: ir.Node) -> Compute:
    mode, nearest = text(node, "mode", "nearest"), text(node, "nearest_mode", "round_prefer_floor")
    coordinates = _COORDINATES.get(text(node, "coordinate_transformation_mode", "half_pixel"))
    if mode not in ("nearest", "linear") or coordinates is None or int_attribute(node, "antialias", 0):
        raise NoGradientError(node, f"resizes by {mode!r}, expected nearest or linear without a crop")
    if text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoGradientError(node, "keeps the aspect ratio")
    attribute = node.attributes.get("axes")
    axes = None if attribute is None else tuple(attribute.as_ints())

    def compute(
        x: Tensor, _: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        places = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
        for axis, scale, target in zip(places, *_targets(x, places, scales, sizes), strict=True):
            if target != x.shape[axis] or scale != 1.0:
                found = coordinates(np.arange(target, dtype=np.float32), scale, x.shape[axis], target)
                x = (
                    _nearest(x, axis, _NEAREST[nearest](found))
                    if mode == "nearest"
                    else _linear(x, axis, found)
                )
        return x

    return compute


def _targets(
    x: Tensor, places: Any, scales: Tensor | None, sizes: Tensor | None
) -> tuple[list[np.float32], list[int]]:
    """Scale and new size of each axis that is resized."""
    before = [x.shape[axis] for axis in places]
    if sizes is not None and sizes.numel():
        after = whole_numbers(sizes)
        return [np.float32(new) / np.float32(old) for new, old in zip(after, before, strict=True)], after
    factors = [np.float32(value) for value in scales.reshape(-1).tolist()] if scales is not None else []
    sizes_after = [math.floor(factor * np.float32(old)) for old, factor in zip(before, factors, strict=True)]
    return factors, sizes_after


def _rows(places: Floats, size: int, x: Tensor) -> Tensor:
    return torch.from_numpy(np.clip(places, 0, size - 1).astype(np.int64)).to(x.device)


def _nearest(x: Tensor, axis: int, places: Floats) -> Tensor:
    return x.index_select(axis, _rows(places, x.shape[axis], x))


def _linear(x: Tensor, axis: int, places: Floats) -> Tensor:
    below = np.floor(places)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = torch.from_numpy(places - below).to(x.device, x.dtype).reshape(shape)
    low, high = (x.index_select(axis, _rows(below + step, x.shape[axis], x)) for step in (0, 1))
    return low * (1 - share) + high * share


RESIZE: dict[str, Build] = {"Resize": _resize}
