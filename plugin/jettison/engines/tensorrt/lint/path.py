"""Checks of the fast path: where pairs stand. What they find builds, and costs speed or integers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from jettison.engines.tensorrt.lint.finding import Place, Subject
from jettison.engines.tensorrt.lint.pairs import (
    WEIGHTED,
    Pair,
    Quantizer,
    channel_axis,
    origin,
    pairs,
    quantizer_of,
    readers_of,
)
from jettison.graph.edit import is_constant

ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish", "HardSigmoid", "Elu"})
"""Operators that TensorRT fuses into the layer before them."""
FLOAT_OPERATORS = frozenset(
    {
        "Softmax", "LayerNormalization", "GroupNormalization", "InstanceNormalization", "Gelu", "Erf", "Exp",
        "Log", "Sqrt", "Pow", "Reciprocal", "Div", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish",
        "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "LogSoftmax", "Softplus",
    }
)  # fmt: skip
"""Operators that TensorRT computes in float whatever stands before them: a pair there gives nothing."""
LEAST_WIDTH = 16
"""Fewer inner or output elements than this are slower in integers. Source: TensorRT's best practices."""


def repeated(subject: Subject) -> Iterator[Place]:
    """Pairs of equal scale on one value."""
    for pair, first in twins(subject.graph):
        where, other = pair.quantize.source.name, first.quantize.node.name
        yield Place(pair.quantize.node, f"expected one pair of that scale on {where!r}, found {other!r} too")


def twins(graph: ir.Graph) -> list[tuple[Pair, Pair]]:
    """Pairs that repeat another one, each with the first of its kind."""
    firsts: dict[tuple[object, ...], Pair] = {}
    found = []
    for pair in pairs(graph):
        key = (pair.quantize.source, *_meaning(pair.quantize))
        if key in firsts:
            found.append((pair, firsts[key]))
        else:
            firsts[key] = pair
    return found


def _meaning(half: Quantizer) -> tuple[object, ...]:
    if half.scale is None:
        return (id(half.node),)
    point = b"" if half.zero_point is None else half.zero_point.tobytes()
    return half.scale.tobytes(), point, half.stored, half.axis if half.scale.size > 1 else 0


def behind_layers(subject: Subject) -> Iterator[Place]:
    """Residual sums whose both branches are quantized, one of them right behind its layer."""
    for pair, sum_ in branches(subject.graph):
        text = f"expected the layer's branch to go into {sum_.name!r} as it is, found a pair between the two"
        yield Place(pair.quantize.node, text)


def branches(graph: ir.Graph) -> list[tuple[Pair, ir.Node]]:
    """The pair on a layer's own branch of each sum whose other branch is quantized too."""
    by_output = {half.output: pair for pair in pairs(graph) for half in pair.dequantizes}
    found = []
    for node in graph:
        if node.op_type != "Add" or any(value not in by_output for value in node.inputs):
            continue
        own = [by_output[value] for value in node.inputs if value is not None]
        private = [pair for pair in own if _is_private(pair, node) and _made_by(pair, tuple(WEIGHTED))]
        if own[0] is not own[1] and private:
            found.append((private[0], node))
    return found


def before_activations(subject: Subject) -> Iterator[Place]:
    """Pairs between a layer and the activation that would be fused into it."""
    for pair, node in unfused(subject.graph):
        yield Place(pair.quantize.node, f"expected no pair between a layer and its {node.op_type}, found one")


def unfused(graph: ir.Graph) -> list[tuple[Pair, ir.Node]]:
    """Pairs whose only reader is an activation behind a layer."""
    found = []
    for pair in pairs(graph):
        readers = [node for half in pair.dequantizes for node, _ in half.output.uses()]
        if len(readers) == 1 and readers[0].op_type in ACTIVATIONS and _made_by(pair, tuple(WEIGHTED)):
            found.append((pair, readers[0]))
    return found


def concatenated(subject: Subject) -> Iterator[Place]:
    """Branches of a Concat with different scales."""
    for node, found in uneven(subject.graph):
        scales = sorted(_scale(pair) for pair in found)
        span = f"scales from {scales[0]:g} to {scales[-1]:g}"
        yield Place(node, f"expected one scale on all branches, found {span}")


def uneven(graph: ir.Graph) -> list[tuple[ir.Node, list[Pair]]]:
    """Each Concat whose branches are quantized by different scales, with the pairs on them."""
    by_output = {half.output: pair for pair in pairs(graph) for half in pair.dequantizes}
    found = []
    for node in graph:
        if node.op_type != "Concat" or any(value not in by_output for value in node.inputs):
            continue
        own = list(dict.fromkeys(by_output[value] for value in node.inputs if value is not None))
        plain = all(
            pair.quantize.is_per_tensor and pair.quantize.stored == ir.DataType.INT8 and pair.is_closed
            for pair in own
        )
        if plain and len({_scale(pair) for pair in own}) > 1:
            found.append((node, own))
    return found


def on_outputs(subject: Subject) -> Iterator[Place]:
    """Pairs on outputs of the model."""
    for pair in final(subject.graph):
        yield Place(pair.quantize.node, "expected no pair on an output of the model, found one")


def final(graph: ir.Graph) -> list[Pair]:
    """Pairs that end in an output of the model and are read by nothing else."""
    return [
        pair
        for pair in pairs(graph)
        if pair.is_plain
        and any(half.output.is_graph_output() for half in pair.dequantizes)
        and not any(half.output.uses() for half in pair.dequantizes)
        and pair.quantize.source.producer() is not None
    ]


def before_float(subject: Subject) -> Iterator[Place]:
    """Pairs that only operators read which are computed in float."""
    for pair in needless(subject.graph):
        readers = sorted({node.op_type for half in pair.dequantizes for node, _ in half.output.uses()})
        text = f"expected no pair before float operators, found {', '.join(readers)} behind it"
        yield Place(pair.quantize.node, text)


def needless(graph: ir.Graph) -> list[Pair]:
    """Pairs whose readers are computed in float, all of them."""
    found = []
    for pair in pairs(graph):
        readers = [node for half in pair.dequantizes for node, _ in half.output.uses()]
        is_output = any(half.output.is_graph_output() for half in pair.dequantizes)
        if readers and not is_output and all(node.op_type in FLOAT_OPERATORS for node in readers):
            found.append(pair)
    return found


def half_quantized(subject: Subject) -> Iterator[Place]:
    """Layers with integers on one input and float on the other, which then run in float."""
    for node in subject.graph:
        if node.op_type not in WEIGHTED or len(node.inputs) < 2:
            continue
        activation, weight = (_quantizer_before(value) for value in node.inputs[:2])
        if weight is not None and weight.stored in (ir.DataType.INT4, ir.DataType.FLOAT4E2M1):
            continue
        if (activation is None) != (weight is None):
            found = "weight" if activation is None else "activation"
            yield Place(node, f"expected pairs on activation and weight, found one on the {found} only")


def narrow(subject: Subject) -> Iterator[Place]:
    """Quantized layers too narrow to gain; depthwise ones are another matter, for a GPU to measure."""
    for node in subject.graph:
        axis = channel_axis(node)
        weight = node.inputs[1] if axis is not None and len(node.inputs) > 1 else None
        half = _quantizer_before(weight)
        stored = None if half is None else half.constant
        is_depthwise = node.op_type == "Conv" and stored is not None and stored.shape[1:2] == (1,)
        if axis is None or stored is None or stored.ndim < 2 or is_depthwise:
            continue
        width, inner = stored.shape[axis], math.prod(stored.shape) // max(stored.shape[axis], 1)
        if min(width, inner) < LEAST_WIDTH:
            found = f"{width} and {inner}"
            yield Place(node, f"expected at least {LEAST_WIDTH} outputs and products each, found {found}")


def lone(subject: Subject) -> Iterator[Place]:
    """Quantized layers whose neighbours are layers in float, all of them."""
    for node in subject.graph:
        if node.op_type in WEIGHTED and _is_quantized(node):
            others = [*_layers(node, forward=False), *_layers(node, forward=True)]
            if others and not any(_is_quantized(other) for other in others):
                yield Place(
                    node, f"expected a neighbour in integers, found {len(others)} in float and no other"
                )


def _is_quantized(node: ir.Node) -> bool:
    return all(_quantizer_before(value) is not None for value in node.inputs[:2])


def _layers(node: ir.Node, *, forward: bool) -> Iterator[ir.Node]:
    """The nearest layers before or behind a layer, through whatever has no weights."""
    waiting, seen = [node], {node}
    while waiting:
        for other in _next_to(waiting.pop(), forward=forward):
            if other in seen:
                continue
            seen.add(other)
            if other.op_type in WEIGHTED and _has_weight(other):
                yield other
            else:
                waiting.append(other)


def _has_weight(node: ir.Node) -> bool:
    half = _quantizer_before(node.inputs[1])
    made = None if half is None else half.source.producer()
    stored = made.inputs[0] if made is not None and made.op_type == "QuantizeLinear" else None
    return is_constant(node.inputs[1]) or (
        half is not None and (half.constant is not None or is_constant(stored))
    )


def _next_to(node: ir.Node, *, forward: bool) -> Iterator[ir.Node]:
    if forward:
        yield from (reader for value in node.outputs for reader, _ in value.uses())
        return
    for value in node.inputs:
        made = None if value is None or is_constant(value) else value.producer()
        if made is not None:
            yield made


def batch_norms(subject: Subject) -> Iterator[Place]:
    """BatchNormalization right behind a layer."""
    for node in subject.graph:
        made = node.inputs[0].producer() if node.op_type == "BatchNormalization" and node.inputs[0] else None
        if made is not None and made.op_type in ("Conv", "ConvTranspose", "Gemm"):
            yield Place(node, f"expected it folded into {made.name!r}, found a node of its own")


def _quantizer_before(value: ir.Value | None) -> Quantizer | None:
    node = None if value is None else origin(value).producer()
    return quantizer_of(node) if node is not None and node.op_type == "DequantizeLinear" else None


def _made_by(pair: Pair, operators: tuple[str, ...]) -> bool:
    node = pair.quantize.source.producer()
    return node is not None and node.op_type in operators and len(list(node.outputs[0].uses())) == 1


def _is_private(pair: Pair, reader: ir.Node) -> bool:
    readers = [node for half in pair.dequantizes for node, _ in readers_of(half)]
    return readers == [reader] and not any(half.output.is_graph_output() for half in pair.dequantizes)


def _scale(pair: Pair) -> float:
    return float(np.asarray(pair.quantize.scale).reshape(-1)[0])
