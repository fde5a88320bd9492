"""The two products of activations in an attention block, and why integers may or may not carry each.

A block is softmax(Q K^T * scale + mask) V: the first product (`scores`) leads to a Softmax through factors
and masks alone, the second (`values`) takes what the Softmax makes. Neither has weights, so that both are
no layers, and both operands of each take a pair right in front of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from jettison.compress.quantization.placement import LayerDecision, Reader, is_float
from jettison.graph.edit import int_attribute, is_constant

Role = Literal["scores", "values"]

_MOVES = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_ON_THE_WAY = _MOVES | {"Add", "Div", "Mul", "Where"}
"""What may stand between the first product and the Softmax: a scale, a mask, and moves."""
_WHOLE = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"})
"""Operators that hold a whole attention block, in ONNX from opset 23 and in ONNX Runtime's own domain."""


@dataclass(frozen=True)
class Product:
    """A product of two activations, its place in an attention block, and why it must stay in float."""

    node: ir.Node
    role: Role | None = None
    refusal: str | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""

    @property
    def operands(self) -> tuple[tuple[ir.Value, Reader], ...]:
        """Both operands, each with the place where the product reads it; none of a refused product."""
        if self.refusal is not None:
            return ()
        found = ((value, Reader(self.name, index)) for index, value in enumerate(self.node.inputs))
        return tuple((value, reader) for value, reader in found if value is not None)

    @property
    def decision(self) -> LayerDecision:
        """What becomes of the product, for reports."""
        return LayerDecision(
            node=self.name,
            kind=self.node.op_type,
            quantized=self.refusal is None,
            reason=self.refusal or f"integers carry it, as the {self.role} of attention",
        )


ProductRule = Callable[[Product], "str | None"]
"""Why a dialect leaves a product in float, or None."""
_ROLES: tuple[Role, Role] = ("scores", "values")


def find_products(
    graph: ir.Graph, rule: ProductRule | None = None, keep_in_float: frozenset[str] = frozenset()
) -> tuple[Product, ...]:
    """The products of activations of the main graph, in its order, those that stay in float included.

    Both products of a block are taken or neither: a lone integer product pays for borders on all sides, and
    TensorRT fuses a block into one integer kernel only where both have pairs.

    Args:
        graph: A clean float graph.
        rule: A dialect's own reasons to leave a product in float.
        keep_in_float: Names of nodes to leave in float.
    """
    found = tuple(_judged(product, rule, keep_in_float) for product in _candidates(graph))
    softmaxes = [
        {_softmax(product) for product in found if product.role == role and product.refusal is None}
        for role in _ROLES
    ]
    whole = softmaxes[0] & softmaxes[1]
    return tuple(_with_partner(product, whole) for product in found)


def _judged(product: Product, rule: ProductRule | None, keep_in_float: frozenset[str]) -> Product:
    if product.refusal is not None:
        return product
    reason = "left in float as asked" if product.name in keep_in_float else None
    return replace(product, refusal=reason or (rule(product) if rule is not None else None))


def _candidates(graph: ir.Graph) -> Iterator[Product]:
    for node in graph:
        if node.op_type in _WHOLE:
            yield Product(
                node,
                refusal=f"{node.op_type} holds a whole attention block and has no place for pairs inside: "
                "export it as MatMul and Softmax (opset 22 or lower)",
            )
        elif node.op_type == "MatMul" and node.domain == "" and not is_constant(node.inputs[1]):
            yield _product(node)


def _product(node: ir.Node) -> Product:
    """The product with its role, or with the first rule that it breaks."""
    if any(value is None or is_constant(value) for value in node.inputs):
        return Product(node, refusal="one operand is constant, so that it is no product of two activations")
    if not all(value is not None and is_float(value) for value in node.inputs):
        types = " and ".join(str(value.dtype) for value in node.inputs if value is not None)
        return Product(node, refusal=f"its operands are {types}, expected float32")
    softmax = _softmax_before(node)
    if softmax is not None:
        return Product(node, "values", _softmax_refusal(softmax))
    softmax, obstacle = _softmax_behind(node)
    if softmax is None:
        return Product(node, refusal=obstacle)
    return Product(node, "scores", _softmax_refusal(softmax))


def _softmax_refusal(softmax: ir.Node) -> str | None:
    """Why a block around this Softmax stays in float: with another axis or reader it cannot fuse."""
    source, output = softmax.inputs[0], softmax.outputs[0]
    last = len(source.shape) - 1 if source is not None and source.shape is not None else -1
    axis = int_attribute(softmax, "axis", -1)
    if axis not in (-1, last):
        return f"its Softmax {softmax.name!r} runs along axis {axis}, expected the last one"
    if output.is_graph_output() or len({usage.node for usage in output.uses()}) > 1:
        return f"what its Softmax {softmax.name!r} makes is shared: expected one reader, the second product"
    return None


def _softmax(product: Product) -> ir.Node | None:
    """The Softmax of the product's block."""
    if product.role == "values":
        return _softmax_before(product.node)
    return _softmax_behind(product.node)[0]


def _softmax_behind(node: ir.Node) -> tuple[ir.Node | None, str]:
    """The Softmax that the product leads to, or what stands in its way."""
    value = node.outputs[0]
    while True:
        readers = {usage.node for usage in value.uses()}
        if value.is_graph_output() or len(readers) != 1:
            return None, f"{value.name!r} behind it is shared: expected one reader on the way to a Softmax"
        reader = readers.pop()
        if reader.op_type == "Softmax":
            return reader, ""
        if reader.op_type not in _ON_THE_WAY or not _is_carried(value, reader):
            return None, f"it leads to no Softmax: {reader.op_type} {reader.name!r} stands behind it"
        value = reader.outputs[0]


def _is_carried(value: ir.Value, reader: ir.Node) -> bool:
    """Whether the reader passes the value on: it is no divisor and no condition."""
    if reader.op_type in ("Add", "Mul"):
        return True
    if reader.op_type == "Where":
        return value is not reader.inputs[0]
    return value is reader.inputs[0]


def _softmax_before(node: ir.Node) -> ir.Node | None:
    """The Softmax that makes one of the operands, through moves."""
    for operand in node.inputs:
        producer = operand.producer() if operand is not None else None
        while producer is not None and producer.op_type in _MOVES and producer.inputs[0] is not None:
            producer = producer.inputs[0].producer()
        if producer is not None and producer.op_type == "Softmax":
            return producer
    return None


def _with_partner(product: Product, whole: set[ir.Node | None]) -> Product:
    """The product, refused where the other one of its block stays in float."""
    if product.refusal is not None or product.role is None or _softmax(product) in whole:
        return product
    other = _ROLES[1 - _ROLES.index(product.role)]
    return replace(
        product,
        refusal=f"its Softmax has no product of {other} that integers carry, and one alone pays for "
        "borders only",
    )
