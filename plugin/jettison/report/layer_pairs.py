"""Two variants layer by layer: where their formats differ, and where one is noisier than the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jettison.report.layers import format_of
from jettison.report.run_file import Layer, Target
from jettison.report.words import is_known

MOST = 40
"""Rows: the page is for what differs most, the file has all."""


@dataclass(frozen=True)
class LayerPair:
    """One layer in both variants; `gain_db` is the second's SQNR minus the first's, None where not known."""

    first: Layer
    second: Layer
    gain_db: float | None

    @property
    def formats(self) -> tuple[str, str]:
        """How both store weight and input."""
        return format_of(self.first), format_of(self.second)

    @property
    def differs(self) -> bool:
        """Whether the formats are not the same."""
        return self.formats[0] != self.formats[1]


@dataclass(frozen=True)
class LayerPairs:
    """The layers that differ most, and how many both variants have."""

    first: str
    second: str
    rows: tuple[LayerPair, ...]
    common: int


def layer_pairs(target: Target, first: str, second: str) -> LayerPairs | None:
    """The layers of two variants, other formats first, then by difference; None where one tells of none."""
    layers = {
        variant.name: _by_node(variant.explanation.layers)
        for variant in target.variants
        if variant.explanation
    }
    one, other = layers.get(first, {}), layers.get(second, {})
    common = [
        LayerPair(one[node], other[node], _gain(one[node], other[node])) for node in one if node in other
    ]
    if not common or first == second:
        return None
    told = sorted(common, key=lambda pair: (not pair.differs, -abs(pair.gain_db or 0.0)))
    rows = [pair for pair in told if pair.differs or pair.gain_db]
    return LayerPairs(first, second, tuple(rows[:MOST]), len(common))


def _by_node(layers: Sequence[Layer]) -> dict[str, Layer]:
    return {layer.node: layer for layer in layers}


def _gain(first: Layer, second: Layer) -> float | None:
    one, other = first.sqnr_db, second.sqnr_db
    if one is None or other is None or not is_known(other - one):
        return None
    return other - one
