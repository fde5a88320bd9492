"""Element types and shapes over symbols, without running anything.

Exporters leave stale shapes behind (a batch of 1 in the middle of a dynamic model), so what inference
finds wins over what the file says, and what the file says fills the gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common

Dimension = int | ir.SymbolicDim
Known = tuple[ir.TypeProtocol | None, ir.Shape | None]

_UNNAMED = re.compile(r"|\?|-1|None|unk__\d+", re.IGNORECASE)
"""Names without a meaning; `unk__N` is made up anew by onnx's shape inference, also inside tf2onnx."""


def is_unnamed(size: Dimension) -> bool:
    """Whether a dimension is open and has no name of its own."""
    if isinstance(size, ir.SymbolicDim):
        return size.value is None or _UNNAMED.fullmatch(size.value.strip()) is not None
    return size < 0


def infer_symbolic(model: ir.Model, *, trusts_file: bool = True) -> None:
    """Fill element types and shapes of all values and outputs in place; what stays unknown stays None.

    Args:
        model: Changed in place.
        trusts_file: Whether what the file says about shapes fills gaps; without it every dimension is
            proven from the inputs.
    """
    declared = {value: (value.type, value.shape) for value in _inferable(model)}
    for value in declared:
        value.shape = None
        if not isinstance(value.type, ir.SequenceType | ir.OptionalType):
            value.type = None
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, (dtype, shape) in declared.items():
        value.type = value.type or dtype
        value.shape = _merged(value.shape, shape if trusts_file else None)


def _inferable(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph:
        yield from node.outputs


def _merged(inferred: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    if inferred is None or declared is None or inferred.rank() != declared.rank():
        return _tidy(inferred if inferred is not None else declared)
    pairs = zip(inferred, declared, strict=True)
    return _tidy(ir.Shape(found if not is_unnamed(found) else said for found, said in pairs))


def _tidy(shape: ir.Shape | None) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(None if is_unnamed(size) else size for size in shape)
