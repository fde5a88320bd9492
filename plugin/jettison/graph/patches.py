"""What weights are multiplied with: a copy of a graph that reports rounded activations, and their patches.

A convolution's weights meet a patch of its input at each position, a product's a row. The activations leave
the session as integers, a byte for each element, and only some positions become patches, so that the largest
matrix that a convolution stands for is never built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import int_attribute
from jettison.graph.observe import reporting
from jettison.graph.qdq import Editor, Scale

Integers = np.ndarray[Any, np.dtype[Any]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Tap:
    """An activation to report, rounded with one scale: as uint8, or as int8 where it is signed."""

    value: str
    scale: float
    zero_point: int
    is_signed: bool

    @property
    def output(self) -> str:
        """The output that holds its integers."""
        return f"{self.value}:integers {self.scale!r} {self.zero_point}"


def tap_of(value: str, scale: Scale) -> Tap:
    """The tap on the value of that name."""
    zero_point = scale.zero_point
    return Tap(value, float(scale.values), int(zero_point), is_signed=zero_point.dtype == np.int8)


def tapped(model: ir.Model, taps: Sequence[Tap]) -> ir.Model:
    """A copy whose outputs are the taps only."""
    return reporting(model, lambda editor: [_integers(editor, tap) for tap in taps])


def _integers(editor: Editor, tap: Tap) -> ir.Value:
    zero_point = np.array(tap.zero_point, np.int8 if tap.is_signed else np.uint8)
    scale = Scale(np.array(tap.scale, np.float32), zero_point)
    output = editor.quantize(tap.value, editor.parameters(tap.output, scale))
    output.name = tap.output
    return output


@dataclass(frozen=True)
class Patches:
    """The patches of one tap that a layer's weights meet; layers that meet the same have equal ones.

    `kernel` is () for a matrix product, whose rows lie along the last axis of what it reads. `pads` holds
    all begins, then all ends, as ONNX writes them; `auto_pad` overrules it.
    """

    tap: Tap
    kernel: Sizes = ()
    strides: Sizes = ()
    dilations: Sizes = ()
    pads: Sizes = ()
    auto_pad: str = "NOTSET"
    groups: int = 1

    def columns(self, activation: Integers, *, most: int) -> Integers:
        """The patches as columns: (groups, inner, patches), inner in the order (kernel..., input channel).

        Args:
            activation: The tap's integers; what lies outside an image counts as the zero point.
            most: Of more patches of one sample (along the first axis), evenly spread ones are taken.
        """
        if not self.kernel:
            return np.asarray(self._rows(np.atleast_2d(activation), most).T[None])
        count, channels, *sizes = activation.shape
        pads = self._pads(sizes)
        padded = np.pad(activation, [(0, 0), (0, 0), *pads], constant_values=self.tap.zero_point)
        outputs = self._outputs(padded.shape[2:])
        chosen = np.arange(0, math.prod(outputs), _stride(math.prod(outputs), most))
        starts = self._starts(chosen, outputs, padded.shape[2:])
        images = padded.reshape(count, self.groups, channels // self.groups, -1)
        found = np.stack([images[..., starts + offset] for offset in self._offsets(padded.shape[2:])])
        columns = found.transpose(2, 0, 3, 1, 4).reshape(self.groups, -1, count * len(starts))
        return np.asarray(columns)

    def _rows(self, activation: Integers, most: int) -> Integers:
        width = activation.shape[-1]
        rows = activation.reshape(len(activation), -1, width)
        return np.asarray(rows[:, :: _stride(rows.shape[1], most)].reshape(-1, width))

    def _spans(self) -> Sizes:
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))

    def _pads(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        rank = len(self.kernel)
        if self.auto_pad == "VALID":
            return [(0, 0)] * rank
        if not self.auto_pad.startswith("SAME"):
            return list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        walk = zip(sizes, self._spans(), self.strides, strict=True)
        totals = [max((math.ceil(size / step) - 1) * step + span - size, 0) for size, span, step in walk]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if self.auto_pad == "SAME_UPPER" else [(more, less) for less, more in halves]

    def _outputs(self, padded: Sizes) -> Sizes:
        walk = zip(padded, self._spans(), self.strides, strict=True)
        return tuple((size - span) // step + 1 for size, span, step in walk)

    def _starts(self, chosen: Indices, outputs: Sizes, padded: Sizes) -> Indices:
        """Where the chosen positions' patches begin in a flattened image."""
        places = [
            axis * step for axis, step in zip(np.unravel_index(chosen, outputs), self.strides, strict=True)
        ]
        return np.ravel_multi_index(tuple(places), padded)

    def _offsets(self, padded: Sizes) -> Indices:
        """Where a patch's elements lie behind its beginning."""
        axes = [range(0, span, step) for span, step in zip(self._spans(), self.dilations, strict=True)]
        return np.asarray(np.ravel_multi_index(tuple(np.array(list(itertools.product(*axes))).T), padded))


def _stride(places: int, most: int) -> int:
    """Every so many places. Odd, so that on images of an even width the columns change from row to row."""
    return 1 if places <= most else math.ceil(places / most) | 1


def patches_of(node: ir.Node, tap: Tap) -> Patches | None:
    """What the weights of a Conv, Gemm or MatMul that reads this tap meet; None for another operator."""
    if node.op_type in ("Gemm", "MatMul"):
        return Patches(tap)
    weight = node.inputs[1]
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return None
    kernel = weight.shape.numpy()[2:]
    ones, attributes = [1] * len(kernel), node.attributes
    return Patches(
        tap,
        kernel=tuple(kernel),
        strides=tuple(attributes.get_ints("strides", ones)),
        dilations=tuple(attributes.get_ints("dilations", ones)),
        pads=tuple(attributes.get_ints("pads", [0] * 2 * len(kernel))),
        auto_pad=attributes.get_string("auto_pad", "NOTSET"),
        groups=int_attribute(node, "group", 1),
    )
