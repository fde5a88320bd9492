"""Pruning while training: weights are removed a few at a time, so that the others can make up for them.

Sparsity grows along the cubic of `pruning/schedule.py` over the first half of a training; the second half is
fine-tuning. What is removed stays removed. Masks and scores are buffers of the module, so that a checkpoint
holds them.

    magnitude       |w|
    taylor          (w dL/dw)^2, what removing w alone would change in the loss, squared; a running mean
Source: Zhu and Gupta 2017 (arXiv 1710.01878); Molchanov et al. 2019 (arXiv 1906.10771), equation 8.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from jettison.compress.distillation.graph_module import GraphModule
from jettison.compress.pruning.masks import smallest
from jettison.compress.pruning.schedule import cubic_sparsity

RampCriterion = Literal["magnitude", "taylor"]

_UPDATES = 100
"""How often in a training weights are removed: a ramp of 50 steps."""
_GROWING_SHARE = 0.5
_KEPT = 0.9
"""Of a running mean, at each step. Source: Molchanov et al. 2019, section 4.1."""


def first_pruned_epoch(epochs: int) -> int:
    """The first epoch after which all is removed that shall be."""
    return math.ceil(epochs * _GROWING_SHARE)


class Ramp:
    """Removes weights of a graph's float layers, all layers together, up to a sparsity.

    `names` are the initializers that it removes weights of.
    """

    def __init__(self, module: GraphModule, sparsity: float, criterion: RampCriterion) -> None:
        self._module, self._sparsity, self._criterion = module, sparsity, criterion
        chosen = [origin for origin in module.origins if origin.is_matrix and origin.bits == 32]
        self.names = tuple(origin.name for origin in chosen)
        self._weights: list[nn.Parameter] = [module.get_parameter(origin.path) for origin in chosen]
        self._begun = self._removed_share()
        for index, weight in enumerate(self._weights):
            module.register_buffer(f"kept_{index}", (weight.detach() != 0).to(weight.dtype))
            if criterion == "taylor":
                module.register_buffer(f"score_{index}", torch.zeros_like(weight.detach()))

    def after_step(self, share: float) -> None:
        """Remove what is due when that share of the training is done, and put what was removed back to 0."""
        if self._criterion == "taylor":
            self._observe()
        update = round(share * _UPDATES)
        wanted = cubic_sparsity(
            update, round(_UPDATES * _GROWING_SHARE), final=self._sparsity, initial=self._begun
        )
        with torch.no_grad():
            if wanted > self._removed_share_of_masks():
                self._remove(wanted)
            for index, weight in enumerate(self._weights):
                weight.mul_(self._buffer("kept", index))

    def _remove(self, sparsity: float) -> None:
        scores = [self._score(index).cpu().numpy() for index in range(len(self._weights))]
        for index, mask in enumerate(smallest(scores, sparsity)):
            kept = self._buffer("kept", index)
            kept.copy_(torch.from_numpy(np.where(mask, np.float32(0), np.float32(1))))

    def _score(self, index: int) -> Tensor:
        """What removing each weight would cost; 0 for what is removed already, above 0 for all others."""
        kept = self._buffer("kept", index)
        magnitude = self._weights[index].detach().abs()
        found = self._buffer("score", index) if self._criterion == "taylor" else magnitude
        return (found + torch.finfo(found.dtype).tiny) * kept

    def _observe(self) -> None:
        for index, weight in enumerate(self._weights):
            if weight.grad is not None:
                score = self._buffer("score", index)
                score.mul_(_KEPT).add_((weight.detach() * weight.grad).square(), alpha=1 - _KEPT)

    def _buffer(self, stem: str, index: int) -> Tensor:
        found: Tensor = getattr(self._module, f"{stem}_{index}")
        return found

    def _removed_share(self) -> float:
        zeros = sum(int((weight.detach() == 0).sum()) for weight in self._weights)
        return float(zeros / max(sum(weight.numel() for weight in self._weights), 1))

    def _removed_share_of_masks(self) -> float:
        kept = sum(float(self._buffer("kept", index).sum()) for index in range(len(self._weights)))
        return float(1 - kept / max(sum(weight.numel() for weight in self._weights), 1))
