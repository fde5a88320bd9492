"""Where windows of convolutions and pools stand: paddings, strides, dilations, as ONNX writes them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from jettison.compress.distillation.operators.node import text
from jettison.compress.distillation.operators.shapes import pad_constant


@dataclass(frozen=True)
class Windows:
    """Sizes by spatial axis. `before` and `after` are paddings; `same` pads to ceil(size / stride)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    same: str = ""

    @property
    def is_even(self) -> bool:
        """Whether paddings are known and equal on both sides, which torch's own operators take."""
        return not self.same and self.before == self.after

    def paddings(self, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Paddings before and after each spatial axis of x."""
        if not self.same:
            return self.before, self.after
        total = [
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, stride, kernel, dilation in zip(
                x.shape[2:], self.strides, self.kernel, self.dilations, strict=True
            )
        ]
        less = tuple(size // 2 for size in total)
        more = tuple(size - half for size, half in zip(total, less, strict=True))
        return (less, more) if self.same == "SAME_UPPER" else (more, less)

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """The tensor with its paddings around it."""
        before, after = self.paddings(x)
        return pad_constant(x, (0, 0, *before), (0, 0, *after), value)


def windows_of(node: ir.Node, kernel: tuple[int, ...]) -> Windows:
    """What the node's attributes say of windows of that size."""
    rank = len(kernel)
    pads = _ints(node, "pads", (0,) * 2 * rank)
    mode = text(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        pads = (0,) * 2 * rank
    return Windows(
        kernel=kernel,
        strides=_ints(node, "strides", (1,) * rank),
        dilations=_ints(node, "dilations", (1,) * rank),
        before=pads[:rank],
        after=pads[rank:],
        same=mode if mode.startswith("SAME") else "",
    )


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())
