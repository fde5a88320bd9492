"""The passes `{prune: {threshold: ...}}` and `{prune: {sparsity: ...}}`: single weights set to zero.

W_pruned = W - W_removed        W_removed: W where a rule says so, else 0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.pruning.choice import Choice, choose_layers, pruned_copy, refuse_unfit
from jettison.compress.pruning.masks import Criterion, Floats, below, deviations_of, smallest
from jettison.compress.pruning.removed import compressed_bytes, dense, removal, sizes_note, summary
from jettison.compress.pruning.taylor import refuse_without_gradient, weight_scores
from jettison.core.samples import Samples
from jettison.graph.zeros import Mask

_NO_SPEED = (
    "zeros without a pattern make nothing faster in ONNX Runtime or TensorRT, and no file smaller until it "
    "is compressed"
)


class _PruneWeights(BaseModel):
    """What the three have in common: layers that stay dense, and what they refuse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prune: str
    keep_dense: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a quantized model, one without a layer to prune, and names that match none."""
        graph = piece.model.graph
        return refuse_unfit(graph, choose_layers(graph, self.keep_dense), self.keep_dense)


class PruneFixed(_PruneWeights):
    """Every weight nearer to zero than one value for all layers becomes zero."""

    prune: Literal["fixed"] = "fixed"
    value: float = Field(gt=0, allow_inf_nan=False)

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with zeros; the samples are not used."""
        del samples
        choice = choose_layers(piece.model.graph, self.keep_dense)
        masks = {name: below(weight, self.value) for name, weight in choice.weights().items()}
        rules = dict.fromkeys(masks, f"|w| below {self.value:g}")
        return _pruned(piece, choice, masks, rules, method=self.prune)


class PruneDynamic(_PruneWeights):
    """Every weight nearer to zero than so many standard deviations of its layer becomes zero."""

    prune: Literal["dynamic"] = "dynamic"
    deviations: float = Field(gt=0, allow_inf_nan=False)

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with zeros; the samples are not used.

        Source: Han et al. 2015 (arXiv 1506.02626), section 3: a quality parameter times the deviation.
        """
        del samples
        choice = choose_layers(piece.model.graph, self.keep_dense)
        weights = choice.weights()
        thresholds = {name: deviations_of(weight, self.deviations) for name, weight in weights.items()}
        masks = {name: below(weight, thresholds[name]) for name, weight in weights.items()}
        rules = {
            name: f"|w| below {threshold:.4g}, {self.deviations:g} standard deviations"
            for name, threshold in thresholds.items()
        }
        return _pruned(piece, choice, masks, rules, method=self.prune)


class PruneSparsity(_PruneWeights):
    """The weights that matter least become zero, until so large a share of them is."""

    prune: Literal["sparsity"] = "sparsity"
    sparsity: float = Field(gt=0, lt=1, allow_inf_nan=False)
    scope: Literal["layer", "global"] = "layer"
    criterion: Criterion = "magnitude"

    @property
    def libraries(self) -> tuple[str, ...]:
        """What else its result depends on: torch, where a gradient judges."""
        return ("torch",) if self.criterion == "taylor" else ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a quantized model, one without a layer to prune, and names that match none.

        With `taylor` also a graph that no gradient passes through.

        Raises:
            MissingError: torch is not installed, which `taylor` needs.
        """
        refusal = super().check(piece)
        if refusal is not None or self.criterion != "taylor":
            return refusal
        return refuse_without_gradient(piece.model)

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with zeros; the samples are not used by magnitude."""
        choice = choose_layers(piece.model.graph, self.keep_dense)
        scores, judged = self._scores(piece, choice, samples)
        if self.scope == "global":
            masks = dict(zip(scores, smallest(list(scores.values()), self.sparsity), strict=True))
            rule = f"among the {self.sparsity:.1%} of all weights with the least {self.criterion}"
        else:
            masks = {name: smallest([found], self.sparsity)[0] for name, found in scores.items()}
            rule = f"the {self.sparsity:.1%} with the least {self.criterion}"
        found = _pruned(piece, choice, masks, dict.fromkeys(masks, rule), method=self.prune)
        return dataclasses.replace(found, notes=(*found.notes, *judged))

    def _scores(
        self, piece: Workpiece, choice: Choice, samples: Samples
    ) -> tuple[dict[str, Floats], tuple[str, ...]]:
        """What each weight is worth, by the names of the weights; and by what that was judged."""
        weights = choice.weights()
        if self.criterion == "magnitude":
            return {name: np.abs(weight) for name, weight in weights.items()}, ()
        found, told = weight_scores(piece.model, samples)
        return {name: found[name] for name in weights}, (f"|w dL/dw| {told}",)


def _pruned(
    piece: Workpiece,
    choice: Choice,
    masks: Mapping[str, Mask],
    rules: Mapping[str, str],
    *,
    method: str,
) -> PassResult:
    """The model without what the masks remove; masks and rules are by the name of the weight."""
    weights = choice.weights()
    after = {name: _without(weight, masks[name]) for name, weight in weights.items()}
    model = pruned_copy(piece.model, after)
    layers = tuple(
        dense(layer, method=method, reason=choice.dense[layer.name])
        if layer.name in choice.dense
        else removal(layer, weights[name], after[name], method=method, reason=rules[name])
        for layer in choice.every
        for name in [layer.weight.name or ""]
    )
    notes = (*summary(layers), _NO_SPEED, sizes_note(compressed_bytes(piece.model), compressed_bytes(model)))
    return PassResult(model, notes=notes, pruned=layers)


def _without(weight: Floats, mask: Mask) -> Floats:
    return np.where(mask, np.float32(0), weight)
