"""The pass `{prune: two-to-four}`: two zeros in each four consecutive input channels.

GPUs from sm80 on skip the zeros of this pattern in convolutions and matrix products. Which two weights of
four go is told by their magnitude, or by SparseGPT, which also lets the kept ones make up for the others.
Before that, channels may change their order, so that large weights do not meet in one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.pruning.choice import Choice, choose_for_groups, pruned_copy, refuse_unfit
from jettison.compress.pruning.feedback import Fed, weights_with_feedback
from jettison.compress.pruning.masks import Floats, two_of_four
from jettison.compress.pruning.permutation import better_order, kept_magnitude, stacked
from jettison.compress.pruning.removed import (
    PrunedLayer,
    compressed_bytes,
    dense,
    removal,
    sizes_note,
    summary,
    with_groups,
)
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.graph.bias import add_to_biases
from jettison.graph.edit import float_constant
from jettison.graph.reorder import ChannelSet, Order, find_channel_sets, reordered
from jettison.graph.two_to_four import Groups, input_axis, valid_groups

_OLDEST_SPARSE = 80
"""The first compute capability with sparse tensor cores. Source: NVIDIA A100 whitepaper (Ampere)."""


class PruneTwoToFour(BaseModel):
    """Two of each four consecutive input channels become zero, where a layer's shape allows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prune: Literal["two-to-four"] = "two-to-four"
    method: Literal["sparsegpt", "magnitude"] = "sparsegpt"
    permute: bool = False
    keep_dense: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a quantized model, one without a layer that can be 2:4, and names that match none."""
        graph = piece.model.graph
        return refuse_unfit(graph, choose_for_groups(graph, self.keep_dense), self.keep_dense)

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with zeros; samples are read only for `method: sparsegpt`."""
        order = _Orders() if not self.permute else _orders(piece.model, self.keep_dense)
        model = reordered(piece.model, order.sets) if order.sets else piece.model
        choice = choose_for_groups(model.graph, self.keep_dense)
        fed = Fed()
        if self.method == "sparsegpt":
            fed = weights_with_feedback(
                model,
                samples,
                piece.calibration(samples),
                choice.readers(),
                threads=piece.threads,
                progress=piece.progress,
            )
        after = {**_by_magnitude(choice, without=fed), **fed.weights}
        pruned = add_to_biases(pruned_copy(model, after), fed.biases)
        layers = _told(choice, after, fed, valid_groups(pruned), order)
        sizes = sizes_note(compressed_bytes(piece.model), compressed_bytes(pruned))
        notes = (*summary(layers), *order.notes, speed_note(piece.target), sizes)
        counterpart = model if order.sets else None
        return PassResult(pruned, notes=notes, pruned=layers, counterpart=counterpart)


@dataclass(frozen=True)
class _Orders:
    """Channel sets that get another order, and what that is worth, in words."""

    sets: tuple[tuple[ChannelSet, Order], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def makers(self) -> frozenset[str]:
        """Names of the nodes whose outputs have another order."""
        return frozenset(name for channels, _ in self.sets for name in channels.makers)


def _orders(model: ir.Model, keep_dense: tuple[str, ...]) -> _Orders:
    """A better order of each channel set that has one, by the weights that will be 2:4."""
    wanted = {layer.name: layer for layer in choose_for_groups(model.graph, keep_dense).layers}
    found, kept = [], []
    sets = find_channel_sets(model)
    for channels in sets:
        weights = [
            (float_constant(wanted[place.node].weight), place.axis)
            for place in channels.readers
            if place.node in wanted
        ]
        rows = stacked(weights) if weights else None
        order = None if rows is None else better_order(rows)
        if rows is not None and order is not None:
            found.append((channels, order))
            kept.append((kept_magnitude(rows), kept_magnitude(rows, order)))
    if not found:
        return _Orders(notes=("channels keep their order: no other one was found that keeps more",))
    before, after = (sum(side) / len(kept) for side in zip(*kept, strict=True))
    note = (
        f"channels in another order at {len(found)} places, so that 2:4 keeps {after:.2%} of the magnitudes "
        f"there in place of {before:.2%}; the outputs are the same"
    )
    return _Orders(tuple(found), (note,))


def _by_magnitude(choice: Choice, *, without: Fed) -> dict[str, Floats]:
    """The weights without the two smallest of each four, but for those that are pruned already."""
    found = {}
    for name, layers in choice.readers().items():
        if name not in without.weights:
            weight = float_constant(layers[0].weight)
            mask = two_of_four(np.abs(weight), input_axis(layers[0].node))
            found[name] = np.where(mask, np.float32(0), weight)
    return found


def _told(
    choice: Choice, after: Mapping[str, Floats], fed: Fed, groups: Mapping[str, Groups], order: _Orders
) -> tuple[PrunedLayer, ...]:
    method, told = "two-to-four", []
    for layer in choice.every:
        name = layer.weight.name or ""
        if layer.name in choice.dense:
            found = dense(layer, method=method, reason=choice.dense[layer.name])
        else:
            rule = "by SparseGPT" if name in fed.weights else "by magnitude"
            reason = f"two of each four input channels, {rule}"
            found = removal(layer, float_constant(layer.weight), after[name], method=method, reason=reason)
        found = with_groups(found, groups.get(layer.name))
        told.append(found.model_copy(update={"reordered": layer.name in order.makers}))
    return tuple(told)


def speed_note(target: Target) -> str:
    """What 2:4 is worth on that target."""
    capability = target.compute_capability
    if not target.is_gpu:
        return "ONNX Runtime has no kernels for 2:4 on a CPU: it is smaller when compressed, and no faster"
    if capability is not None and capability < _OLDEST_SPARSE:
        return f"{target.name} has no sparse tensor cores: it is smaller when compressed, and no faster"
    return (
        "TensorRT may use sparse kernels for the layers that are 2:4 throughout; it chooses them by their "
        "speed, seldom below 256 channels, and a network gains usually 15 % or less: measure on the GPU"
    )
