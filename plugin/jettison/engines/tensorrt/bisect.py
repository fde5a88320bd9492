"""Finds the smallest part of a graph that TensorRT's compiler does not take: pairs first, then nodes.

Each trial is a smaller model, asked the same way. A trial counts only where it fails in the same way as the
whole: with the same outcome and the same code on the same kind of operator, so that a cut which breaks
something else does not mislead.

Source: A. Zeller and R. Hildebrandt, Simplifying and isolating failure-inducing input, IEEE TSE 28 (2), 2002:
the algorithm ddmin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from jettison.core.targets import parse_target
from jettison.engines.tensorrt.lint.finding import Subject
from jettison.engines.tensorrt.lint.mend_numbers import remove_pair
from jettison.engines.tensorrt.lint.mend_weights import to_float
from jettison.engines.tensorrt.lint.pairs import Pair, Quantizer, pairs, stored_weights, weight_pairs
from jettison.engines.tensorrt.report import Bisection, PreflightReport

Ask = Callable[[ir.Model], PreflightReport | None]
"""What the compiler says to a model; None where it cannot be asked about it."""
ANYWHERE = parse_target("tensorrt")
NEAR = 3
"""Steps from the refused node that are tried as a part of the graph before halving the whole."""


class _Trials:
    """Asks about smaller models, and counts; after `most` trials nothing fails any more."""

    def __init__(self, ask: Ask, whole: PreflightReport, most: int) -> None:
        self._ask, self._whole, self._most = ask, _signature(whole), most
        self.count = 0

    @property
    def is_over(self) -> bool:
        return self.count >= self._most

    def fails(self, model: ir.Model) -> bool:
        if self.is_over:
            return False
        self.count += 1
        report = self._ask(model)
        return report is not None and bool(_signature(report) & self._whole)


def _signature(report: PreflightReport) -> frozenset[tuple[str, str, str | None]]:
    """In which ways a model fails: empty where it compiles."""
    if report.outcome not in ("refused", "crashed", "timeout"):
        return frozenset()
    ways = {(report.outcome, refused.code, refused.operator) for refused in report.refusals}
    return frozenset(ways or {(report.outcome, "", None)})


def bisect(model: ir.Model, whole: PreflightReport, ask: Ask, *, most_trials: int = 60) -> Bisection | None:
    """The smallest part of the model that fails as the whole does; None where the whole compiles.

    Args:
        model: With shapes of its values, so that parts of it can stand alone; it is not changed.
        whole: What the compiler said to it.
        ask: Asks the compiler about a smaller model.
        most_trials: Where to stop; the part found so far is then given.
    """
    if not _signature(whole):
        return None
    trials = _Trials(ask, whole, most_trials)
    model, kinds = _only_pairs(model, trials)
    names = {node: node.name or f"node {place}" for place, node in enumerate(model.graph)}
    refused = {found.node for found in whole.refusals}
    part = _only_nodes(model, refused, trials)
    nodes = tuple(names[list(model.graph)[place]] for place in part)
    halves = {"QuantizeLinear", "DequantizeLinear"}
    found = tuple(
        names[node] for place, node in enumerate(model.graph) if place in part and node.op_type in halves
    )
    hint = _hint(kinds) if found else None
    over = trials.is_over
    return Bisection(nodes=nodes, pairs=found, is_smallest=not over, leave_out=hint, trials=trials.count)


def _only_pairs(model: ir.Model, trials: _Trials) -> tuple[ir.Model, frozenset[ir.DataType | None]]:
    """A copy with no more pairs than it needs to fail, and the types of those that are left."""
    count = len(_units(model))
    if not count or trials.fails(_with_pairs(model, ())):
        return (_with_pairs(model, ()) if count else model.clone()), frozenset()
    kept = smallest(range(count), lambda some: trials.fails(_with_pairs(model, some)))
    left = _with_pairs(model, kept)
    return left, frozenset(
        unit.quantize.stored if isinstance(unit, Pair) else unit.stored for unit in _units(left)
    )


def _units(model: ir.Model) -> list[Pair | Quantizer]:
    graph = model.graph
    plain = [pair for pair in (*pairs(graph), *weight_pairs(graph)) if pair.is_plain and pair.dequantizes]
    return [*plain, *stored_weights(graph)]


def _with_pairs(model: ir.Model, kept: Sequence[int]) -> ir.Model:
    copy = model.clone()
    wanted = set(kept)
    for place, unit in enumerate(_units(copy)):
        if place in wanted:
            continue
        if isinstance(unit, Pair):
            remove_pair(unit)
        else:
            to_float(Subject(copy, ANYWHERE), [unit])
    return copy


def _only_nodes(model: ir.Model, refused: set[str | None], trials: _Trials) -> list[int]:
    """Places of the fewest nodes that fail together, the refused one's neighbours tried first."""
    nodes = list(model.graph)
    places = {node: place for place, node in enumerate(nodes)}
    found = list(range(len(nodes)))
    near = {
        node for node in nodes if node.name in refused or (node.outputs and node.outputs[0].name in refused)
    }
    for _ in range(NEAR if near else 0):
        some = sorted(places[node] for node in near)
        if trials.fails(cut(model, some)):
            found = some
            break
        near |= {
            other for node in near for other in (*node.predecessors(), *node.successors()) if other in places
        }
    return smallest(found, lambda some: trials.fails(cut(model, some)))


def smallest(items: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """The items that are all needed for `fails`, which holds of all of them: ddmin."""
    left, parts = list(items), 2
    while len(left) > 1:
        size = max(1, len(left) // parts)
        chunks = [left[start : start + size] for start in range(0, len(left), size)]
        rests = [[item for item in left if item not in chunk] for chunk in chunks] if len(chunks) > 2 else []
        found = next((some for some in (*chunks, *rests) if fails(some)), None)
        if found is not None:
            parts = max(2, parts - 1) if len(found) > size else 2
            left = found
        elif size == 1:
            break
        else:
            parts = min(len(left), parts * 2)
    return left


def cut(model: ir.Model, places: Sequence[int]) -> ir.Model:
    """A model of these nodes alone: what others made becomes an input, what others read an output."""
    copy = model.clone()
    graph, wanted = copy.graph, set(places)
    nodes = list(graph)
    kept = {node for place, node in enumerate(nodes) if place in wanted}
    gone = [node for node in nodes if node not in kept]
    holders = _holders(graph)
    read = [
        value
        for node in nodes
        if node in kept
        for value in node.outputs
        if _is_read_outside(value, kept, holders)
    ]
    graph.outputs.clear()
    for value in [value for node in gone for value in node.outputs]:
        if any(holders.get(reader) in kept for reader, _ in value.uses()):
            given = ir.Value(name=value.name, type=value.type, shape=value.shape)
            value.name = f"{value.name}_gone"
            value.replace_all_uses_with(given)
            graph.inputs.append(given)
    for node in reversed(gone):
        graph.remove(node, safe=True)
    graph.outputs.extend(read)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
    return copy


def _is_read_outside(value: ir.Value, kept: set[ir.Node], holders: dict[ir.Node, ir.Node]) -> bool:
    readers = [holders.get(reader) for reader, _ in value.uses()]
    return value.is_graph_output() or not readers or any(reader not in kept for reader in readers)


def _holders(graph: ir.Graph) -> dict[ir.Node, ir.Node]:
    """Of each node the node of the main graph in whose subgraphs it is, or itself."""
    found = {node: node for node in graph}
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found |= dict.fromkeys(ir.traversal.RecursiveGraphIterator(attribute.as_graph()), node)
    return found


def _hint(kinds: frozenset[ir.DataType | None]) -> str | None:
    """The pass that writes pairs of these types."""
    for kind in kinds:
        if kind in _PASSES:
            return f"{_PASSES[kind]}; leave it out, or name the layer behind the pair in its keep_float"
    return None


_PASSES = {
    ir.DataType.INT8: "{quantize: full}",
    ir.DataType.UINT8: "{quantize: full} for target cpu",
    ir.DataType.INT32: "{quantize: full} for target cpu",
    ir.DataType.INT4: "{quantize: int4}",
    ir.DataType.FLOAT8E4M3FN: "{quantize: float8}",
}
