"""Resize, nearest and linear, for every way in which ONNX lets coordinates correspond.

Axis by axis, by the formulas of the operator's definition; linear interpolation is separable.
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

Floats = np.ndarray[Any, np.dtype[np.float64]]
Coordinates = Callable[[Floats, float, int, int], Floats]
"""From places in the output, the scale, and the sizes of input and output, to places in the input."""


def _half_pixel(places: Floats, scale: float, _: int, __: int) -> Floats:
    return (places + 0.5) / scale - 0.5


def _half_pixel_symmetric(places: Floats, scale: float, source: int, target: int) -> Floats:
    offset = source / 2 * (1 - target / (scale * source))
    return offset + (places + 0.5) / scale - 0.5


def _pytorch_half_pixel(places: Floats, scale: float, _: int, target: int) -> Floats:
    return (places + 0.5) / scale - 0.5 if target > 1 else np.zeros_like(places)


def _align_corners(places: Floats, _: float, source: int, target: int) -> Floats:
    return places * (source - 1) / (target - 1) if target > 1 else np.zeros_like(places)


def _asymmetric(places: Floats, scale: float, _: int, __: int) -> Floats:
    return places / scale


_COORDINATES: dict[str, Coordinates] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
}

_NEAREST: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
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
                found = coordinates(np.arange(target, dtype=np.float64), scale, x.shape[axis], target)
                x = (
                    _nearest(x, axis, _NEAREST[nearest](found))
                    if mode == "nearest"
                    else _linear(x, axis, found)
                )
        return x

    return compute


def _targets(
    x: Tensor, places: Any, scales: Tensor | None, sizes: Tensor | None
) -> tuple[list[float], list[int]]:
    """Scale and new size of each axis that is resized."""
    before = [x.shape[axis] for axis in places]
    if sizes is not None and sizes.numel():
        after = whole_numbers(sizes)
        return [new / old for new, old in zip(after, before, strict=True)], after
    factors = [float(value) for value in scales.reshape(-1).tolist()] if scales is not None else []
    return factors, [math.floor(old * factor) for old, factor in zip(before, factors, strict=True)]


def _rows(places: Floats, size: int, x: Tensor) -> Tensor:
    return torch.from_numpy(np.clip(places, 0, size - 1).astype(np.int64)).to(x.device)


def _nearest(x: Tensor, axis: int, places: Floats) -> Tensor:
    return x.index_select(axis, _rows(places, x.shape[axis], x))


def _linear(x: Tensor, axis: int, places: Floats) -> Tensor:
    below = np.floor(places)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = torch.from_numpy((places - below).astype(np.float32)).to(x.device, x.dtype).reshape(shape)
    low, high = (x.index_select(axis, _rows(below + step, x.shape[axis], x)) for step in (0, 1))
    return low * (1 - share) + high * share


RESIZE: dict[str, Build] = {"Resize": _resize}
