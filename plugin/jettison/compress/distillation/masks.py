"""Weights that were pruned stay 0: masks taken from the zeros of a model as it is given to training.

A layer counts as pruned where more of it is 0 than rounding leaves there: anything in float, an eighth in 8
bits, and three eighths in 4 bits, where a normal weight under half a step, 15 % of all in blocks of 128, is
rounded to 0. A float weight that is 0 throughout was never learnt, and may learn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jettison.compress.distillation.graph_module import GraphModule

PRUNED_SHARE_FLOAT = 0.0
PRUNED_SHARE = 1 / 8
PRUNED_SHARE_4_BITS = 3 / 8
_FEW_BITS = 4
_FLOAT_BITS = 32


@dataclass(frozen=True)
class Masks:
    """For each pruned parameter, 1 where it may learn and 0 where it stays 0."""

    pairs: tuple[tuple[nn.Parameter, Tensor], ...] = ()

    def apply(self) -> None:
        """Put what was pruned back to 0; called after each step."""
        with torch.no_grad():
            for parameter, kept in self.pairs:
                parameter.mul_(kept)


def graph_masks(module: GraphModule) -> Masks:
    """The masks of a graph's pruned weights."""
    chosen = [
        (module.get_parameter_or_buffer(origin.path), _rounded_share(origin.bits))
        for origin in module.origins
        if origin.is_matrix
    ]
    return zero_masks(chosen)


def _rounded_share(bits: int) -> float:
    """The share of zeros that rounding to so many bits may leave."""
    if bits >= _FLOAT_BITS:
        return PRUNED_SHARE_FLOAT
    return PRUNED_SHARE_4_BITS if bits <= _FEW_BITS else PRUNED_SHARE


def zero_masks(parameters: Iterable[tuple[nn.Parameter, float]]) -> Masks:
    """Masks of the parameters of which a larger share than the one beside them is exactly 0."""
    pairs = []
    for parameter, share in parameters:
        kept = parameter.detach() != 0
        zeros = kept.numel() - int(kept.count_nonzero())
        if bool(kept.any()) and zeros > share * kept.numel():
            pairs.append((parameter, kept.to(parameter.dtype)))
    return Masks(tuple(pairs))
