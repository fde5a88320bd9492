"""C and A: whether configurations fit the files that they serve, and each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jettison.core.tensors import TensorSpec
from jettison.triton.check.finding import Objection
from jettison.triton.check.look import Graph, Look, ModelLook
from jettison.triton.pins import ROUTER, pins_of
from jettison.triton.repository import CONFIG_NAME


def unreadable(look: Look) -> Iterator[Objection]:
    """Models without a configuration that Triton would read."""
    for model in look.models:
        if model.problem is not None and (model.versions or (model.path / CONFIG_NAME).exists()):
            yield Objection(f"{model.name}/{CONFIG_NAME}", model.problem)


def broken_files(look: Look) -> Iterator[Objection]:
    """Models that ONNX Runtime will not read."""
    for model in look.models:
        for graph in model.graphs:
            if graph.problem is not None:
                where = f"{model.name}/{graph.artifact.version}/{graph.artifact.path.name}"
                yield Objection(where, graph.problem)


def shapes(look: Look) -> Iterator[Objection]:
    """Dims that are not the graph's, the batch axis included."""
    for model, graph in _graphs(look):
        batched = model.config.max_batch_size > 0
        for tensor, spec in _matched(model, graph):
            problem = _shape_problem(tensor, spec, batched=batched)
            if problem:
                yield Objection(_where(model, graph), f"{tensor.name!r}: {problem}")


def _shape_problem(tensor: Any, spec: TensorSpec, *, batched: bool) -> str | None:
    found = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else tuple(tensor.dims)
    expected = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
    if batched:
        if not expected or expected[0] != -1:
            return f"expected an open first dimension for max_batch_size above 0, found {_text(spec.shape)}"
        expected = expected[1:]
    if not expected and found in ((), (1,)):
        return None  # a scalar is [1] to clients
    fits = len(found) == len(expected) and all(
        ours == theirs or -1 in (ours, theirs) for ours, theirs in zip(found, expected, strict=True)
    )
    axis = " behind the batch axis" if batched else ""
    return None if fits else f"expected dims {list(expected)}{axis} as in the graph, found {list(found)}"


def signatures(look: Look) -> Iterator[Objection]:
    """Inputs and outputs that the graph does not have, has under other types, or needs."""
    for model, graph in _graphs(look):
        where = _where(model, graph)
        sides = (("input", model.config.input, graph.inputs), ("output", model.config.output, graph.outputs))
        for side, declared, specs in sides:
            known = {spec.name: spec for spec in specs}
            unknown = [tensor.name for tensor in declared if tensor.name not in known]
            missing = sorted(set(known) - {tensor.name for tensor in declared})
            if unknown:
                yield Objection(where, f"expected {side}s {sorted(known)}, found {unknown}")
            if missing:
                yield Objection(where, f"expected all {side}s of the graph, found no {missing}")
            for tensor in declared:
                spec = known.get(tensor.name)
                expected = None if spec is None else spec.dtype.triton_config
                found = _type_name(tensor)
                if expected is not None and found != expected:
                    yield Objection(where, f"{tensor.name!r}: expected {expected}, found {found}")


def carried_types(look: Look) -> Iterator[Objection]:
    """Element types that Triton's backend does not carry."""
    for model, graph in _graphs(look):
        for spec in (*graph.inputs, *graph.outputs):
            if spec.dtype.triton_config in (None, "TYPE_BF16"):
                text = f"{spec.name!r}: expected a type that requests carry, found {spec.dtype.name}"
                yield Objection(_where(model, graph), text)


def batch_sizes(look: Look) -> Iterator[Objection]:
    """Preferred batch sizes above the largest, or batching without batches."""
    for model in look.models:
        if model.config is None or not model.config.HasField("dynamic_batching"):
            continue
        where, largest = f"{model.name}/{CONFIG_NAME}", model.config.max_batch_size
        if largest == 0:
            yield Objection(where, "expected max_batch_size above 0 for dynamic_batching, found 0")
        too_large = [
            size for size in model.config.dynamic_batching.preferred_batch_size if size > largest > 0
        ]
        if too_large:
            text = f"expected preferred batch sizes up to max_batch_size {largest}, found {too_large}"
            yield Objection(where, text)


def profiles(look: Look) -> Iterator[Objection]:
    """Optimization profiles that nothing has."""
    for model in look.models:
        if model.config is None:
            continue
        for group in model.config.instance_group:
            wrong = [name for name in group.profile if not name.isdigit()]
            where = f"{model.name}/{CONFIG_NAME}"
            if group.profile and model.backend != "tensorrt":
                yield Objection(
                    where, f"expected no profiles for {model.backend!r}, found {list(group.profile)}"
                )
            elif wrong:
                yield Objection(where, f"expected profiles by their number, found {wrong}")


def caches(look: Look) -> Iterator[Objection]:
    """A response cache where answers are not a function of the input."""
    for model in look.models:
        if model.config is None or not model.config.response_cache.enable:
            continue
        where = f"{model.name}/{CONFIG_NAME}"
        if model.backend == ROUTER:
            yield Objection(where, "expected no response cache on a router, found one")
        elif model.config.model_transaction_policy.decoupled:
            yield Objection(where, "expected no response cache on a decoupled model, found one")
        elif model.config.HasField("sequence_batching"):
            yield Objection(where, "expected no response cache on a sequence model, found one")


def ensemble_steps(look: Look) -> Iterator[Objection]:
    """Ensembles that lead to models which are not there."""
    for model in look.models:
        if not model.is_ensemble:
            continue
        where = f"{model.name}/{CONFIG_NAME}"
        steps = [step.model_name for step in model.config.ensemble_scheduling.step]
        missing = sorted({name for name in steps if name not in look.by_name})
        if not steps:
            yield Objection(where, "expected steps of an ensemble, found none")
        if missing:
            yield Objection(where, f"expected the models of its steps, found no {missing}")


def variants(look: Look) -> Iterator[Objection]:
    """Routers in front of models or versions that are not there, or that differ in what clients see."""
    for model in look.models:
        if model.config is None or model.backend != ROUTER:
            continue
        where = f"{model.name}/{CONFIG_NAME}"
        named = [model.config.parameters[key].string_value for key in ("baseline", "candidate")]
        missing = [name for name in named if name not in look.by_name or look.by_name[name].config is None]
        if missing:
            yield Objection(where, f"expected the models behind it, found no {missing}")
            continue
        yield from _retired(look, model, where)
        sides = {name: _visible(look.by_name[name].config) for name in (*named, model.name)}
        for name, seen in sides.items():
            if seen != sides[named[0]]:
                text = f"expected {name!r} to have inputs, outputs and batches of {named[0]!r}, found others"
                yield Objection(where, text)


def _retired(look: Look, router: ModelLook, where: str) -> Iterator[Objection]:
    """Versions that a router asks by their number and that are not served."""
    for name, version in pins_of(router.config):
        served = look.by_name[name].served
        if version not in served:
            text = f"expected version {version} of {name!r} to be served, found {list(served)}"
            yield Objection(where, text)


def _visible(config: Any) -> tuple[object, ...]:
    tensors = [
        (side, tensor.name, tensor.data_type, tuple(tensor.dims))
        for side, declared in (("input", config.input), ("output", config.output))
        for tensor in declared
    ]
    return (config.max_batch_size, *sorted(tensors))


def _graphs(look: Look) -> Iterator[tuple[ModelLook, Graph]]:
    for model in look.models:
        for graph in model.graphs:
            if graph.problem is None:
                yield model, graph


def _matched(model: ModelLook, graph: Graph) -> Iterator[tuple[Any, TensorSpec]]:
    known = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    for tensor in (*model.config.input, *model.config.output):
        if tensor.name in known:
            yield tensor, known[tensor.name]


def _where(model: ModelLook, graph: Graph) -> str:
    return f"{model.name}/{graph.artifact.version}"


def _type_name(tensor: Any) -> str:
    field = tensor.DESCRIPTOR.fields_by_name["data_type"]
    return str(field.enum_type.values_by_number[tensor.data_type].name)


def _text(shape: Sequence[object]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "a scalar"
