"""Reads the compiler's list of layers out of its log: kind, element types and fused ONNX nodes of each.

The list is one VERBOSE message that starts `Layers:`, written where the profiling verbosity is DETAILED,
with one line a layer:

    Name: conv1_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,8,16,16], ..., Datatype:
    Int8, Format: ... }], Constants: [ ... ], Outputs: [ ... ], TacticName: ..., StreamId: 0, Metadata:
    [ONNX Layer: conv1]<0x1f>[ONNX Layer: x_DQ]

The format is not documented. A line that does not look like this is left out, so that a new version makes
the list shorter and the shares unknown, never wrong.
"""

from __future__ import annotations

import re

from jettison.engines.tensorrt.report import LayerPrecision

_LINE = re.compile(
    r"^Name: (?P<name>.*), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?, Outputs: \[(?P<outputs>.*?)\], TacticName:.*?"
    r", Metadata:(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"Dimensions: \[(?P<sizes>[-\d,]*)\].*?Datatype: (?P<dtype>[^,}]+)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (?P<name>.*?)\](?=[\x1e\x1f]|\[ONNX Layer: |\s*$)")
_SUBGRAPH = re.compile(r" \| .*\([^()]+\)$")

_DTYPES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4E2M1": "float4_e2m1fn",
    "Int4": "int4",
    "Int8": "int8",
    "UInt8": "uint8",
    "Int32": "int32",
    "Int64": "int64",
    "Bool": "bool",
}
"""The log's names of element types. Source: layer lists of tensorrt_rtx 1.7."""


def parse_layers(text: str) -> tuple[LayerPrecision, ...]:
    """The layers that the message lists; empty where nothing in it looks like a layer."""
    # Not splitlines(), which also cuts at control characters, and those separate the names of ONNX nodes.
    layers = (_layer(line) for line in text.split("\n"))
    return tuple(layer for layer in layers if layer is not None)


def _layer(line: str) -> LayerPrecision | None:
    match = _LINE.match(line.strip())
    if match is None:
        return None
    return LayerPrecision(
        name=match["name"],
        kind=match["kind"],
        inputs=_dtypes(match["inputs"]),
        constants=_dtypes(match["constants"] or "", with_scalars=False),
        outputs=_dtypes(match["outputs"]),
        onnx_nodes=_onnx_nodes(match["metadata"]),
    )


def _dtypes(text: str, *, with_scalars: bool = True) -> tuple[str, ...]:
    tensors = list(_TENSOR.finditer(text))
    if not with_scalars:
        # Scales and factors are listed as constants of the shape [1], in FP32 whatever the layer computes in.
        tensors = [tensor for tensor in tensors if tensor["sizes"] not in ("", "1")]
    return tuple(_DTYPES.get(name, name.lower()) for name in (tensor["dtype"].strip() for tensor in tensors))


def _onnx_nodes(text: str) -> tuple[str, ...]:
    """Names of ONNX nodes; one of a subgraph is listed as `name | graph (attribute) | parent (operator)`."""
    names = (_SUBGRAPH.sub("", match["name"]) for match in _ONNX_NODE.finditer(text))
    return tuple(dict.fromkeys(names))
