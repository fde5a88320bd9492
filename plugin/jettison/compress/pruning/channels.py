"""The pass `{prune: {channels: ...}}`: whole channels cut out, so that the graph itself becomes smaller.

What other passes set to zero is still multiplied; what this one removes is gone, on every machine. Channels
that hang together go together: Torch-Pruning follows them through the graph, the graph is cut, and the result
is run to prove that it computes what the whole one does where nothing reads those channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jettison.compress.distillation.door import load_torch_pruning
from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.pruning.channel_choice import (
    Costs,
    Removed,
    Scores,
    chosen,
    energies,
    kept_by_macs,
    kept_by_share,
)
from jettison.compress.pruning.channel_groups import ChannelGroup
from jettison.compress.pruning.channel_proof import cut_model, disproof
from jettison.compress.pruning.channel_report import channel_layers, costs_note
from jettison.compress.pruning.choice import KEY
from jettison.compress.pruning.masks import Criterion, Floats
from jettison.compress.pruning.removed import compressed_bytes, sizes_note, summary
from jettison.compress.pruning.taylor import channel_scores, refuse_without_gradient
from jettison.compress.quantization.keep_float import kept_layers, unmatched
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.refusals import refuse_quantized
from jettison.core.batching import fitting_batches
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.core.validation import ImpossibleValueError
from jettison.engines.onnxruntime import shapes_of
from jettison.graph.edit import float_constant, is_constant
from jettison.graph.macs import macs_by_node
from jettison.graph.model import input_specs
from jettison.graph.shapes import example_inputs
from jettison.graph.shrink import with_open_reshapes

_PROVEN_ON = 8
"""Samples that a cut is proven on; a wrong one differs on the first."""
_SLACK = 0.005
"""Of the multiply-accumulates, that may be missing without a warning."""
_ASKED = "expected channels: a share such as 0.3, or channels: {macs: 0.5}"


class PruneChannels(BaseModel):
    """The channels that matter least are cut out, down to multiples that kernels like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prune: Literal["channels"] = "channels"
    channels: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    macs: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    round_to: Literal[8, 16, 32] = 8
    criterion: Criterion = "magnitude"
    keep_dense: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _macs_below_channels(cls, value: Any) -> Any:
        """`channels: {macs: 0.5}` as `macs: 0.5`."""
        inner = value.get("channels") if isinstance(value, dict) else None
        if not isinstance(inner, dict):
            return value
        if set(inner) != {"macs"}:
            raise ImpossibleValueError(f"{_ASKED}, found keys {sorted(map(str, inner))}", fix="Correct it")
        return {**{key: entry for key, entry in value.items() if key != "channels"}, **inner}

    @model_validator(mode="after")
    def _one_share(self) -> PruneChannels:
        if (self.channels is None) == (self.macs is None):
            found = "neither" if self.channels is None else "both"
            raise ImpossibleValueError(f"{_ASKED}, found {found}", fix="Write one of them")
        return self

    @property
    def libraries(self) -> tuple[str, ...]:
        """What else its result depends on."""
        return ("torch", "torch-pruning")

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses a quantized model, one that no gradient passes through, and one without such channels.

        Raises:
            MissingError: torch or torch-pruning is not installed.
        """
        graph = piece.model.graph
        refusal = refuse_quantized(graph) or unmatched(graph, self.keep_dense, key=KEY)
        if refusal is not None:
            return refusal
        load_torch_pruning()
        found = _traced(piece.model, self.keep_dense)
        if isinstance(found, Refusal):
            return found
        if self.criterion == "taylor" and (refusal := refuse_without_gradient(piece.model)) is not None:
            return refusal
        if any(group.refusal is None and group.channels > self.round_to for group in found.groups):
            return None
        reasons = {_whole(group, self.round_to) for group in found.groups}
        return Refusal(
            reasons=tuple(sorted(reasons)) or ("no layer makes channels that another one reads",),
            instead="Leave the pass out, or prune single weights: {prune: {sparsity: 0.5}}",
        )

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The smaller model, or the one given where no cut could be proven."""
        traced = _traced(piece.model, self.keep_dense)
        if isinstance(traced, Refusal):
            raise ValueError("channels: called though it was refused")
        scores, judged = self._scores(traced, samples)
        inputs = next(fitting_batches(samples, input_specs(piece.model), size=_PROVEN_ON))
        proven, removed = self._proven(traced, scores, inputs, threads=piece.threads)
        model = cut_model(proven.model, proven.groups, removed) if removed else piece.model
        layers = channel_layers(
            piece.model, proven.groups, removed, self._rule(proven.groups, removed), proven.macs
        )
        notes = (
            *summary(layers),
            costs_note(layers, proven.costs.others),
            *judged,
            sizes_note(compressed_bytes(piece.model), compressed_bytes(model)),
        )
        warnings = tuple(self._warnings(proven, removed))
        counterpart = model if removed else None
        return PassResult(model, notes=notes, warnings=warnings, pruned=layers, counterpart=counterpart)

    def _scores(self, traced: _Traced, samples: Samples) -> tuple[list[Scores], tuple[str, ...]]:
        if self.criterion == "magnitude":
            weights = _weights(traced.model)
            return [energies(group, weights) for group in traced.groups], ()
        found, told = channel_scores(traced.model, samples, traced.groups)
        return found, (f"|w dL/dw| of channels {told}",)

    def _proven(
        self, traced: _Traced, scores: Sequence[Scores], inputs: Arrays, *, threads: int
    ) -> tuple[_Traced, Removed]:
        """What goes, proven by running it; groups that break the graph stay whole and say why."""
        removed = self._removed(traced, scores)
        if not removed or disproof(traced.model, traced.groups, removed, inputs, threads=threads) is None:
            return traced, removed
        groups = list(traced.groups)
        for index, lost in removed.items():
            alone = disproof(traced.model, groups, {index: lost}, inputs, threads=threads)
            groups[index] = replace(groups[index], refusal=alone)
        traced = replace(traced, groups=groups)
        removed = self._removed(traced, scores)
        whole = disproof(traced.model, groups, removed, inputs, threads=threads) if removed else None
        if whole is None:
            return traced, removed
        rolled_back = [replace(g, refusal=g.refusal or f"rolled back: {whole}") for g in groups]
        return replace(traced, groups=rolled_back), {}

    def _removed(self, traced: _Traced, scores: Sequence[Scores]) -> dict[int, tuple[int, ...]]:
        if self.macs is not None:
            kept = kept_by_macs(traced.groups, self.macs, self.round_to, traced.costs)
        else:
            kept = kept_by_share(traced.groups, self.channels or 0.0, self.round_to)
        lost = [group.channels - count for group, count in zip(traced.groups, kept, strict=True)]
        return {index: chosen(scores[index], count) for index, count in enumerate(lost) if count}

    def _rule(self, groups: Sequence[ChannelGroup], removed: Removed) -> dict[int, str]:
        """Why each group keeps its channels, or by which rule it loses some."""
        return {
            index: f"least by {self.criterion}, {len(removed[index])} of {group.channels} removed"
            if index in removed
            else _whole(group, self.round_to)
            for index, group in enumerate(groups)
        }

    def _warnings(self, traced: _Traced, removed: Removed) -> Iterator[str]:
        if not removed:
            yield "no channels were cut: the model is as it was"
        elif self.macs is not None:
            kept = [g.channels - len(removed.get(index, ())) for index, g in enumerate(traced.groups)]
            left = traced.costs.left(traced.groups, kept) / max(traced.costs.total, 1)
            if left > 1 - self.macs + _SLACK:
                yield (
                    f"{1 - left:.1%} of the multiply-accumulates are cut, {self.macs:.1%} were asked for: no "
                    f"group has {self.round_to} channels more to lose"
                )


@dataclass(frozen=True)
class _Traced:
    """A model ready to be cut: its channel groups and what it costs, by node and by weight."""

    model: ir.Model
    groups: Sequence[ChannelGroup]
    macs: Mapping[str, int]
    costs: Costs


def _traced(model: ir.Model, keep_dense: Sequence[str]) -> _Traced | Refusal:
    from jettison.compress.distillation.graph_module import graph_module
    from jettison.compress.pruning.channel_tracing import channel_groups

    shapes = shapes_of(model)
    opened = with_open_reshapes(model, shapes)
    module = graph_module(opened)
    if isinstance(module, Refusal):
        return module
    groups = channel_groups(opened, module, example_inputs(input_specs(opened)))
    kept = kept_layers(model.graph, keep_dense)
    asked = {layer.weight.name for layer in find_layers(model.graph) if layer.name in kept}
    groups = [_kept(group, asked) for group in groups]
    macs = macs_by_node(model, shapes)
    return _Traced(opened, groups, macs, _costs(model, macs))


def _kept(group: ChannelGroup, asked: set[str | None]) -> ChannelGroup:
    if not any(place.name in asked for place in group.places):
        return group
    return replace(group, refusal=group.refusal or "kept dense as asked, or with a layer that is")


def _costs(model: ir.Model, macs: Mapping[str, int]) -> Costs:
    by_weight: dict[str, int] = {}
    others = dict(macs)
    for layer in find_layers(model.graph):
        if is_constant(layer.weight):
            name = layer.weight.name or ""
            by_weight[name] = by_weight.get(name, 0) + others.pop(layer.name, 0)
    return Costs(by_weight, sum(others.values()))


def _weights(model: ir.Model) -> dict[str, Floats]:
    layers = (layer for layer in find_layers(model.graph) if is_constant(layer.weight))
    return {layer.weight.name or "": float_constant(layer.weight) for layer in layers}


def _whole(group: ChannelGroup, round_to: int) -> str:
    """Why a group keeps all of its channels."""
    if group.refusal is not None:
        return group.refusal
    if group.channels <= round_to:
        return f"it has {group.channels} channels, and {round_to} is the least that is kept"
    return "the share that was asked for is reached without it"
