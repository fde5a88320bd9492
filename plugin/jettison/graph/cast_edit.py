"""A copy of a graph whose values and constants change their element type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.cast_plan import CastPlan, name_of
from jettison.graph.cast_scales import lifted
from jettison.graph.cast_types import Array, numpy_type
from jettison.graph.edit import add_initializer, constant_of, free_name, is_constant, names_in

Place = tuple[ir.Node, int]
"""One input of a node."""


def readers_of(value: ir.Value) -> list[Place]:
    """The inputs that read the value."""
    return [(usage.node, usage.idx) for usage in value.uses()]


class CastEdit:
    """A copy of a model under change; `narrow` are the values that nodes of the plan write."""

    def __init__(self, model: ir.Model, plan: CastPlan) -> None:
        self.model, self.plan = model.clone(), plan
        self.nodes = [node for node in self.model.graph if name_of(node) in plan.slots]
        self.narrow = {
            node.outputs[index]: None
            for node in self.nodes
            for index in sorted(plan.slots[name_of(node)].outputs)
        }
        self._taken = names_in(model) | {name_of(node) for node in model.graph}

    def reads_narrow(self, place: Place) -> bool:
        """Whether that input changes its type."""
        found = self.plan.slots.get(name_of(place[0]))
        return found is not None and place[1] in found.inputs

    def borders(self) -> dict[ir.Value, list[Place]]:
        """Float32 values that are no constants, with the inputs that read them as narrow ones."""
        return {
            value: places
            for value, places in self._inputs().items()
            if not is_constant(value) and value not in self.narrow
        }

    def relay(self, value: ir.Value, readers: list[Place], types: tuple[ir.DataType, ...]) -> None:
        """Let the readers take the value through Casts; so does a graph output that a plan's node writes."""
        outputs = self.model.graph.outputs
        places = [place for place, output in enumerate(outputs) if output is value and value in self.narrow]
        name, last, after = value.name or "", value, value.producer()
        if places:
            value.name = free_name(f"{name}_{self.plan.dtype}", self._taken)
        for dtype in types:
            is_end = bool(places) and dtype == types[-1]
            last_name = name if is_end else free_name(f"{name}_{dtype.name.lower()}", self._taken)
            node = ir.node(
                "Cast", [last], {"to": int(dtype)}, name=free_name(f"{last_name}_Cast", self._taken)
            )
            last, after = self._place(node, after), node
            last.name, last.shape, last.type = last_name, value.shape, ir.TensorType(dtype)
        for place in places:
            outputs[place] = last
        for node, index in readers:
            node.replace_input_with(index, last)

    def convert_constants(self, *, stored: np.dtype[Any]) -> None:
        """Round the constants that nodes of the plan read, and store them in `stored`."""
        for node in self.nodes:
            raised = lifted(node, self.plan.dtype)
            for index, content in enumerate(raised or ()):
                node.replace_input_with(index, self._constant(f"{name_of(node)}_{index}", content))
        for value, places in self._inputs().items():
            array = constant_of(value)
            if array is not None:
                rounded = array.astype(numpy_type(self.plan.dtype)).astype(stored)
                replaced = self._constant(f"{value.name}_{self.plan.dtype}", rounded)
                for node, index in places:
                    node.replace_input_with(index, replaced)
        for name, value in list(self.model.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.model.graph.initializers[name]

    def _inputs(self) -> dict[ir.Value, list[Place]]:
        """What nodes of the plan read as narrow values, with the inputs that read it."""
        found: dict[ir.Value, list[Place]] = {}
        for node in self.nodes:
            for index in sorted(self.plan.slots[name_of(node)].inputs):
                value = node.inputs[index]
                if value is not None:
                    found.setdefault(value, []).append((node, index))
        return found

    def _constant(self, name: str, array: Array) -> ir.Value:
        return add_initializer(self.model.graph, free_name(name, self._taken), array)

    def _place(self, node: ir.Node, after: ir.Node | None) -> ir.Value:
        graph = self.model.graph
        if after is not None:
            graph.insert_after(after, node)
        else:
            graph.insert_before(graph[0], node)
        return node.outputs[0]
