"""Which layers a pass prunes, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.compress.passes import Refusal
from jettison.compress.pruning.masks import Floats
from jettison.compress.quantization.keep_float import kept_layers, unmatched
from jettison.compress.quantization.layers import KINDS, Layer, find_layers
from jettison.compress.quantization.refusals import refuse_quantized
from jettison.graph.edit import float_constant, is_constant
from jettison.graph.two_to_four import input_axis, why_dense

KEY = "keep_dense"

Rule = Callable[[Layer], "str | None"]
"""Why a pass leaves a layer dense, or None."""


@dataclass(frozen=True)
class Choice:
    """All weighted layers, those to prune, and for each of the others why it stays dense."""

    every: tuple[Layer, ...]
    layers: tuple[Layer, ...]
    dense: Mapping[str, str]

    def weights(self) -> dict[str, Floats]:
        """The weights to prune, each once, by their values' names: float32."""
        return {layer.weight.name or "": float_constant(layer.weight) for layer in self.layers}

    def readers(self) -> dict[str, list[Layer]]:
        """The layers to prune by the name of their weight, which several may share."""
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            found.setdefault(layer.weight.name or "", []).append(layer)
        return found


def choose_layers(graph: ir.Graph, keep_dense: Sequence[str], rule: Rule = lambda _: None) -> Choice:
    """The layers with constant float32 weights that are not to be kept and that the rule lets pass.

    A weight that others read too is pruned only where all of them are layers to prune: whoever else reads it
    needs it whole, and two copies would make the model larger.
    """
    every = tuple(find_layers(graph))
    kept = kept_layers(graph, keep_dense)
    reasons = {layer.name: _reason(layer, kept) or rule(layer) for layer in every}
    first = {layer.node for layer in every if reasons[layer.name] is None}
    for layer in every:
        reasons[layer.name] = reasons[layer.name] or _other_reader(layer, first)
    return Choice(
        every,
        tuple(layer for layer in every if reasons[layer.name] is None),
        {name: reason for name, reason in reasons.items() if reason is not None},
    )


def choose_for_groups(graph: ir.Graph, keep_dense: Sequence[str]) -> Choice:
    """The layers of `choose_layers` that can be 2:4; those that share a weight have to group it alike."""
    return choose_layers(graph, keep_dense, rule=_no_groups)


def refuse_unfit(graph: ir.Graph, choice: Choice, keep_dense: Sequence[str]) -> Refusal | None:
    """Refuses a quantized model, patterns that match nothing, and a model without a layer to prune."""
    refusal = refuse_quantized(graph) or unmatched(graph, keep_dense, key=KEY)
    if refusal is not None or choice.layers:
        return refusal
    reasons = sorted({f"{layer.kind}: {choice.dense[layer.name]}" for layer in choice.every})
    return Refusal(
        reasons=tuple(reasons) or ("the model has no layer with constant weights",),
        instead="Leave the pass out, or give the float32 model",
    )


def pruned_copy(model: ir.Model, weights: Mapping[str, Floats]) -> ir.Model:
    """A copy with these weights, by their values' names; all others are shared with the model given."""
    copy = model.clone()
    for name, array in weights.items():
        value = copy.graph.initializers[name]
        value.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=name)
    return copy


def _reason(layer: Layer, kept: Iterable[str]) -> str | None:
    weight = layer.weight
    if layer.name in kept:
        return "kept dense as asked"
    if not is_constant(weight):
        return "its weight is computed at run time"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, expected float32"
    if not weight.is_initializer():
        return "its weight is no initializer"
    if weight.is_graph_output():
        return "its weight is an output of the graph"
    return _unrankable(weight)


def _unrankable(weight: ir.Value) -> str | None:
    array = float_constant(weight)
    if not array.size:
        return "its weight is empty"
    is_finite = bool(np.isfinite(array).all())
    return None if is_finite else "its weight holds NaN or infinity, which no rule can rank"


def _no_groups(layer: Layer) -> str | None:
    axes = {input_axis(usage.node) for usage in layer.weight.uses() if usage.node.op_type in KINDS}
    if len(axes) > 1:
        return "a layer that shares its weight groups it along another axis"
    return why_dense(layer.node, layer.weight_shape)


def _other_reader(layer: Layer, chosen: set[ir.Node]) -> str | None:
    for usage in layer.weight.uses():
        if usage.node not in chosen or usage.idx != 1:
            return f"{usage.node.op_type} {usage.node.name!r} reads its weight too, and whole"
    return None
