"""From a model that torch can run to an ONNX graph with names of its own, by torch's exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from jettison.core.errors import ModelError
from jettison.core.samples import USER_ERRORS
from jettison.core.tensors import Arrays
from jettison.graph.dimensions import BATCH
from jettison.graph.edit import free_name, names_in
from jettison.sources.doors import load_torch
from jettison.sources.failures import conversion_error, trace_error
from jettison.sources.subject import Subject

OPSET = 20
"""The newest that ONNX Runtime 1.18 and later serve and torch's exporter writes without conversion; 19 is the
least that quantization needs."""

Names = Mapping[str, Mapping[int, str]]
"""Names of open axes beside the batch, by input."""


def exported_graph(
    subject: Subject,
    example: Arrays,
    *,
    axes: Mapping[str, Sequence[int]],
    names: Names,
    outputs: Sequence[str],
) -> tuple[ir.Model, tuple[str, ...]]:
    """The model as ONNX at opset 20, and remarks on the sizes for which it holds.

    Args:
        subject: The model.
        example: The inputs that it is traced with.
        axes: Axes beside the batch that stay open, by input; of a program they are what they are.
        names: What those axes are called.
        outputs: What the outputs are called.

    Raises:
        ModelError: torch cannot trace it, or an operator of it has no counterpart in ONNX.
    """
    program, notes = subject.program, tuple[str, ...]()
    if program is None:
        program = _traced(subject, example, axes)
        notes = tuple(_check_ranges(program, subject))
    model = _converted(program, subject.what)
    common.OutputFixPass()(model)  # an input or one value twice among the outputs gets a node of its own
    _check_borders(model, subject, outputs)
    _rename_values(model, (*subject.inputs, *outputs))
    _name_axes(model, names)
    return model, notes


def _traced(subject: Subject, example: Arrays, axes: Mapping[str, Sequence[int]]) -> Any:
    torch = load_torch()
    dynamic = torch.export.Dim.DYNAMIC
    args, kwargs = subject.arguments([torch.from_numpy(example[name].copy()) for name in subject.inputs])
    shapes = [dict.fromkeys((0, *axes.get(name, ())), dynamic) for name in subject.inputs]
    try:
        return torch.export.export(
            subject.module,
            args,
            kwargs,
            dynamic_shapes=(tuple(shapes),) if args else dict(zip(kwargs, shapes, strict=True)),
            strict=False,
        )
    except USER_ERRORS as error:
        raise trace_error(error, subject) from error


def _check_ranges(program: Any, subject: Subject) -> Iterator[str]:
    """Refuses a module that takes another way by a size: its trace knows one of the ways only.

    A least size of an image or a sequence is told in a remark: what pools or cuts borders has one.
    """
    for symbol, found in program.range_constraints.items():
        places = list(_places(program, symbol))
        is_batch = any(axis == 0 for _, axis in places)
        has_least = int(found.lower) > _LEAST_TRACED
        if found.upper < _LARGEST_TRACED or (has_least and (is_batch or not places)):
            raise ModelError(
                subject.what,
                detail=f"expected one way for all sizes, found that it branches on one ({symbol}): "
                f"traced, it holds for {found.lower} to {found.upper} only",
                fix="Take the branch on a size out of the forward, or export the program yourself with that "
                "range (torch.export, dynamic_shapes)",
            )
        for name, axis in places if has_least else ():
            yield (
                f"axis {axis} of {name!r} holds for sizes from {int(found.lower)} on: traced, smaller "
                "ones go another way in its forward"
            )


def _places(program: Any, symbol: object) -> Iterator[tuple[str, int]]:
    """The inputs and axes that bear that symbol."""
    for node in program.graph.nodes:
        if node.op == "placeholder":
            for axis, size in enumerate(getattr(node.meta.get("val"), "shape", ())):
                if str(size) == str(symbol):
                    yield node.name, axis


_LEAST_TRACED = 2
"""From where on torch traces open sizes: 0 and 1 are ways of their own in it."""
_LARGEST_TRACED = 1 << 31
"""Far above any size of a tensor's axis; torch's own bound for an open one is infinite."""


def _converted(program: Any, what: str) -> ir.Model:
    torch = load_torch()
    try:
        found = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    except USER_ERRORS as error:
        raise conversion_error(error, what) from error
    if found is None or not isinstance(found.model, ir.Model):
        raise ModelError(
            what,
            detail=f"the exporter of torch {torch.__version__} gave no ONNX graph",
            fix="Run: pip install -U torch onnxscript",
        )
    return found.model


def _check_borders(model: ir.Model, subject: Subject, outputs: Sequence[str]) -> None:
    graph = model.graph
    for word, found, expected in (
        ("inputs", graph.inputs, subject.inputs),
        ("outputs", graph.outputs, outputs),
    ):
        if len(found) != len(expected):
            raise ModelError(
                subject.what,
                detail=f"expected {len(expected)} {word} of its ONNX form ({', '.join(expected)}), found "
                f"{len(found)} ({', '.join(str(value.name) for value in found)})",
                fix="Change no buffers in the forward, and return each result once",
            )


def _rename_values(model: ir.Model, names: Sequence[str]) -> None:
    """Give inputs and outputs these names; inner values that bear one of them get another."""
    border = [*model.graph.inputs, *model.graph.outputs]
    taken = names_in(model) | set(names)
    inner = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    for value in inner:
        if value.name is not None and value.name in names and value not in border:
            value.name = free_name(value.name, taken)
    for index, value in enumerate(border):  # first to names that nothing bears: two may change places
        value.name = free_name(f"border_{index}", taken)
    for value, name in zip(border, names, strict=True):
        value.name = name


def _name_axes(model: ir.Model, names: Names) -> None:
    """Name the open axes of inputs, and the same sizes in outputs; inner sizes are left to be inferred."""
    known: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                named = names.get(value.name or "", {}).get(axis, f"{value.name}_dim{axis}")
                known.setdefault(str(size.value), BATCH if axis == 0 else named)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                size if isinstance(size, int) else known.get(str(size.value)) for size in value.shape
            )
    borders = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value not in borders and value.shape is not None and not value.shape.is_static():
                value.shape = None
