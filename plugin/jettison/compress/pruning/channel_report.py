"""What was cut out of each layer: channels, weights, what they carried, and what the layer costs now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from jettison.compress.pruning.channel_choice import Removed
from jettison.compress.pruning.channel_groups import ChannelGroup, Place
from jettison.compress.pruning.removed import PrunedLayer, dense
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.graph.edit import float_constant, is_constant
from jettison.graph.shrink import Cut, merged, zeroed

_METHOD = "channels"


def channel_layers(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    removed: Removed,
    rules: Mapping[int, str],
    macs: Mapping[str, int],
) -> tuple[PrunedLayer, ...]:
    """Each weighted layer of the whole model, and what it lost.

    Args:
        model: The model before.
        groups: Its channel groups.
        removed: The channels that went.
        rules: By which rule each group lost some, or why it did not, by its number.
        macs: Multiply-accumulates of the whole layers by name.
    """
    cuts = merged(cut for index, lost in removed.items() for cut in groups[index].cuts(lost))
    return tuple(
        _told(
            layer, [cut for cut in cuts if cut.name == layer.weight.name], _reason(layer, groups, rules), macs
        )
        for layer in find_layers(model.graph)
    )


def costs_note(layers: Sequence[PrunedLayer], others: int) -> str:
    """Multiply-accumulates of the whole model before and after, in words."""
    before = sum(layer.macs or 0 for layer in layers) + others
    after = sum(layer.macs_left or 0 for layer in layers) + others
    share = 1 - after / max(before, 1)
    return f"{after:,} multiply-accumulates for a sample, {before:,} before: {share:.1%} less"


def _reason(layer: Layer, groups: Sequence[ChannelGroup], rules: Mapping[int, str]) -> str:
    """The rule of the group whose channels the layer makes or carries, else of one that it reads."""
    name = layer.weight.name or ""
    found = [
        (_order(place), rules[index])
        for index, group in enumerate(groups)
        for place in group.places
        if place.name == name
    ]
    found += [(0, rules[index]) for index, group in enumerate(groups) if name in group.blocked]
    return min(found)[1] if found else "no channels of its own were found"


def _order(place: Place) -> int:
    return ("makes", "carries", "reads").index(place.role)


def _told(layer: Layer, cuts: Sequence[Cut], reason: str, macs: Mapping[str, int]) -> PrunedLayer:
    cost = macs.get(layer.name)
    if not cuts or not is_constant(layer.weight):
        return dense(layer, method=_METHOD, reason=reason).model_copy(
            update={"macs": cost, "macs_left": cost}
        )
    before = float_constant(layer.weight)
    lost = {cut.axis: len(cut.removed) for cut in cuts}
    sizes = [size - lost.get(axis, 0) for axis, size in enumerate(before.shape)]
    energy = float(np.square(before, dtype=np.float64).sum())
    left = zeroed(before, cuts)
    weights, kept = before.size, math.prod(sizes)
    outputs = layer.weight_axis
    return PrunedLayer(
        node=layer.name,
        kind=layer.kind,
        method=_METHOD,
        pruned=True,
        reason=reason,
        weights=weights,
        removed=weights - kept,
        removed_share=(weights - kept) / max(weights, 1),
        energy_share=1 - float(np.square(left, dtype=np.float64).sum()) / energy if energy > 0 else 0.0,
        zeros=kept - int(np.count_nonzero(left)),
        removed_outputs=lost.get(outputs, 0),
        removed_inputs=sum(count for axis, count in lost.items() if axis != outputs),
        macs=cost,
        macs_left=None if cost is None else round(cost * kept / max(weights, 1)),
    )
