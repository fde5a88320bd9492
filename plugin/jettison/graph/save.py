"""Writes ONNX files that are whole or not there, equal byte for byte for equal models."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from jettison.core.errors import ModelError
from jettison.core.files import fsync_folder

IR_VERSION = 10
"""Read by every ONNX Runtime since 1.18, so by every serving image in use."""

PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""Largest protobuf message. Source: protobuf's documentation, "Size limits"."""

_HEADROOM_BYTES = 16 << 20
"""Room for nodes, names and shapes beside the weights when deciding whether a model fits one message."""

_INLINE_BYTES = 1024
"""Tensors up to this size stay in the .onnx; the default of onnx.save_model's `size_threshold`."""


def save_model(model: ir.Model, path: Path, *, limit_bytes: int = PROTOBUF_LIMIT_BYTES) -> None:
    """Write the model to `path`, which then holds the old file or the whole new one.

    Weights go into the file; where that would pass `limit_bytes`, into `<stem>.onnx.data` beside it.
    Doc strings and the exporters' metadata (which carry source paths) are left out. The model given
    stays as it is.

    Raises:
        ModelError: ONNX's checker refuses the model.
        OSError: The folder does not exist or cannot be written; the old file stands.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        stage = Path(folder) / path.name
        data_name = f"{path.stem}.onnx.data"
        if fits_one_message(model, limit_bytes=limit_bytes):
            content = _serialized(model)
        else:
            with _moved_out(model, stage.parent, data_name):
                content = _serialized(model)
        stage.write_bytes(content)
        _check(stage, path)
        names = [data_name, path.name] if (stage.parent / data_name).exists() else [path.name]
        for name in names:
            _make_durable(stage.parent / name)
        for name in names:
            (stage.parent / name).replace(path.parent / name)
    fsync_folder(path.parent)


def model_bytes(model: ir.Model, *, limit_bytes: int = PROTOBUF_LIMIT_BYTES) -> bytes:
    """The model as one message with all weights inside, for a session in memory.

    Raises:
        ModelError: The weights do not fit one message of 2 GB.
    """
    size = weight_bytes(model)
    if not fits_one_message(model, limit_bytes=limit_bytes):
        raise ModelError(
            f"model {model.graph.name!r}",
            detail=f"its {size} bytes of weights do not fit one message of {limit_bytes} bytes",
            fix="Save it to a file and run the file",
        )
    return _serialized(model)


def fits_one_message(model: ir.Model, *, limit_bytes: int = PROTOBUF_LIMIT_BYTES) -> bool:
    """Whether weights, nodes, names and shapes stay within one protobuf message."""
    return weight_bytes(model) + min(_HEADROOM_BYTES, limit_bytes // 8) <= limit_bytes


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers and tensor attributes."""
    return sum(tensor.nbytes for tensor in _all_tensors(model))


def _all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.as_tensor()


def _serialized(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    proto.ir_version = max(IR_VERSION, _needed_ir_version(proto))
    strip_metadata(proto)
    return proto.SerializeToString(deterministic=True)


def _needed_ir_version(proto: onnx.ModelProto) -> int:
    return onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove doc strings and metadata, but for the model's own; exporters' keys (`pkg.`) go there too."""
    proto.doc_string = ""
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith("pkg.")]
    kept.sort(key=lambda entry: entry.key)
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    _strip_graph(proto.graph)
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            _strip_node(node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            _strip_graph(graph)


@contextlib.contextmanager
def _moved_out(model: ir.Model, folder: Path, name: str) -> Iterator[None]:
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    tensors = [value.const_value for value in values]
    try:
        ir.external_data.unload_from_model(model, folder, name, size_threshold_bytes=_INLINE_BYTES)
        yield
    finally:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor


def _check(stage: Path, path: Path) -> None:
    try:
        onnx.checker.check_model(stage)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"model {path}", detail=f"ONNX's checker refuses it: {error}", fix="Export the source model again"
        ) from error


def _make_durable(path: Path) -> None:
    path.chmod(0o644)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
