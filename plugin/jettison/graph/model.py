"""Opens ONNX files, and tells what goes in and out of a model. Nothing here executes a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from jettison.core import dtypes
from jettison.core.errors import ModelError
from jettison.core.files import sha256_of
from jettison.core.tensors import Dimension, TensorSpec
from jettison.graph import external
from jettison.graph.inference import infer_symbolic, is_unnamed

MIN_OPSET = 9
"""Oldest opset of the default domain that is read; facts of TensorRT and the converters of onnx agree."""

MAX_FILE_BYTES = 2**31 - 1
"""Largest protobuf message. Source: protobuf's documentation, "Size limits"."""


def open_model(path: Path) -> ir.Model:
    """The model in that file; external weights stay in their files, mapped into memory.

    Raises:
        ModelError: No such file; no ONNX; truncated; external data missing, truncated or outside the
            model's folder; an opset that is too old or too new; no outputs; a torn graph.
    """
    proto = _read_proto(path)
    _name_default_domain(proto)
    _check_opset(proto, path)
    _check_tensors(proto, path)
    if not proto.graph.output:
        raise _bad(path, "expected at least one output, found none", "Export the model again with outputs")
    try:
        model = ir.from_proto(proto)
        model.graph.sort()
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _bad(path, f"the graph is broken: {error}", "Export the model again") from error
    _check_text(model, path)
    _check_wiring(model, path)
    _map_external(model, path)
    if any(value.type is None or value.shape is None for value in model.graph.outputs):
        infer_symbolic(model)
    return model


def check_exists(path: Path) -> None:
    """Nothing, where that file is there: asked before anything that costs more than a look.

    Raises:
        ModelError: It is not.
    """
    if not path.is_file():
        raise _bad(path, "there is no such file", "Give the path of an ONNX file")


def input_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The inputs that a caller must feed: graph inputs that are no initializers.

    Raises:
        ModelError: An input is not a tensor, or its element type is not supported.
    """
    values = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return tuple(_spec(value, "input") for value in values)


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The outputs, in the model's order.

    Raises:
        ModelError: An output is not a tensor, or its element type or rank is not known.
    """
    return tuple(_spec(value, "output") for value in model.graph.outputs)


def opset_of(model: ir.Model) -> int:
    """The opset of the default domain."""
    return model.graph.opset_imports[""]


def model_files(path: Path) -> tuple[Path, ...]:
    """The model's file and its external data files, each once, the model first.

    Raises:
        ModelError: As `open_model` for what the files tell without reading the graph.
    """
    return (path, *sorted(_check_tensors(_read_proto(path), path)))


def model_digest(path: Path) -> str:
    """SHA-256 in hexadecimal over the model and its external data files, whatever the model is called.

    Raises:
        ModelError: As `model_files`.
    """
    model, *data = model_files(path)
    if not data:
        return sha256_of(model)
    digest = hashlib.sha256(sha256_of(model).encode())
    folder = path.parent.resolve()
    for file in data:
        digest.update(f"\n{file.relative_to(folder).as_posix()} {sha256_of(file)}".encode())
    return digest.hexdigest()


def model_size_bytes(path: Path) -> int:
    """Bytes on disk of the model and its external data files.

    Raises:
        ModelError: As `model_files`.
    """
    return sum(file.stat().st_size for file in model_files(path))


def _read_proto(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise _bad(path, f"expected an ONNX file, found {found}", "Give the path of an .onnx file")
    size = path.stat().st_size
    if size == 0:
        raise _bad(path, "expected an ONNX file, found an empty file", "Export or copy the model again")
    if size > MAX_FILE_BYTES:
        raise _bad(
            path,
            f"expected at most {MAX_FILE_BYTES} bytes, found {size}",
            "Save the model with external data (onnx.save_model(..., save_as_external_data=True))",
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise _bad(
            path, f"it is no ONNX file, or a truncated one ({error})", "Export or copy the model again"
        ) from error
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error}", "Make the file readable") from error
    if not proto.HasField("graph"):
        raise _bad(
            path, "it is no ONNX file: a message without a graph", "Give an .onnx file that an exporter wrote"
        )
    return proto


def _name_default_domain(proto: onnx.ModelProto) -> None:
    """Write the default domain's alias `ai.onnx` as the empty name, by which onnx-ir knows it."""
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        for entry in imports:
            if entry.domain == "ai.onnx":
                entry.domain = ""


def _check_opset(proto: onnx.ModelProto, path: Path) -> None:
    found = [entry.version for entry in proto.opset_import if entry.domain == ""]
    newest = onnx.defs.onnx_opset_version()
    if not found:
        raise _bad(
            path,
            f"found no opset of the default domain, expected {MIN_OPSET} or newer",
            "The file is old or truncated: export the model again",
        )
    if found[0] < MIN_OPSET:
        raise _bad(
            path,
            f"found opset {found[0]}, expected {MIN_OPSET} or newer",
            "Export the model again with a newer opset, or convert it with onnx.version_converter",
        )
    if found[0] > newest:
        raise _bad(
            path,
            f"found opset {found[0]}, the installed onnx knows up to {newest}",
            "Run pip install -U onnx, or export the model with an older opset",
        )


def _check_tensors(proto: onnx.ModelProto, path: Path) -> set[Path]:
    """The external data files."""
    files = set()
    for tensor in external.model_tensors(proto):
        if any(size < 0 for size in tensor.dims):
            raise _bad(
                path, f"tensor {tensor.name!r} has the shape {list(tensor.dims)}", "Export the model again"
            )
        if external.is_external(tensor):
            files.add(external.locate(tensor, path))
        elif _is_torn(tensor):
            raise _bad(
                path,
                f"tensor {tensor.name!r} of shape {list(tensor.dims)} does not hold as many values",
                "The file is damaged: export or copy the model again",
            )
    return files


def _is_torn(tensor: onnx.TensorProto) -> bool:
    needed = external.byte_count(tensor)
    if needed is None:
        return False
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) != needed
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return needed > 0 and not any(fields)


def _check_text(model: ir.Model, path: Path) -> None:
    """Protobuf hands text that is no UTF-8 on as bytes, which then breaks whatever reads names."""
    texts: list[object] = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    for graph in model.graphs():
        texts += [value.name for value in graph.initializers.values()]
        for node in graph:
            texts += [node.op_type, node.domain, node.name, *(value.name for value in node.outputs)]
    wrong = [text for text in texts if isinstance(text, bytes)]
    if wrong:
        raise _bad(path, f"the name {wrong[0]!r} is no UTF-8", "The file is damaged: export or copy it again")


def _check_wiring(model: ir.Model, path: Path) -> None:
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is not None and not _has_source(value):
                    raise _bad(
                        path,
                        f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing produces",
                        "Export the model again",
                    )
        for value in graph.outputs:
            if not _has_source(value):
                raise _bad(path, f"output {value.name!r} is produced by no node", "Export the model again")


def _has_source(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def _map_external(model: ir.Model, path: Path) -> None:
    roots = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in [graph for root in roots for graph in (root, *root.subgraphs())]:
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = external.mapped(value.const_value, path)
        for node in graph:
            _map_attributes(node, path)


def _map_attributes(node: ir.Node, path: Path) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
            node.attributes[name] = ir.AttrTensor(name, external.mapped(attribute.value, path))
        elif attribute.type == ir.AttributeType.TENSORS:
            tensors = [
                external.mapped(tensor, path) if isinstance(tensor, ir.ExternalTensor) else tensor
                for tensor in attribute.as_tensors()
            ]
            node.attributes[name] = ir.AttrTensors(name, tensors)


def _spec(value: ir.Value, role: str) -> TensorSpec:
    name = value.name or ""
    what = f"{role} {name!r}"
    if not isinstance(value.type, ir.TensorType):
        kind = "nothing" if value.type is None else type(value.type).__name__
        raise ModelError(
            what, detail=f"expected a tensor, found {kind}", fix="Export the model with tensors only"
        )
    row = dtypes.of_onnx(int(value.type.dtype))
    if row is None:
        raise ModelError(
            what,
            detail=f"the element type {value.type.dtype.name} is not supported",
            fix=f"Export the model with one of {', '.join(entry.name for entry in dtypes.TABLE)}",
        )
    if value.shape is None:
        raise ModelError(
            what,
            detail="its number of dimensions is not known",
            fix="Export the model with the shapes of its outputs",
        )
    return TensorSpec(name=name, dtype=row, shape=tuple(_dimension(size) for size in value.shape))


def _dimension(size: int | ir.SymbolicDim) -> Dimension:
    if isinstance(size, ir.SymbolicDim):
        return size.value or None
    return None if is_unnamed(size) else size


def _bad(path: Path, detail: str, fix: str) -> ModelError:
    return ModelError(f"model {path}", detail=detail, fix=fix)
