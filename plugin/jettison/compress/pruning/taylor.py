"""The criterion `taylor`: what weights and channels are worth to a loss, by its gradient.

    weight      sqrt(mean over batches of (w dL/dw)^2)
    channel     sqrt(mean over batches of (sum over the rows that make it of w dL/dw)^2)
Source: Molchanov et al. 2019 (arXiv 1906.10771), equations 7 and 8. The gradient is torch's, through the
graph itself (`distillation/first_order.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from jettison.compress.distillation.door import load_torch
from jettison.compress.passes import Refusal
from jettison.compress.pruning.channel_choice import Scores
from jettison.compress.pruning.channel_groups import ChannelGroup
from jettison.compress.pruning.masks import Floats
from jettison.core.samples import Samples
from jettison.graph.model import output_specs

_INSTEAD = "Use criterion: magnitude, which needs no gradient"


def refuse_without_gradient(model: ir.Model) -> Refusal | None:
    """Refuses a graph that no gradient passes through.

    Raises:
        MissingError: torch is not installed.
    """
    load_torch()
    from jettison.compress.distillation.graph_module import graph_module

    found = graph_module(model)
    if isinstance(found, Refusal):
        return Refusal(
            reasons=tuple(f"criterion taylor: {reason}" for reason in found.reasons), instead=_INSTEAD
        )
    if not any(spec.dtype.is_float for spec in output_specs(model)):
        reason = (
            "criterion taylor: none of its outputs is a floating point number, which a gradient begins at"
        )
        return Refusal(reasons=(reason,), instead=_INSTEAD)
    return None


def weight_scores(model: ir.Model, samples: Samples, *, seed: int = 0) -> tuple[dict[str, Floats], str]:
    """The score of every weight by its initializer's name, and in words what it was judged by.

    0 for weights that are 0, above 0 for all others.
    """
    batches, told = _batches(model, samples, seed)
    sums: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    count = 0
    for products in batches:
        count += 1
        for name, found in products.items():
            squares = np.square(found, dtype=np.float64)
            sums[name] = sums[name] + squares if name in sums else squares
    scores = {}
    for name, total in sums.items():
        root = np.sqrt(total / max(count, 1)).astype(np.float32) + np.finfo(np.float32).tiny
        weight = model.graph.initializers[name].const_value
        scores[name] = root if weight is None else root * (weight.numpy() != 0)
    return scores, told


def channel_scores(
    model: ir.Model, samples: Samples, groups: Sequence[ChannelGroup], *, seed: int = 0
) -> tuple[list[Scores], str]:
    """The score of every channel of each group, and in words what it was judged by."""
    batches, told = _batches(model, samples, seed)
    sums = [np.zeros(group.channels) for group in groups]
    count = 0
    for products in batches:
        count += 1
        for total, group in zip(sums, groups, strict=True):
            change = np.zeros(group.channels)
            for place in group.places:
                if place.role == "makes" and place.name in products:
                    found = place.summed(products[place.name])
                    change[: len(found)] += found
            np.add(total, np.square(change), out=total)
    return [np.sqrt(total / max(count, 1)) for total in sums], told


def _batches(model: ir.Model, samples: Samples, seed: int) -> tuple[Iterator[Mapping[str, Floats]], str]:
    """For each batch w dL/dw by the initializer's name; and what L is, in words."""
    load_torch()
    from jettison.compress.distillation.first_order import first_order, judging_loss
    from jettison.compress.distillation.graph_module import graph_module

    module = graph_module(model)
    if isinstance(module, Refusal):
        raise ValueError("criterion taylor: called though it was refused")
    loss, told = judging_loss(model, samples, seed=seed)
    return first_order(model, module, samples, loss), f"{told}, on {samples.count} calibration samples"
