"""Where a graph's channels lie, and which of them have to stay together: told from the graph alone.

Channels that one layer makes are a group. A residual sum, a product or a depthwise convolution ties the
groups that meet there into one. What no group can be followed through is told by its node.
"""

from __future__ import annotations

import onnx_ir as ir

from jettison.compress.distillation.channel_groups import Lie, WidthError, Widths
from jettison.compress.distillation.channel_rules import CHANNEL, FOLLOW, ChannelNode, shape_of


def widths_of(graph: ir.Graph) -> Widths:
    """The groups of channels of a clean graph.

    Raises:
        WidthError: A node through which they cannot be followed.
    """
    walk = _Walk()
    for value in graph.inputs:
        walk.enter(value)
    for node in graph:
        walk.step(node)
    for value in graph.outputs:
        walk.leave(value)
    _check_shared(walk.widths, graph)
    return walk.widths


def _check_shared(widths: Widths, graph: ir.Graph) -> None:
    """Nothing, where each constant that is cut is read by one node."""
    for cut in widths.cuts:
        uses = list(graph.initializers[cut.name].uses())
        if len(uses) > 1:
            raise WidthError(uses[0].node, f"shares {cut.name!r} with {uses[1].node.name!r}")


class _Walk:
    """One walk through a graph, from inputs to outputs."""

    def __init__(self) -> None:
        self.widths = Widths()
        self._lies: dict[ir.Value, Lie] = {}

    def enter(self, value: ir.Value) -> None:
        """An input, whose channels stay."""
        channels = (*shape_of(value), None, None)[CHANNEL]
        if isinstance(channels, int):
            part = self.widths.add(channels)
            self.widths.fix([part])
            self._lies[value] = Lie(CHANNEL, (part,))

    def leave(self, value: ir.Value) -> None:
        """An output, whose channels stay."""
        found = self._lies.get(value)
        if found is not None:
            self.widths.fix(found.parts)

    def step(self, node: ir.Node) -> None:
        """Follow the channels through one node."""
        lies = [self._lies.get(value) if value is not None else None for value in node.inputs]
        if not any(lies):
            return
        follow = FOLLOW.get(node.op_type) if node.domain == "" else None
        if follow is None:
            raise WidthError(node, "mixes channels in a way that is not known here")
        found = follow(ChannelNode(node, lies, self.widths))
        if found is not None:
            self._lies[node.outputs[0]] = found
