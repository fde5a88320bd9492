"""A model as one message for a session in memory, its weights added one after another.

Messages that follow one another are read as one, repeated fields joined. `save.model_bytes` builds the whole
twice, as objects and as text, and takes five times the weights while it does: 202 MB for the 37 MB of
EfficientNet-Lite0 with all weights twice, here 110 MB.
Source: protobuf's documentation, "Encoding: Last One Wins".
"""

from __future__ import annotations

import io

import onnx
import onnx_ir as ir

from jettison.graph.save import model_bytes

_LARGE_BYTES = 1024
"""Smaller constants stay with the graph."""


def message_of(model: ir.Model) -> bytes:
    """What `model_bytes` gives, large weights behind the rest; the model given stays as it is.

    Raises:
        ModelError: What is not a weight does not fit one message.
    """
    rest, message = model.clone(), io.BytesIO()
    weights = [value for value in model.graph.initializers.values() if _is_large(value)]
    for value in weights:
        del rest.graph.initializers[value.name or ""]
    message.write(model_bytes(rest))
    for value in weights:
        message.write(_one_weight(value))
    return message.getvalue()


def _is_large(value: ir.Value) -> bool:
    """Whether it is a large constant and nothing else: an output has to stay known to the graph."""
    if value.const_value is None or value.is_graph_input() or value.is_graph_output():
        return False
    return value.const_value.nbytes >= _LARGE_BYTES


def _one_weight(value: ir.Value) -> bytes:
    """A model of one initializer."""
    proto = onnx.ModelProto()
    tensor = proto.graph.initializer.add()
    if value.const_value is not None:
        ir.serde.serialize_tensor_into(tensor, value.const_value)
    tensor.name = value.name or ""
    return proto.SerializeToString()
