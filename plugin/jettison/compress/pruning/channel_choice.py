"""How many channels each group loses, and which: to a share of them, or of the multiply-accumulates.

    energy of channel c = sum over places of  sum_c w^2 / sum w^2        (criterion `magnitude`)

What a channel weighs is summed over all weights that make and read it, each taken as a share of its weight's
own energy, so that layers of any scale count alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jettison.compress.pruning.channel_groups import ChannelGroup
from jettison.compress.pruning.masks import Floats

Scores = np.ndarray[tuple[int], np.dtype[np.float64]]
Removed = Mapping[int, tuple[int, ...]]
"""Channels that go, by the number of their group; groups that lose none are absent."""

_ROUNDING = 0.5
"""Of a multiply-accumulate, so that shares computed in floats count as reached where they are."""


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates by the weight that they are made with, and those without a weight to cut."""

    by_weight: Mapping[str, int]
    others: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_weight.values()) + self.others

    def left(self, groups: Sequence[ChannelGroup], kept: Sequence[int]) -> float:
        """How many are left where each group keeps so many channels."""
        shares: dict[str, dict[int, float]] = {name: {} for name in self.by_weight}
        for group, count in zip(groups, kept, strict=True):
            lost = 1 - count / group.channels
            for place in group.places if lost else ():
                if place.name in shares:
                    part = float(np.mean(place.channels >= 0)) * lost
                    axes = shares[place.name]
                    axes[place.axis] = axes.get(place.axis, 0.0) + part
        products = (
            macs * float(np.prod([1 - part for part in shares[name].values()]))
            for name, macs in self.by_weight.items()
        )
        return sum(products) + self.others


def energies(group: ChannelGroup, weights: Mapping[str, Floats]) -> Scores:
    """The criterion `magnitude`: what each channel weighs, (channels,), 0 or more.

    Args:
        group: The channels.
        weights: The weights of layers by name; biases and other vectors do not count.
    """
    total = np.zeros(group.channels)
    for place in group.places:
        if place.role != "carries" and place.name in weights:
            found = place.summed(np.square(weights[place.name], dtype=np.float64).astype(np.float32))
            total[: len(found)] += found / max(float(found.sum()), np.finfo(np.float32).tiny)
    return total


def chosen(scores: Scores, count: int) -> tuple[int, ...]:
    """The `count` channels that score least, the earlier ones of equals, in their order."""
    return tuple(sorted(np.argsort(scores, kind="stable")[:count].tolist()))


def kept_of(channels: int, share: float, round_to: int) -> int:
    """How many of the channels are kept where that share of them goes.

    The nearest multiple of `round_to`, at least one; all where there is no smaller multiple.
    """
    wanted = round(channels * (1 - share) / round_to + 1e-9) * round_to
    return channels if wanted >= channels else max(wanted, min(round_to, channels))


def kept_by_share(groups: Sequence[ChannelGroup], share: float, round_to: int) -> list[int]:
    """How many channels each group keeps where that share of each goes."""
    return [group.channels if group.refusal else kept_of(group.channels, share, round_to) for group in groups]


def kept_by_macs(groups: Sequence[ChannelGroup], share: float, round_to: int, costs: Costs) -> list[int]:
    """How many channels each group keeps where that share of the multiply-accumulates goes.

    Step by step the group that has kept most of its own channels loses some, down to the next multiple of
    `round_to`; of equals the one whose loss saves most. So the network gets thinner everywhere alike. At the
    end groups get steps back that turned out not to be needed, those that have kept least first. It stops
    short where no group has a step left.
    """
    kept, most = [group.channels for group in groups], (1 - share) * costs.total + _ROUNDING
    while costs.left(groups, kept) > most:
        steps = list(_steps(groups, kept, round_to))
        if not steps:
            break
        fullest = max(kept[index] / groups[index].channels for index, _ in steps)
        rivals = [step for step in steps if kept[step[0]] / groups[step[0]].channels >= fullest - 1e-9]
        index, fewer = min(rivals, key=lambda step: costs.left(groups, _with(kept, *step)))
        kept[index] = fewer
    for index in sorted(range(len(groups)), key=lambda index: kept[index] / groups[index].channels):
        while kept[index] < groups[index].channels:
            more = min((kept[index] // round_to + 1) * round_to, groups[index].channels)
            if costs.left(groups, _with(kept, index, more)) > most:
                break
            kept[index] = more
    return kept


def _steps(groups: Sequence[ChannelGroup], kept: Sequence[int], round_to: int) -> Iterator[tuple[int, int]]:
    """Each group that can lose channels, and how many it keeps then."""
    for index, group in enumerate(groups):
        fewer = (kept[index] - 1) // round_to * round_to
        if group.refusal is None and fewer > 0:
            yield index, fewer


def _with(kept: Sequence[int], index: int, count: int) -> list[int]:
    return [count if place == index else found for place, found in enumerate(kept)]
