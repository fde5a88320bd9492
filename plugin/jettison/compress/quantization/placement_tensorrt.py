"""The `tensorrt` dialect: symmetric pairs in front of weighted layers, as TensorRT fuses best.

Both inputs of a weighted layer are quantized, its output is left to the next one's pair; a residual
addition gets a pair on the shortcut only, so that it fuses into the convolution; none on outputs. On request
both operands of each product of activations in attention, what the Softmax makes included. TensorRT-RTX 1.7
then fuses the block into one kernel where the layer behind it is quantized too and heads have 16, 32 or 64
channels; with 24, 48, 80 and 128 to 512 the two products run as INT8 matrix products of their own.
Source: NVIDIA TensorRT documentation, "Working with Quantized Types", Q/DQ placement recommendations.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from jettison.compress.quantization.attention import Product, find_products
from jettison.compress.quantization.layers import Layer, fused_output, sizes_of
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

SMALLEST_GEMM = 16
"""Fewer products or channels than this run faster in float: one tile of an INT8 tensor core."""


def place_for_tensorrt(
    graph: ir.Graph, keep_in_float: frozenset[str], *, attention: bool = False
) -> Placement:
    """The plan for TensorRT; with `attention` the products of activations get pairs too."""
    chosen, decisions = decide(graph, _rule, keep_in_float)
    nodes = {layer.node for layer in chosen}
    readers: dict[ir.Value, list[Reader]] = {}
    made = {fused_output(node) for node in nodes}
    for layer in chosen:
        readers.setdefault(layer.activation, []).append(Reader(layer.name, 0))
    for node in graph:
        shortcut = _shortcut_index(node, nodes)
        value = None if shortcut is None else node.inputs[shortcut]
        if shortcut is not None and value is not None:
            readers.setdefault(value, []).append(Reader(node.name or "", shortcut))
            made.add(fused_output(node))
    products = find_products(graph, _product_rule, keep_in_float) if attention else ()
    for product in products:
        for value, reader in product.operands:
            readers.setdefault(value, []).append(reader)
    sites = tuple(_site(value, found, is_made=value in made) for value, found in readers.items())
    names = {name_of(value) for value in readers}
    told = tuple(product.decision for product in products)
    return Placement("tensorrt", tuple(decisions), sites, _ties(graph, names), told)


def _site(value: ir.Value, readers: list[Reader], *, is_made: bool) -> Site:
    """The pair of one value.

    An integer convolution, or the addition fused into it, writes integers by itself, unless a float operator
    reads the value too; each reader takes the form that it needs, so that nothing is converted back.
    """
    every = {reader for _, reader in readers_of(value)}
    is_alone = every == set(readers) and not value.is_graph_output()
    return Site(name_of(value), tuple(readers), enters=not (is_made and is_alone), leaves=False)


def _rule(layer: Layer) -> str | None:
    if layer.is_depthwise:
        return None
    if layer.inner_size < SMALLEST_GEMM or layer.channels < SMALLEST_GEMM:
        return (
            f"a product of {layer.inner_size} inputs and {layer.channels} channels is too small for integer "
            f"tensor cores (at least {SMALLEST_GEMM} each)"
        )
    return None


def _product_rule(product: Product) -> str | None:
    """Why a product of activations stays in float: a known size below one tile; open ones are taken."""
    ends = [value.shape[-1] for value in product.node.inputs if value is not None and value.shape]
    small = [size for size in ends if isinstance(size, int) and size < SMALLEST_GEMM]
    if not small:
        return None
    return (
        f"a product of activations of the size {small[0]} is too small for integer tensor cores (at least "
        f"{SMALLEST_GEMM})"
    )


def _shortcut_index(node: ir.Node, chosen: set[ir.Node]) -> int | None:
    """Which input of an addition is the shortcut beside a convolution's branch, if it is a residual one."""
    if node.op_type != "Add" or len(node.inputs) != 2 or not _feeds_a_layer(node, chosen):
        return None
    if any(value is None or is_constant(value) or not is_float(value) for value in node.inputs):
        return None
    branches = [
        index for index, value in enumerate(node.inputs) if value is not None and _is_branch(value, chosen)
    ]
    if not branches:
        return None
    if len(branches) == 1:
        return 1 - branches[0]
    return min(branches, key=lambda index: (_products(node.inputs[index]), -index))


def _is_branch(value: ir.Value, chosen: set[ir.Node]) -> bool:
    """Whether the value comes straight from a quantized convolution that nothing else reads."""
    producer = value.producer()
    return producer in chosen and producer.op_type == "Conv" and len(value.uses()) == 1


def _products(value: ir.Value | None) -> int:
    """Products per output of the convolution behind the value: the projection is the smaller one."""
    producer = value.producer() if value is not None else None
    weight = producer.inputs[1] if producer is not None else None
    return math.prod(sizes_of(weight)[1:]) if weight is not None else 0


def _feeds_a_layer(node: ir.Node, chosen: set[ir.Node]) -> bool:
    return any(usage.node in chosen for usage in fused_output(node).uses())


def _ties(graph: ir.Graph, quantized: set[str]) -> tuple[tuple[str, ...], ...]:
    """One scale for a concatenation or a moved tensor and its sources, where both sides have pairs."""
    ties = Ties()
    for node in graph:
        output = name_of(node.outputs[0])
        if output in quantized:
            sources = [name_of(value) for value in data_inputs(node)]
            ties.join([output, *(name for name in sources if name in quantized)])
    return ties.groups()
