"""The pass `{quantize: int4}`: weights of matrix products in 4 bits, activations in float.

The file shrinks to an eighth where its weights are of that kind. ONNX Runtime's CPU provider multiplies from
4 bits (MatMulNBits, into which it fuses DequantizeLinear and the product behind it); TensorRT reads 4 bits
from memory and multiplies in float. So it pays where memory is what takes the time: few rows, large weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.block_moments import Floats, block_moments
from jettison.compress.quantization.block_weights import BlockWeight, quantize_blocks
from jettison.compress.quantization.keep_float import kept_layers
from jettison.compress.quantization.layers import Layer, find_layers, sizes_of
from jettison.compress.quantization.placement import LayerDecision, name_of
from jettison.compress.quantization.refusals import refuse_unfit, without_layers
from jettison.core.errors import ModelError
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.graph.blocks import BLOCK_OPSET, BlockEditor
from jettison.graph.edit import float_constant
from jettison.graph.model import opset_of
from jettison.graph.moments import Moment
from jettison.graph.opset import raise_opset

BlockSize = Literal[16, 32, 64, 128]
"""Sizes that ONNX Runtime (powers of two from 16 on) and TensorRT-RTX 1.7 take."""

SMALLEST_BLOCK = 16
_NAMED = 6


class QuantizeInt4(BaseModel):
    """INT4 weights of MatMul and Gemm in blocks of inputs; the longest block that fits, up to `block`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["int4"] = "int4"
    block: BlockSize = 128
    clip: Literal["none", "awq"] = "awq"
    keep_float: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses Turing, a model without a product whose weights fit blocks, and names that match none."""
        refusal = _target_refusal(piece.target) or refuse_unfit(piece.model.graph, self.keep_float)
        if refusal is not None:
            return refusal
        plan = self._plan(piece)
        if not plan.blocks:
            return without_layers(
                ((decision.kind, decision.reason) for decision in plan.decisions),
                instead="Use {quantize: full}, or {quantize: float16} for a file of half the size",
            )
        try:
            _prepared(piece.model)
        except ModelError as error:
            return Refusal(reasons=(error.detail,), instead=error.fix)
        return None

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with weights in 4 bits; samples are read only for `clip: awq`."""
        plan = self._plan(piece)
        moments: Mapping[Moment, Floats] = {}
        if self.clip == "awq":
            wanted = list(dict.fromkeys(plan.moments(piece.model.graph)))
            moments = block_moments(
                piece.model, samples, wanted, threads=piece.threads, progress=piece.progress
            )
        model = _prepared(piece.model)
        # ONNX Runtime 1.32 fuses a stored weight into one product only.
        writer = _Writer(BlockEditor(model), moments, shares=piece.target.is_gpu)
        for layer in find_layers(model.graph):
            if layer.name in plan.blocks:
                writer.write(layer, plan.blocks[layer.name])
        writer.editor.drop_unused()
        return PassResult(model, layers=plan.decisions, notes=_notes(piece, plan.blocks))

    def _plan(self, piece: Workpiece) -> _Plan:
        graph = piece.model.graph
        kept = kept_layers(graph, self.keep_float)
        refusals = {layer.name: _refusal(layer, piece.target, kept) for layer in find_layers(graph)}
        chosen = {layer.node for layer in find_layers(graph) if refusals[layer.name] is None}
        blocks: dict[str, int] = {}
        decisions = []
        for layer in find_layers(graph):
            reason = refusals[layer.name] or _reader_refusal(layer, chosen)
            if reason is None:
                blocks[layer.name] = _block_of(layer, self.block)
            decisions.append(
                LayerDecision(
                    node=layer.name,
                    kind=layer.kind,
                    quantized=reason is None,
                    reason=reason or f"INT4 weights in blocks of {blocks[layer.name]}",
                )
            )
        return _Plan(blocks, tuple(decisions))


@dataclass(frozen=True)
class _Plan:
    """The block size of each layer whose weights go to 4 bits, and a decision for every layer."""

    blocks: Mapping[str, int]
    decisions: tuple[LayerDecision, ...]

    def moments(self, graph: ir.Graph) -> Iterator[Moment]:
        """What the layers need to know of their activations, in the graph's order."""
        for layer in find_layers(graph):
            if layer.name in self.blocks:
                yield _moment(layer, self.blocks[layer.name])


def _moment(layer: Layer, block: int) -> Moment:
    return Moment(name_of(layer.activation), layer.inner_size, block)


def _target_refusal(target: Target) -> Refusal | None:
    if target.compute_capability == 75:
        return Refusal(
            reasons=("TensorRT compiles INT4 weights from Ampere (sm80) on, not for Turing (sm75)",),
            instead="Use {quantize: full} or {quantize: float16}",
        )
    return None


def _refusal(layer: Layer, target: Target, kept: frozenset[str]) -> str | None:
    """Why the layer's weights stay in float, as far as the layer itself tells."""
    if layer.kind not in ("MatMul", "Gemm"):
        return "INT4 weights serve matrix products only"
    if layer.refusal is not None:
        return layer.refusal
    if layer.name in kept:
        return "left in float as asked"
    if layer.inner_size % SMALLEST_BLOCK:
        return f"its {layer.inner_size} inputs are no multiple of {SMALLEST_BLOCK}, the smallest block"
    if target.is_gpu and layer.channels % 2:
        return f"its {layer.channels} channels are an odd number, and TensorRT keeps two to a byte"
    return "its bias differs from row to row" if _has_bias_of_rows(layer) else None


def _has_bias_of_rows(layer: Layer) -> bool:
    shape = sizes_of(layer.bias) if layer.bias is not None else ()
    return bool(shape) and (shape[-1] not in (1, layer.channels) or any(size != 1 for size in shape[:-1]))


def _reader_refusal(layer: Layer, chosen: set[ir.Node]) -> str | None:
    """Why a weight that others read stays in float: they would need the float copy beside the 4 bits."""
    others = [usage.node for usage in layer.weight.uses() if usage.node not in chosen]
    if layer.weight.is_graph_output():
        return "its weight is an output of the graph"
    return f"{others[0].op_type} {others[0].name!r} reads its weight too" if others else None


def _block_of(layer: Layer, longest: int) -> int:
    """The longest block up to that one which divides the layer's inputs.

    A shorter last block is nothing that TensorRT takes, and filling it up would need more inputs.
    """
    block = longest
    while layer.inner_size % block:
        block //= 2
    return block


def _prepared(model: ir.Model) -> ir.Model:
    """A copy at an opset that knows blocks.

    Raises:
        ModelError: An operator cannot be converted to it.
    """
    copy = model.clone()
    return copy if opset_of(copy) >= BLOCK_OPSET else raise_opset(copy, BLOCK_OPSET)


def _notes(piece: Workpiece, blocks: Mapping[str, int]) -> tuple[str, ...]:
    if piece.target.is_gpu:
        return ("TensorRT multiplies in float: less memory to read, no faster arithmetic",)
    notes = ["ONNX Runtime's kernel rounds what such a product reads to INT8 by itself (46 dB)"]
    unpacked = [name for name in blocks if _is_clamped(piece.model.graph.node(name))]
    if unpacked:
        names = ", ".join(unpacked[:_NAMED]) + (" ..." if len(unpacked) > _NAMED else "")
        notes.append(
            "in front of a Relu or Clip ONNX Runtime (1.32) unpacks the weights at each run, which is slower "
            f"than float; layers: {names}"
        )
    return tuple(notes)


def _is_clamped(node: ir.Node) -> bool:
    readers = [usage.node.op_type for usage in node.outputs[0].uses()]
    return len(readers) == 1 and readers[0] in ("Relu", "Clip")


@dataclass
class _Writer:
    """Stores weights in 4 bits; where `shares` holds, once for all layers that have one weight."""

    editor: BlockEditor
    moments: Mapping[Moment, Floats]
    shares: bool
    _stored: dict[tuple[str, int, float], ir.Value] = field(default_factory=dict)

    def write(self, layer: Layer, block: int) -> None:
        """Let the layer multiply by 4 bits; a Gemm becomes a plain x W + b, all that ONNX Runtime fuses."""
        alpha = layer.node.attributes.get_float("alpha", 1.0)
        key = (name_of(layer.weight), layer.weight_axis, alpha)
        value = self._stored.get(key) if self.shares else None
        if value is None:
            value = self._store(layer, block, alpha)
            self._stored[key] = value
        if layer.kind == "Gemm":
            self._simplify(layer)
        self.editor.rewire([(layer.name, 1)], value)

    def _store(self, layer: Layer, block: int, alpha: float) -> ir.Value:
        array = float_constant(layer.weight)
        weight = array if layer.weight_axis == 1 else array.T
        moments = self.moments.get(_moment(layer, block))
        found: BlockWeight = quantize_blocks(np.ascontiguousarray(weight * np.float32(alpha)), block, moments)
        stem = f"{layer.name}_weight"
        return self.editor.store_blocks(stem, found.values, found.scales, axis=0, block=block)

    def _simplify(self, layer: Layer) -> None:
        beta = layer.node.attributes.get_float("beta", 1.0)
        for name in ("alpha", "beta", "transB"):
            layer.node.attributes.pop(name, None)
        if layer.bias is not None and (beta != 1.0 or sizes_of(layer.bias) != (layer.channels,)):
            scaled = float_constant(layer.bias) * np.float32(beta)
            flat = np.broadcast_to(scaled.reshape(-1), (layer.channels,))
            self.editor.rewire([(layer.name, 2)], self.editor.constant(f"{layer.name}_bias", flat))
