"""What every value is: its element type and rank in the model, its concrete size at one example input.

Symbols are enough for most models. Where a value stays unknown, one real inference tells, by a `probe`
that the caller passes in, since this floor runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.core import dtypes
from jettison.core.dtypes import ElementType
from jettison.core.tensors import Arrays, TensorSpec
from jettison.graph.inference import infer_symbolic
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes

DEFAULT_SIZE = 32
"""Size of dynamic dimensions other than the batch: a multiple of every stride in common use."""


@dataclass(frozen=True)
class ValueShape:
    """Element type and concrete shape of one value at the example input."""

    dtype: ElementType
    shape: tuple[int, ...]


ShapeTable = Mapping[str, ValueShape]
"""Values of the main graph by name; one that could not be learned is absent."""

Probe = Callable[[bytes, list[str]], Mapping[str, np.ndarray[Any, np.dtype[Any]]]]
"""Runs a serialized model on `example_inputs` of the same sizes; the arrays of the named outputs."""


def infer_shapes(
    model: ir.Model, *, sizes: Mapping[str, int] | None = None, probe: Probe | None = None
) -> ShapeTable:
    """Element types and ranks filled into the model in place, and a table of concrete shapes.

    Args:
        model: Dimensions of its values that are not known by name or number stay open.
        sizes: Sizes of dynamic dimensions by name for the table; the batch is 1 and others 32 unless told.
        probe: Called at most once, with the model and the names of the values that inference over
            symbols does not settle; without it they stay unknown.

    Raises:
        ModelError: An input that is not a tensor.
    """
    infer_symbolic(model)
    table = _table_at(model, sizes or {}, probe)
    for value in _values(model):
        known = table.get(value.name or "")
        if known is None:
            continue
        if value.type is None:
            value.type = ir.TensorType(ir.DataType(known.dtype.onnx))
        if value.shape is None:
            value.shape = ir.Shape([None] * len(known.shape))
    return table


def example_inputs(
    specs: Sequence[TensorSpec], *, sizes: Mapping[str, int] | None = None, seed: int = 0
) -> Arrays:
    """Random arrays for the inputs: standard normal floats; 0 or 1 for integers, valid as id and as mask."""
    rng = np.random.default_rng(seed)
    return {spec.name: _example(spec, example_shape(spec, sizes or {}), rng) for spec in specs}


def example_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The input's shape with its dynamic dimensions at the sizes given by name, else batch 1 and 32."""
    return tuple(
        size if isinstance(size, int) else sizes.get(size or "", 1 if axis == 0 else DEFAULT_SIZE)
        for axis, size in enumerate(spec.shape)
    )


def _example(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.dtype.is_float:
        return rng.standard_normal(shape).astype(spec.dtype.numpy)
    if spec.dtype.name == "string":
        return np.full(shape, "", dtype=np.object_)
    return rng.integers(0, 2, shape).astype(spec.dtype.numpy)


def _table_at(model: ir.Model, sizes: Mapping[str, int], probe: Probe | None) -> dict[str, ValueShape]:
    fixed = model.clone()
    by_name = {spec.name: spec for spec in input_specs(fixed)}
    for value in fixed.graph.inputs:
        if value.name in by_name:
            value.shape = ir.Shape(example_shape(by_name[value.name], sizes))
    for node in fixed.graph:
        for value in node.outputs:
            value.shape = None
    infer_symbolic(fixed)
    table: dict[str, ValueShape] = {}
    unknown = []
    for value in _values(fixed):
        known = _settled(value)
        if known is not None:
            table[value.name or ""] = known
        elif value.producer() is not None and isinstance(value.type, ir.TensorType | None):
            unknown.append(value)
    if probe is not None and unknown:
        table.update(_probed(fixed, unknown, probe))
    return table


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from (value for value in model.graph.initializers.values() if not value.is_graph_input())
    for node in model.graph:
        yield from (value for value in node.outputs if value.name)


def _settled(value: ir.Value) -> ValueShape | None:
    if value.const_value is not None:
        row = dtypes.of_onnx(int(value.const_value.dtype))
        return None if row is None else ValueShape(row, tuple(value.const_value.shape.numpy()))
    row = None if value.dtype is None else dtypes.of_onnx(int(value.dtype))
    if row is None or value.shape is None or not value.shape.is_static():
        return None
    return ValueShape(row, tuple(value.shape.numpy()))


def _probed(model: ir.Model, unknown: list[ir.Value], probe: Probe) -> dict[str, ValueShape]:
    outputs = {value.name for value in model.graph.outputs}
    model.graph.outputs.extend(value for value in unknown if value.name not in outputs)
    arrays = probe(model_bytes(model), [value.name or "" for value in unknown])
    found = {}
    for name, array in arrays.items():
        row = dtypes.of_numpy(array.dtype)
        if row is not None:
            found[name] = ValueShape(row, array.shape)
    return found
