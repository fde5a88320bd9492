"""What pruning while training took away, layer by layer, told from the model before and after it."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from jettison.compress.pruning.removed import PrunedLayer, dense, removal
from jettison.compress.quantization.layers import find_layers
from jettison.graph.edit import float_constant

METHOD = "train"
_NOT_TRAINED = "its weight is not trained as one that activations are multiplied with"


def ramp_report(
    before: ir.Model, after: ir.Model, weights: Collection[str], *, reason: str
) -> tuple[PrunedLayer, ...]:
    """One entry for each weighted layer of the model.

    Args:
        before: The model as it came to the training.
        after: The same graph with the trained weights.
        weights: The names of the initializers that the ramp pruned.
        reason: Its rule, in words.
    """
    found = after.graph.initializers
    return tuple(
        removal(
            layer,
            float_constant(layer.weight),
            float_constant(found[layer.weight.name or ""]),
            method=METHOD,
            reason=reason,
        )
        if layer.weight.name in weights
        else dense(layer, method=METHOD, reason=_NOT_TRAINED)
        for layer in find_layers(before.graph)
    )
