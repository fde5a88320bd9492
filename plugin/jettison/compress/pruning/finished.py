"""What is left of the zeros once all passes of a variant are done: 2:4, checked in the finished model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from jettison.compress.pruning.removed import PrunedLayer, names_of
from jettison.graph.two_to_four import valid_groups


def finished(
    layers: Sequence[PrunedLayer], model: ir.Model
) -> tuple[tuple[PrunedLayer, ...], tuple[str, ...]]:
    """The layers with the groups that are valid in the finished model, and what became of 2:4, in words.

    Args:
        layers: What passes of pruning have told.
        model: The variant as it will be written.
    """
    groups = valid_groups(model)
    asked = [layer for layer in layers if layer.pruned and layer.groups]
    if not asked:
        return tuple(layers), ()
    lost = [layer.node for layer in asked if layer.node in groups and not groups[layer.node].hold]
    unseen = [layer.node for layer in asked if layer.node not in groups]
    held = len(asked) - len(lost) - len(unseen)
    notes = [f"2:4 holds in {held} of {len(asked)} layers of the finished model"]
    if lost:
        notes.append(f"2:4 was lost after pruning in {names_of(lost)}")
    if unseen:
        notes.append(f"2:4 cannot be told from how weights are stored in {names_of(unseen)}")
    updated = [
        layer.model_copy(update={"valid_groups": groups[layer.node].valid})
        if layer in asked and layer.node in groups
        else layer
        for layer in layers
    ]
    return tuple(updated), tuple(notes)
