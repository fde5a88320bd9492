"""Which scales are learned, and which move together: told from the graph, without torch.

Each scale of the file is s = s_0 * exp(k_1 u_1 + k_2 u_2 + ...), where the u are learned and begin at 0. A
scale with no u is kept. So scales stay above 0, ties stay exact, and an untrained graph computes what it did.

    an activation          its own u, shared by every node and constant that stands for the same integers
    a weight               its own u
    a 32-bit bias          the u of its activation and that of its weight: s_bias = s_activation * s_weight
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from jettison.compress.distillation.slots import limits_of
from jettison.compress.quantization.layers import PASSTHROUGH
from jettison.compress.quantization.placement import Ties, data_inputs
from jettison.graph.edit import constant_of

_EQUAL = 1e-5
"""A bias's scale is a float32 product, so it agrees with that of its factors to some 1e-7."""


@dataclass(frozen=True)
class ScaleTies:
    """What each scale follows, by its name, and the shapes of what is learned.

    `capped` may fall but not rise: a range beyond its clamp's would keep the clamp in the graph, and the
    layer before it in float. `activations` are those of computed values, all others of stored weights.
    """

    follows: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    capped: frozenset[str] = frozenset()
    activations: frozenset[str] = frozenset()


def scale_ties(graph: ir.Graph) -> ScaleTies:
    """The ties of all constant scales of a graph."""
    finder = _Finder(graph)
    return finder.ties()


@dataclass
class _Finder:
    graph: ir.Graph
    joined: Ties = field(default_factory=Ties)

    def __post_init__(self) -> None:
        self.quantizers = [node for node in self.graph if node.op_type == "QuantizeLinear"]
        self.dequantizers = [node for node in self.graph if node.op_type == "DequantizeLinear"]
        self.arrays = {
            name: array
            for node in (*self.quantizers, *self.dequantizers)
            if (array := constant_of(node.inputs[1])) is not None
            and array.dtype == np.float32
            and (array > 0).all()
            for name in [_scale_name(node)]
        }

    def ties(self) -> ScaleTies:
        for one, other in self._same_integers():
            self._join(one, other)
        fixed = {_scale_name(node) for node in self.dequantizers if _is_bias(node)}
        roots = {name: self.joined.root(name) for name in self.arrays if name not in fixed}
        follows: dict[str, tuple[str, ...]] = {name: (root,) for name, root in roots.items()}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, root in roots.items():
            shape = () if self.arrays[name].size == 1 else self.arrays[name].shape
            shapes[root] = shape if root not in shapes else min(shape, shapes[root], key=len)
        for node in self.dequantizers:
            if _is_bias(node) and (factors := self._factors(node)):
                follows[_scale_name(node)] = (roots[factors[0]], roots[factors[1]])
        computed = {roots[name] for node in self.quantizers if (name := _scale_name(node)) in roots}
        return ScaleTies(follows, shapes, frozenset(self._capped()), frozenset(computed))

    def _same_integers(self) -> Iterator[tuple[str, str]]:
        """Pairs of scales that stand for the same integers, or for integers that are only moved."""
        for node in self.dequantizers:
            source = _quantizer_behind(node.inputs[0])
            if source is not None:
                yield _scale_name(source), _scale_name(node)
        for node in self.graph:
            sources = [_scale_name(found) for value in data_inputs(node) if (found := _pair_of(value))]
            targets = [
                _scale_name(usage.node)
                for value in node.outputs
                for usage in value.uses()
                if usage.node.op_type == "QuantizeLinear" and usage.idx == 0
            ]
            for name in (*sources, *targets):
                yield (sources or targets)[0], name

    def _join(self, one: str, other: str) -> None:
        """Tie two scales that are equal today."""
        left, right = self.arrays.get(one), self.arrays.get(other)
        if one == other or left is None or right is None:
            return
        fits = left.size == 1 or right.size == 1 or left.shape == right.shape
        if fits and (left.reshape(-1) == right.reshape(-1)).all():
            self.joined.join([one, other])

    def _factors(self, node: ir.Node) -> tuple[str, str] | None:
        """The scales of activation and weight whose product is that of a bias."""
        bias = self.arrays.get(_scale_name(node))
        readers = [usage.node for usage in node.outputs[0].uses() if usage.idx == 2]
        pairs = [(_pair_of(reader.inputs[0]), _pair_of(reader.inputs[1])) for reader in readers]
        for activation, weight in pairs:
            if bias is None or activation is None or weight is None:
                return None
            names = _scale_name(activation), _scale_name(weight)
            if not set(names) <= self.arrays.keys():
                return None
            product = self.arrays[names[0]].reshape(-1) * self.arrays[names[1]].reshape(-1)
            if product.size in (1, bias.size) and np.allclose(bias.reshape(-1), product, rtol=_EQUAL):
                return names
        return None

    def _capped(self) -> Iterator[str]:
        for node in self.quantizers:
            clamp = node.inputs[0].producer() if node.inputs[0] is not None else None
            array = self.arrays.get(_scale_name(node))
            if clamp is None or clamp.op_type != "Clip" or len(clamp.inputs) < 3 or array is None:
                continue
            bound, zero = constant_of(clamp.inputs[2]), _zero_point(node)
            zeros = constant_of(zero)
            if bound is not None and zero is not None and zeros is not None and array.size == 1:
                highest = limits_of(zero)[1] - int(zeros.reshape(-1)[0])
                if float(array.reshape(-1)[0]) * highest <= float(bound) * (1 + _EQUAL):
                    yield self.joined.root(_scale_name(node))


def _scale_name(node: ir.Node) -> str:
    scale = node.inputs[1]
    return (scale.name if scale is not None else None) or ""


def _zero_point(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _is_bias(node: ir.Node) -> bool:
    integers = node.inputs[0]
    return integers is not None and integers.dtype == ir.DataType.INT32


def _pair_of(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes the value."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _quantizer_behind(value: ir.Value | None) -> ir.Node | None:
    """The QuantizeLinear that made these integers, which may have been moved since."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "QuantizeLinear":
            return producer
        if producer.op_type not in PASSTHROUGH:
            return None
        value = producer.inputs[0]
    return None
