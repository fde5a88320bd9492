"""Raises a model's opset: onnx's converter up to 18, onnxscript's above, which knows those adapters."""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from jettison.core.errors import ModelError

_HANDOVER_OPSET = 18
"""Oldest opset that onnxscript's converter takes (onnxscript 0.7, SUPPORTED_MIN_ONNX_OPSET)."""

_HELD_BYTES = 1024
"""Initializers above this size are left out of the message for onnx's converter, which copies it."""

_CONVERTER_ERRORS = (
    onnx.version_converter.ConvertError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
    ValueError,
    KeyError,
)
"""What onnx's converter raises, of which its own two are no RuntimeError."""


def raise_opset(model: ir.Model, version: int) -> ir.Model:
    """The model with its functions inlined, at opset `version` or its own where that is higher.

    Returns a new model where onnx's converter was needed, else the same, changed in place.

    Raises:
        ModelError: An operator cannot be converted.
    """
    try:
        common.InlinePass()(model)
    except (RuntimeError, ValueError, KeyError) as error:
        raise _refused(model, version, f"its functions cannot be inlined: {error}") from error
    found = model.graph.opset_imports[""]
    if found < min(version, _HANDOVER_OPSET):
        model = _convert_old(model, min(version, _HANDOVER_OPSET))
    if model.graph.opset_imports[""] < version:
        _convert_new(model, version)
    return model


def _convert_old(model: ir.Model, version: int) -> ir.Model:
    held = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _HELD_BYTES
    }
    try:
        proto = onnx.version_converter.convert_version(_without(model, held), version)
        converted = ir.from_proto(proto)
    except _CONVERTER_ERRORS as error:
        raise _refused(model, version, str(error)) from error
    _attach(converted, held)
    _restore_types(model, converted)
    converted.graph.name = model.graph.name
    converted.metadata_props.update(model.metadata_props)
    return converted


def _without(model: ir.Model, held: dict[str, ir.TensorProtocol]) -> onnx.ModelProto:
    skeleton = model.clone()
    for name, tensor in held.items():
        value = skeleton.graph.initializers.pop(name)
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        value.const_value = None
        if not value.is_graph_input():
            skeleton.graph.inputs.append(value)
    return ir.to_proto(skeleton)


def _attach(model: ir.Model, held: dict[str, ir.TensorProtocol]) -> None:
    for value in list(model.graph.inputs):
        if value.name in held:
            value.const_value = held[value.name]
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)


def _restore_types(source: ir.Model, converted: ir.Model) -> None:
    """Take types from before: onnx's converter writes a scalar's shape where an output had none (1.23)."""
    known = {value.name: value for node in source.graph for value in node.outputs}
    for node in converted.graph:
        for value in node.outputs:
            before = known.get(value.name)
            value.shape = None if before is None else before.shape
            if before is not None and before.type is not None:
                value.type = before.type


def _convert_new(model: ir.Model, version: int) -> None:
    from onnxscript import version_converter

    try:
        version_converter.convert_version(model, version)
    except (RuntimeError, ValueError, KeyError) as error:
        raise _refused(model, version, str(error)) from error
    if model.graph.opset_imports[""] < version:
        raise _refused(model, version, "onnxscript's converter left the opset as it was")


def _refused(model: ir.Model, version: int, why: str) -> ModelError:
    operator = _named_operator(model, why)
    subject = f"operator {operator}" if operator else "an operator"
    return ModelError(
        f"model {model.graph.name!r}",
        detail=f"{subject} cannot be converted from opset {model.graph.opset_imports['']} to {version}: "
        f"{' '.join(why.split())}",
        fix=f"Export the model again at opset {version} or newer",
    )


def _named_operator(model: ir.Model, why: str) -> str | None:
    operators = {node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    named = [operator for operator in operators if operator in why]
    return max(named, key=len) if named else None
