"""A torch module that computes what an ONNX graph says, with the graph's own weights as parameters.

It is no second form of the model: it is built from the graph, trained, and written back into it
(`write_back.py`). It takes the model's inputs in their order and gives a tuple of its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jettison.compress.distillation.layers import LayerModule, layer_module
from jettison.compress.distillation.operators.node import Compute, NoGradientError
from jettison.compress.distillation.operators.table import compute_of
from jettison.compress.distillation.qdq import Scales, StoredWeight, dequantize_of, quantize_of
from jettison.compress.distillation.scale_ties import scale_ties
from jettison.compress.distillation.slots import Stored, is_matrix, stored_weights, trained_floats
from jettison.compress.passes import Refusal
from jettison.graph.edit import constant_of, free_name
from jettison.graph.model import input_specs, output_specs

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Origin:
    """Where a parameter of the module comes from: an initializer of the graph.

    `path` is its dotted name in the module. `is_matrix`: activations are multiplied with it. `bits` is what
    it is stored in. `is_turned`: the module holds its transpose.
    """

    name: str
    path: str
    is_turned: bool = False
    is_matrix: bool = False
    bits: int = 32


@dataclass(frozen=True)
class _Step:
    """One node: the values that it reads and makes, and those that nobody reads after it.

    `layer` and `stored` name the submodule that computes it, where it has one.
    """

    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    drops: tuple[str, ...]
    compute: Compute
    layer: str = ""
    stored: str = ""


class GraphModule(nn.Module):  # type: ignore[misc]
    """The graph as a module: parameters are its float weights, latent weights and learned scales.

    Args:
        model: A clean model, float32 or with Q/DQ pairs; it is read and not kept.
        learn_scales: Whether the scales of quantization are learned too.

    Raises:
        NoGradientError: A node cannot be trained through.
    """

    def __init__(self, model: ir.Model, *, learn_scales: bool = True) -> None:
        super().__init__()
        graph = model.graph
        refuse_halves(graph)
        specs = input_specs(model)
        self.input_names = tuple(spec.name for spec in specs)
        self.output_names = tuple(spec.name for spec in output_specs(model))
        self.origins: list[Origin] = []
        self.stored_scales: dict[str, str] = {}
        self.layers, self.stored, self.weights = nn.ModuleDict(), nn.ModuleDict(), nn.ParameterDict()
        self.scales = scales_of(graph, learns=learn_scales)
        self._held: dict[str, str] = {}
        self._numbers: dict[str, Tensor] = {}
        self._single = frozenset(spec.name for spec in specs if not spec.shape)
        self._trained = {value.name: value for value in trained_floats(graph)}
        stored = {found.node: found for found in stored_weights(graph)}
        self._steps = [self._step(node, stored.get(node), drops) for node, drops in last_reads(graph)]
        for value in graph.outputs:
            self._keep_constant(value)  # an output that nothing computes
        del self._trained

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the model's order, from the inputs in the model's order."""
        values: dict[str, Tensor] = dict(self._numbers)
        values.update({name: self.get_parameter_or_buffer(path) for name, path in self._held.items()})
        for name, value in zip(self.input_names, inputs, strict=True):
            values[name] = value.reshape(()) if name in self._single else value
        for step in self._steps:
            found = self._computed(step, [self._value(name, values) for name in step.inputs])
            values.update(zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=False))
            for name in step.drops:
                values.pop(name, None)
        return tuple(values[name] for name in self.output_names)

    def get_parameter_or_buffer(self, path: str) -> Tensor:
        """The tensor of that dotted name."""
        owner, _, name = path.rpartition(".")
        found: Tensor = getattr(self.get_submodule(owner), name)
        return found

    def project(self) -> None:
        """Put back what a gradient step may have moved and must not: called after each step."""
        self.scales.cap()

    def _value(self, name: str | None, values: dict[str, Tensor]) -> Tensor | None:
        if name is None:
            return None
        return self.scales.value(name) if name in self.scales else values[name]

    def _computed(self, step: _Step, inputs: list[Tensor | None]) -> Tensor | tuple[Tensor, ...]:
        if step.stored:
            return self.stored[step.stored](inputs[0])
        if step.layer:
            return step.compute(self.layers[step.layer], inputs[0])
        return step.compute(*inputs)

    def _step(self, node: ir.Node, stored: Stored | None, drops: tuple[str, ...]) -> _Step:
        outputs = tuple(value.name or "" for value in node.outputs)
        names = tuple(value.name if value is not None else None for value in node.inputs)
        if stored is not None:
            return _Step((stored.scale.name,), outputs, drops, _nothing, stored=self._keep_stored(stored))
        layer = layer_module(node, self._owned(node))
        if layer is not None:
            around = _Around(layer.before, layer.after)
            return _Step(names[:1], outputs, drops, around, layer=self._keep_layer(node, layer))
        for value in node.inputs:
            if value is not None:
                self._keep_constant(value)
        return _Step(names, outputs, drops, computed_by(node))

    def _owned(self, node: ir.Node) -> set[str]:
        """The trained initializers that this node alone reads, once."""
        values = (value for value in node.inputs if value is not None and len(value.uses()) == 1)
        return {value.name for value in values if value.name in self._trained}  # type: ignore[misc]

    def _keep_layer(self, node: ir.Node, layer: LayerModule) -> str:
        key = _key(node.name, self.layers)
        self.layers[key] = layer.module
        for held in layer.holds:
            path, value = f"layers.{key}.{held.attribute}", self._trained[held.name]
            self.origins.append(Origin(held.name, path, held.is_turned, is_matrix(value)))
        if (input_name := _name(node.inputs[0])) in self._trained:
            raise NoGradientError(node, f"reads the constant {input_name!r} as its activation")
        return key

    def _keep_stored(self, stored: Stored) -> str:
        key = _key(stored.name, self.stored)
        self.stored[key] = StoredWeight(stored)
        self.stored_scales[key] = _name(stored.scale)
        bits = int((stored.integers.dtype or ir.DataType.INT8).itemsize * 8)
        matrix = is_matrix(stored.integers)
        self.origins.append(Origin(stored.name, f"stored.{key}.latent", is_matrix=matrix, bits=bits))
        return key

    def _keep_constant(self, value: ir.Value) -> None:
        """Keep a constant that a function reads: as parameter, buffer, or whole numbers on the CPU."""
        array, name = constant_of(value), _name(value)
        if array is None or value.producer() is not None or name in self.scales:
            return
        if name in self._held or name in self._numbers:
            return
        if array.dtype.kind not in "fiub":
            raise NoGradientError(reader_of(value), f"reads {name!r} of {value.dtype}")
        tensor = torch.from_numpy(np.array(array))
        if name in self._trained:
            key = _key(name, self.weights)
            self.weights[key] = nn.Parameter(tensor)
            self._held[name] = f"weights.{key}"
            self.origins.append(Origin(name, self._held[name], is_matrix=is_matrix(value)))
        elif array.dtype.kind == "f":
            self._held[name] = f"constant_{len(self._held)}"
            self.register_buffer(self._held[name], tensor, persistent=False)
        else:
            self._numbers[name] = tensor


@dataclass(frozen=True)
class _Around:
    """A submodule's call, with what comes before and after it."""

    before: Callable[[Tensor], Tensor] | None
    after: Callable[[Tensor], Tensor] | None

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        found: Tensor = module(x if self.before is None else self.before(x))
        return found if self.after is None else self.after(found)


def _nothing() -> None:
    """What a step with a submodule of its own computes besides."""


def graph_module(model: ir.Model, *, learn_scales: bool = True) -> GraphModule | Refusal:
    """The model as a module, or the node that it cannot be trained through and what to do."""
    try:
        found = GraphModule(model, learn_scales=learn_scales)
    except NoGradientError as error:
        return Refusal(reasons=(error.reason,), instead=error.instead)
    if not found.origins:
        return Refusal(reasons=("the model has no weights: nothing to train",), instead="Leave this pass out")
    return found


def computed_by(node: ir.Node) -> Compute:
    """What a node without a submodule computes.

    Raises:
        NoGradientError: It cannot be trained through.
    """
    if node.domain == "" and node.op_type == "QuantizeLinear":
        return quantize_of(node)
    if node.domain == "" and node.op_type == "DequantizeLinear":
        return dequantize_of(node)
    return compute_of(node)


def refuse_halves(graph: ir.Graph) -> None:
    """Nothing, where all weights are float32 or integers.

    Raises:
        NoGradientError: A weight is in 16 bits, where steps of training are lost.
    """
    for value in graph.initializers.values():
        if value.dtype in _HALVES and value.uses():
            raise NoGradientError(
                reader_of(value),
                f"reads {value.name!r} in {value.dtype}",
                "Train before the pass that casts, as in [{train: labels}, {quantize: float16}]",
            )


def scales_of(graph: ir.Graph, *, learns: bool) -> Scales:
    """All constant scales of the graph's pairs."""
    nodes = [node for node in graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    arrays = {_name(node.inputs[1]): constant_of(node.inputs[1]) for node in nodes}
    found = {name: array for name, array in arrays.items() if array is not None}
    return Scales(found, scale_ties(graph), learns=learns)


def last_reads(graph: ir.Graph) -> Iterator[tuple[ir.Node, tuple[str, ...]]]:
    """The nodes in order, each with the values that no later node and no output reads."""
    nodes, seen = list(graph), {_name(value) for value in graph.outputs}
    drops: list[tuple[str, ...]] = []
    for node in reversed(nodes):
        names = {_name(value) for value in (*node.inputs, *node.outputs) if value is not None}
        drops.append(tuple(sorted(names - seen)))
        seen |= names
    return zip(nodes, reversed(drops), strict=True)


def reader_of(value: ir.Value) -> ir.Node:
    """The first node that reads the value."""
    return next(iter(value.uses())).node


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or ""


_MODULES, _PARAMETERS = nn.ModuleDict(), nn.ParameterDict()


def _key(name: str | None, taken: Iterable[str]) -> str:
    """The name as a key of a torch module, which has no dots; a number behind it where it is taken.

    Names that torch's own containers have, as `type` and `keys`, count as taken.
    """
    key = re.sub(r"\W", "_", name or "node")
    is_torch_s = hasattr(_MODULES, key) or hasattr(_PARAMETERS, key)
    return free_name(key, {*taken, key} if is_torch_s else set(taken))
