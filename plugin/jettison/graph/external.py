"""External data of ONNX files: which files a model names, and that they are whole and lie beside it.

A model file comes from anywhere, and its `location` entries are paths that a reader would open. They
are confined to the model's own folder before anything is read.

Source: onnx/docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir

from jettison.core.errors import ModelError


def tensors_of(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in a graph or function: initializers and attributes, subgraphs included."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from tensors_of(attribute.g)
    for graph in attribute.graphs:
        yield from tensors_of(graph)


def model_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in a model, functions included."""
    yield from tensors_of(proto.graph)
    for function in proto.functions:
        yield from tensors_of(function)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's bytes lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def byte_count(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the declared type and shape need, or None for types without a fixed size (text)."""
    try:
        data_type = ir.DataType(tensor.data_type)
        bits = data_type.bitwidth
    except (ValueError, TypeError):
        return None
    count = 1
    for size in tensor.dims:
        count *= size
    return -(-count * bits // 8)


def locate(tensor: onnx.TensorProto, model_path: Path) -> Path:
    """The file that an external tensor names, confined to the model's folder and known to hold its bytes.

    Raises:
        ModelError: No location; a location outside the folder; no such file; a file that is too short.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _confined(entries.get("location", ""), tensor.name, model_path)
    offset = _number(entries.get("offset", "0"), tensor.name, model_path)
    needed = byte_count(tensor)
    if needed is None:
        raise _bad(
            model_path, f"tensor {tensor.name!r} is external but has no fixed size", "Export the model again"
        )
    size = _number(entries["length"], tensor.name, model_path) if "length" in entries else needed
    found = path.stat().st_size
    if size < needed or offset + needed > found:
        raise _bad(
            model_path,
            f"the external data file {path.name!r} is truncated: tensor {tensor.name!r} needs {needed} bytes "
            f"from offset {offset}, found a file of {found} bytes (declared length {size})",
            "Copy the external data file again, or export the model again",
        )
    return path


def mapped(tensor: ir.ExternalTensor, model_path: Path) -> ir.TensorProtocol:
    """The tensor over the bytes of its file, which `locate` accepted; mapped into memory where it can be.

    onnx-ir's own reading refuses files with several hard links, which backups and caches make.
    """
    path = model_path.parent.resolve() / tensor.location
    offset, shape = tensor.offset or 0, tuple(tensor.shape.numpy())
    if tensor.dtype.bitwidth >= 8 and tensor.nbytes > 0:
        dtype = tensor.dtype.numpy().newbyteorder("<")
        array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
    whole = onnx.TensorProto(name=tensor.name or "", data_type=int(tensor.dtype), dims=shape)
    with path.open("rb") as file:
        file.seek(offset)
        whole.raw_data = file.read(tensor.nbytes)
    return ir.serde.deserialize_tensor(whole)


def _confined(location: str, name: str, model_path: Path) -> Path:
    folder = model_path.parent.resolve()
    fix = "Put the data file itself (no link) in the model's folder and export or save the model again"
    if not location:
        raise _bad(model_path, f"tensor {name!r} is external but names no location", "Export the model again")
    written = PureWindowsPath(location)
    outside = written.is_absolute() or written.drive or written.root or ".." in written.parts
    path = (folder / location).resolve()
    if outside or "\0" in location or not path.is_relative_to(folder):
        raise _bad(
            model_path,
            f"expected external data inside the model's folder, found tensor {name!r} pointing outside, "
            f"to {location!r}",
            fix,
        )
    if not path.is_file():
        raise _bad(
            model_path,
            f"the external data file {location!r} (tensor {name!r}) is missing",
            f"Copy it beside the model, into {model_path.parent}",
        )
    return path


def _number(text: str, name: str, model_path: Path) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise _bad(
            model_path,
            f"tensor {name!r} has the external offset or length {text!r}, expected a whole number",
            "Export the model again",
        )
    return int(text)


def _bad(model_path: Path, detail: str, fix: str) -> ModelError:
    return ModelError(f"model {model_path}", detail=detail, fix=fix)
