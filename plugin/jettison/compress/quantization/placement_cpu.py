"""The `cpu` dialect: pairs such that ONNX Runtime's integer kernels take over, and nothing falls between.

A value is integer where a quantized layer reads it or makes it; operators between such values (moves,
pools, residual additions, concatenations) then run on integers too. An addition is taken only where both
sides are integers anyway: a pair of its own costs more accuracy than it saves time.
Source: ONNX Runtime's QDQ transformer selectors; measured in benchmarks/compress.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.quantization.attention import find_products
from jettison.compress.quantization.layers import (
    PASSTHROUGH,
    Layer,
    fused_output,
    sizes_of,
)
from jettison.compress.quantization.placement import (
    Placement,
    Reader,
    Site,
    Ties,
    data_inputs,
    decide,
    is_float,
    name_of,
    readers_of,
)
from jettison.graph.edit import is_constant

_POOLS = frozenset({"AveragePool", "GlobalAveragePool"})
"""Operators with integer kernels whose output has a scale of its own."""
_RECAPTURED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Float operators that ONNX Runtime would quantize by itself behind a per-tensor DequantizeLinear."""

_NO_GAIN = (
    "ONNX Runtime's integer kernel of two activations gains nothing to speak of over float: 0.99 to 1.05 "
    "times as fast on MiniLM as a whole"
)


def place_for_cpu(graph: ir.Graph, keep_in_float: frozenset[str], *, attention: bool = False) -> Placement:
    """The plan for ONNX Runtime's CPU kernels; `attention` asks for products of activations, all refused.

    ONNX Runtime does fuse such products (QLinearMatMul, MatMulIntegerToFloat), without a gain to speak of.
    all-MiniLM-L6-v2 with pairs on the operands against float attention, both with integer layers, on two
    cores with AVX512-VNNI: 0.99 times as fast for 1 x 64 tokens, 1.02 for 8 x 64, 1.05 for 1 x 256; with
    pairs on the outputs too 0.99, 0.95 and 1.02. Medians of interleaved runs on a machine with other work.
    """
    chosen, decisions = decide(graph, _rule, keep_in_float)
    layers = {layer.node for layer in chosen}
    integer = _integer_values(graph, chosen)
    runs_on_integers = {node for node in graph if node in layers or _is_integer_operator(node, integer)}
    made = {fused_output(node) for node in runs_on_integers if fused_output(node) in integer}
    plan = _Plan(integer, runs_on_integers, made)
    sites = [plan.site(value) for value in sorted(integer, key=name_of)]
    used = tuple(site for site in sites if site.readers or site.guarded or site.is_output)
    products = find_products(graph, lambda _: _NO_GAIN, keep_in_float) if attention else ()
    told = tuple(product.decision for product in products)
    return Placement("cpu", tuple(decisions), used, _ties(runs_on_integers, integer), told)


def _rule(layer: Layer) -> str | None:
    if layer.kind == "ConvTranspose":
        return "ONNX Runtime's CPU provider has no integer kernel for transposed convolutions"
    if layer.kind != "Gemm" or layer.bias is None:
        return None
    factors = [name for name in ("alpha", "beta") if layer.node.attributes.get_float(name, 1.0) != 1.0]
    if factors:
        return f"its {' and '.join(factors)} beside a bias are what integer kernels cannot do"
    shape = sizes_of(layer.bias)
    if shape and (shape[-1] not in (1, layer.channels) or any(size != 1 for size in shape[:-1])):
        return "its bias differs from row to row"
    return None


def _integer_values(graph: ir.Graph, chosen: list[Layer]) -> set[ir.Value]:
    """Values that get a pair: inputs of quantized layers, back through moves, and what convolutions make.

    What a matrix product makes stays in float, but not behind a clamp: ONNX Runtime runs a product and its
    clamp on integers only where a pair follows, and both in float otherwise.
    """
    integer = {layer.activation for layer in chosen}
    for node in reversed(list(graph)):
        if any(output in integer for output in node.outputs):
            integer.update(value for value in data_inputs(node) if is_float(value) and not is_constant(value))
    for layer in chosen:
        output = fused_output(layer.node)
        if layer.kind == "Conv" or output not in layer.node.outputs:
            integer.add(output)
    return integer


def _is_integer_operator(node: ir.Node, integer: set[ir.Value]) -> bool:
    """Whether every float input and the output of a move, pool, addition or concatenation is integer."""
    if node.op_type in PASSTHROUGH or node.op_type == "Concat":
        return all(value in integer for value in [*data_inputs(node), *node.outputs])
    if node.op_type in _POOLS:
        return node.inputs[0] in integer and node.outputs[0] in integer
    if node.op_type == "Add":
        return all(value in integer for value in node.inputs) and fused_output(node) in integer
    return False


@dataclass(frozen=True)
class _Plan:
    """What is integer: the values, the operators that run on integers, and the values that those make."""

    integer: set[ir.Value]
    operators: set[ir.Node]
    made: set[ir.Value]

    def site(self, value: ir.Value) -> Site:
        """The pair of one value.

        Where an integer kernel makes the value, nobody can read it but from the pair; where a float
        operator makes it, float readers keep the exact value.
        """
        is_made = value in self.made
        is_output = is_made and value.is_graph_output()
        integer: list[Reader] = []
        plain: list[Reader] = []
        guarded: list[Reader] = []
        for node, reader in readers_of(value):
            if node in self.operators:
                integer.append(reader)
            elif is_made:
                (guarded if node.op_type in _RECAPTURED and reader.index == 0 else plain).append(reader)
        return Site(
            value=name_of(value),
            readers=_ordered(integer + plain),
            guarded=_ordered(guarded),
            is_output=is_output,
            enters=not is_made,
            leaves=bool(plain or guarded or is_output),
        )


def _ordered(readers: list[Reader]) -> tuple[Reader, ...]:
    return tuple(sorted(readers, key=lambda reader: (reader.node, reader.index)))


def _ties(operators: set[ir.Node], integer: set[ir.Value]) -> tuple[tuple[str, ...], ...]:
    """One scale for what a move reads and makes, and for all that a concatenation joins.

    A concatenation of values behind different clamps, or of clamped and free ones, gets no tie: a range
    beyond its clamp's would keep the clamp, and the layer before it, in float. The kernel of the
    concatenation then rescales.
    """
    ties = Ties()
    joints = []
    for node in sorted(operators, key=lambda node: node.name or ""):
        if node.op_type == "Concat":
            joints.append(node)
        elif data_inputs(node):
            ties.join(name_of(value) for value in [*data_inputs(node), *node.outputs] if value in integer)
    bounds = {ties.root(name): bound for name, bound in _clamp_bounds(operators).items()}
    for node in joints:
        sources = [name_of(value) for value in data_inputs(node)]
        found = {bounds.get(ties.root(name)) for name in sources}
        if len(found) == 1:
            ties.join([*sources, name_of(node.outputs[0])])
            bounds[ties.root(sources[0])] = found.pop()
    return ties.groups()


def _clamp_bounds(operators: set[ir.Node]) -> dict[str, float | None]:
    """The upper bound of each value that a clamp makes behind an integer operator, by the value's name."""
    bounds: dict[str, float | None] = {}
    for node in operators:
        output = fused_output(node)
        clamp = output.producer()
        if clamp is not None and clamp is not node:
            highest = clamp.inputs[2] if len(clamp.inputs) > 2 else None
            tensor = None if highest is None else highest.const_value
            bounds[name_of(output)] = math.inf if tensor is None else float(tensor.numpy())
    return bounds
