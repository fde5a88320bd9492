"""What pruning took away, layer by layer, and what it is worth: W_pruned = W - W_removed.

Zeros make no ONNX file smaller by themselves, since it stores them like any other number. They do where the
file is compressed, on disk or on its way to a device, so that size is told.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.pruning.masks import Floats
from jettison.compress.quantization.layers import Layer
from jettison.graph.two_to_four import Groups
from jettison.graph.zeros import Mask

_LEVEL = 6
"""Effort of deflate: the default of zlib, gzip and zip. Source: zlib's manual, Z_DEFAULT_COMPRESSION."""
_CHUNK = 1 << 20
"""Bytes that are compressed at a time, so that no second copy of a large weight is held."""


class PrunedLayer(BaseModel):
    """One weighted layer, and what a pass of pruning took away from it.

    Args:
        node: Its name.
        kind: Its operator.
        weight: The name of its weight, which several layers may share; "" where it has none.
        method: The pass, as `two-to-four` or `sparsity`.
        pruned: Whether the pass pruned it.
        reason: By which rule, or why it stays dense.
        weights: How many it has.
        removed: How many of them the pass set to zero.
        removed_share: That as a share of all of them, 0 to 1.
        energy_share: What the removed ones had of the sum of squares, 0 to 1.
        zeros: How many weights are zero afterwards, those included that were before.
        dead_inputs: Input channels with no weight left; dead before or not.
        dead_outputs: Output channels with no weight left, so that they make their bias only.
        groups: Groups of four that can be 2:4; None where the pass does not look at them.
        valid_groups: Those of them with two zeros or more.
        reordered: Whether its output channels have another order than in the model given.
        removed_outputs: Output channels that were cut out.
        removed_inputs: Input channels that were cut out.
        macs: Its multiply-accumulates for a sample before channels were cut; None where none are.
        macs_left: The same afterwards.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    kind: str
    method: str
    pruned: bool
    reason: str
    weight: str = ""
    weights: int = 0
    removed: int = 0
    removed_share: float = 0.0
    energy_share: float = 0.0
    zeros: int = 0
    dead_inputs: int = 0
    dead_outputs: int = 0
    groups: int | None = None
    valid_groups: int | None = None
    reordered: bool = False
    removed_outputs: int = 0
    removed_inputs: int = 0
    macs: int | None = None
    macs_left: int | None = None


def removal(layer: Layer, before: Floats, after: Floats, *, method: str, reason: str) -> PrunedLayer:
    """What was removed from a layer's weight.

    Args:
        layer: The layer.
        before: float32, its weight before the pass.
        after: float32, the same shape, after it.
        method: The pass.
        reason: Its rule, in words.
    """
    gone = (after == 0) & (before != 0)
    energy = np.square(before, dtype=np.float64)
    total = float(energy.sum())
    inputs, outputs = _channels(layer, after != 0)
    removed = int(np.count_nonzero(gone))
    return PrunedLayer(
        node=layer.name,
        kind=layer.kind,
        method=method,
        pruned=True,
        reason=reason,
        weight=layer.weight.name or "",
        weights=after.size,
        removed=removed,
        removed_share=removed / max(after.size, 1),
        energy_share=float(energy[gone].sum()) / total if total > 0 else 0.0,
        zeros=int(np.count_nonzero(after == 0)),
        dead_inputs=int(np.count_nonzero(~inputs)),
        dead_outputs=int(np.count_nonzero(~outputs)),
    )


def dense(layer: Layer, *, method: str, reason: str) -> PrunedLayer:
    """A layer that a pass left as it was."""
    return PrunedLayer(
        node=layer.name,
        kind=layer.kind,
        method=method,
        pruned=False,
        reason=reason,
        weight=layer.weight.name or "",
        weights=math.prod(layer.weight_shape),
    )


def with_groups(found: PrunedLayer, groups: Groups | None) -> PrunedLayer:
    """The same with the layer's groups of four."""
    if groups is None or groups.refusal is not None:
        return found
    return found.model_copy(update={"groups": groups.eligible, "valid_groups": groups.valid})


def _channels(layer: Layer, lives: Mask) -> tuple[Mask, Mask]:
    """Which input channels and which output channels have a weight: two masks.

    Along axis 1 a grouped convolution has channels of its own in each group.
    """
    if layer.kind in ("Conv", "ConvTranspose"):
        parts = lives.reshape(layer.group, -1, *lives.shape[1:])
        first: Mask = parts.any(axis=tuple(range(2, parts.ndim))).reshape(-1)
        second: Mask = parts.any(axis=(1, *range(3, parts.ndim))).reshape(-1)
        return (second, first) if layer.kind == "Conv" else (first, second)
    stacked: Mask = lives.reshape(-1, *lives.shape[-2:]) if lives.ndim > 1 else lives[None, :, None]
    first, second = stacked.any(axis=(0, 2)).reshape(-1), stacked.any(axis=(0, 1)).reshape(-1)
    return (second, first) if layer.node.attributes.get_int("transB", 0) else (first, second)


def summary(layers: Sequence[PrunedLayer]) -> tuple[str, ...]:
    """In a sentence each: how much was removed and what it carried, what died, and what stayed dense.

    A weight that several layers share is counted once, as the file holds it.
    """
    pruned = [layer for layer in layers if layer.pruned]
    held = list({layer.weight or layer.node: layer for layer in pruned}.values())
    weights, removed = sum(layer.weights for layer in held), sum(layer.removed for layer in held)
    energies = [layer.energy_share for layer in pruned]
    notes = [
        f"{removed:,} of {weights:,} weights removed ({removed / max(weights, 1):.1%}) in {len(pruned)} of "
        f"{len(layers)} layers; in each layer they carried {min(energies, default=0):.2%} to "
        f"{max(energies, default=0):.2%} of the sum of squares"
    ]
    ends = {"input": [x.dead_inputs for x in pruned], "output": [x.dead_outputs for x in pruned]}
    dead = [f"{sum(counts):,} {side} channels" for side, counts in ends.items() if any(counts)]
    if dead:
        notes.append(f"{' and '.join(dead)} have no weight left")
    notes += _dense_notes([layer for layer in layers if not layer.pruned])
    return tuple(notes)


def _dense_notes(layers: Sequence[PrunedLayer]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for layer in layers:
        by_reason.setdefault(layer.reason, []).append(layer.node)
    return [f"left dense, {reason}: {names_of(names)}" for reason, names in by_reason.items()]


def names_of(names: Sequence[str], most: int = 8) -> str:
    """The names, or the first of them and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def compressed_bytes(model: ir.Model) -> int:
    """What deflate makes of all stored numbers of the model, each tensor by itself: bytes."""
    stored = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(_deflated(tensor.tobytes()) for tensor in stored if tensor is not None)


def _deflated(content: bytes) -> int:
    packer, size, view = zlib.compressobj(_LEVEL), 0, memoryview(content)
    for start in range(0, len(view), _CHUNK):
        size += len(packer.compress(view[start : start + _CHUNK]))
    return size + len(packer.flush())


def sizes_note(before: int, after: int) -> str:
    """How much smaller the stored numbers become where they are compressed."""
    return f"the numbers stored take {after:,} bytes when compressed (deflate), {before:,} before"
