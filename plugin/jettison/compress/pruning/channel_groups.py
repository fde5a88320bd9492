"""Channels that can only go together: where each of them lies in the constants of a graph.

A channel is made by rows of weights, carried by numbers of its own (biases, depthwise kernels), and read by
columns. Torch-Pruning follows it through the graph's module (`channel_tracing.py`); what it finds is told
here in terms of the graph alone.
Source: Fang et al. 2023, DepGraph: Towards Any Structural Pruning (arXiv 2301.12900).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jettison.compress.pruning.masks import Floats
from jettison.graph.shrink import Cut

Role = Literal["makes", "carries", "reads"]


@dataclass(frozen=True)
class Place:
    """An initializer whose places along `axis` belong to channels.

    `channels`: int64, (size of the axis,), the channel that each place belongs to, -1 where to none of the
    group.
    """

    name: str
    axis: int
    role: Role
    channels: np.ndarray[Any, np.dtype[np.int64]]

    def cut(self, removed: Sequence[int]) -> Cut:
        """What is taken away here with those channels."""
        return Cut(self.name, self.axis, tuple(np.flatnonzero(np.isin(self.channels, removed)).tolist()))

    def summed(self, values: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The sum of the initializer's values for each channel: (channels,), as many as are known here."""
        others = tuple(axis for axis in range(values.ndim) if axis != self.axis)
        lines = values.sum(axis=others, dtype=np.float64)
        belongs = self.channels >= 0
        return np.bincount(self.channels[belongs], lines[belongs]).astype(np.float64, copy=False)


@dataclass(frozen=True)
class ChannelGroup:
    """So many channels that lie in the same places.

    `refusal` says why none of them may go, `blocked` names weights that are in the way.
    """

    channels: int
    places: tuple[Place, ...]
    refusal: str | None = None
    blocked: tuple[str, ...] = ()

    def cuts(
        self, removed: Sequence[int], roles: Iterable[Role] = ("makes", "carries", "reads")
    ) -> list[Cut]:
        """What is taken away with those channels, in the places of these roles."""
        wanted = set(roles)
        return [place.cut(removed) for place in self.places if place.role in wanted]
