"""Groups of channels that one layer makes, where they lie in values and constants, and which are tied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir


class WidthError(Exception):
    """A node through which channels cannot be followed."""

    def __init__(self, node: ir.Node, detail: str) -> None:
        super().__init__(detail)
        self.reason = f"node {node.name!r} ({node.op_type}) {detail}"


@dataclass(frozen=True)
class Part:
    """Channels of one group, in their order, each of them `repeat` times one after the other."""

    group: int
    repeat: int = 1


@dataclass(frozen=True)
class Lie:
    """Where channels lie in a value: along this axis, group after group."""

    axis: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Cut:
    """A constant that follows channels along one axis; `makes` where it makes them: a layer's rows."""

    name: str
    lie: Lie
    makes: bool = False


@dataclass
class Widths:
    """All groups of a graph: how wide each is, which are one, which must stay as they are."""

    sizes: list[int] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    depthwise: list[tuple[ir.Node, Part]] = field(default_factory=list)
    flattened: list[tuple[ir.Node, Lie]] = field(default_factory=list)
    _above: list[int] = field(default_factory=list)
    _fixed: set[int] = field(default_factory=set)

    def add(self, size: int) -> Part:
        """A new group of that many channels."""
        self.sizes.append(size)
        self._above.append(len(self._above))
        return Part(len(self.sizes) - 1)

    def root(self, group: int) -> int:
        """The group that stands for all that are tied to this one."""
        while self._above[group] != group:
            group = self._above[group]
        return group

    def tie(self, first: Iterable[Part], second: Iterable[Part]) -> bool:
        """Let both be one, part by part; whether their widths allow it."""
        pairs = list(zip(first, second, strict=False))
        if any(self._wide(one) != self._wide(other) or one.repeat != other.repeat for one, other in pairs):
            return False
        for one, other in pairs:
            self._above[self.root(other.group)] = self.root(one.group)
        return True

    def fix(self, parts: Iterable[Part]) -> None:
        """Keep these as wide as they are."""
        self._fixed.update(part.group for part in parts)

    def open_groups(self) -> dict[int, int]:
        """The widths of the groups that may be narrower, by their root."""
        fixed = {self.root(group) for group in self._fixed}
        roots = dict.fromkeys(self.root(group) for group in range(len(self.sizes)))
        return {group: self.sizes[group] for group in roots if group not in fixed}

    def width(self, lie: Lie) -> int:
        """How long the axis is."""
        return sum(self._wide(part) * part.repeat for part in lie.parts)

    def _wide(self, part: Part) -> int:
        return self.sizes[part.group]


def producers(widths: Widths) -> Iterator[Cut]:
    """The weights of layers, along the axis of the channels that they make."""
    return (cut for cut in widths.cuts if cut.makes)
