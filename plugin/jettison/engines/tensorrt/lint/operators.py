"""Checks of operators, opsets and dimensions: what TensorRT's parser does not read."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from jettison.engines.tensorrt.lint.finding import Place, Subject

LATEST_OPSET = 25
"""The newest opset of TensorRT 11's parser; 10.0 reads up to 20."""
OLDEST_OPSET = 7
DYNAMIC = frozenset(
    {
        "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM", "MatMulIntegerToFloat",
    }
)  # fmt: skip
"""What dynamic quantization leaves."""
INTEGER_FORM = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "QAttention"})
"""Operators of ONNX Runtime's operator-oriented form, beside all that begin with QLinear."""
UNKNOWN = frozenset(
    {
        "SequenceConstruct", "SequenceAt", "SequenceInsert", "ConcatFromSequence", "StringNormalizer",
        "TfIdfVectorizer", "StringConcat", "StringSplit", "RegexFullMatch", "MatMulNBits", "DeformConv",
    }
)  # fmt: skip
UNSURE = frozenset({"NonMaxSuppression", "NonZero", "RoiAlign", "Unique"})
"""What TensorRT-RTX refuses, and TensorRT takes in some versions."""
CONTRIBUTED = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})


def dynamic(subject: Subject) -> Iterator[Place]:
    """Operators of dynamic quantization."""
    for node in _everywhere(subject):
        if node.op_type in DYNAMIC:
            yield Place(node, f"expected static pairs, found {node.op_type}")


def integer_forms(subject: Subject) -> Iterator[Place]:
    """Operators that compute in integers by themselves."""
    for node in _everywhere(subject):
        if node.op_type in INTEGER_FORM or node.op_type.startswith("QLinear"):
            yield Place(node, f"expected pairs around a float operator, found {node.op_type}")


def unknown(subject: Subject) -> Iterator[Place]:
    """Operators that the parser does not know."""
    for node in _everywhere(subject):
        is_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear")  # read in any domain
        foreign = node.domain in CONTRIBUTED and not node.op_type.startswith("QLinear") and not is_pair
        if (node.op_type in UNKNOWN or foreign) and node.op_type not in DYNAMIC | INTEGER_FORM:
            yield Place(node, f"expected an operator of ONNX that TensorRT reads, found {_full_name(node)}")


def unsure(subject: Subject) -> Iterator[Place]:
    """Operators that only some versions read."""
    for node in _everywhere(subject):
        if node.op_type in UNSURE:
            yield Place(node, f"expected an operator that all versions read, found {node.op_type}")


def opset(subject: Subject) -> Iterator[Place]:
    """An opset that the parser does not read."""
    if not OLDEST_OPSET <= subject.opset <= LATEST_OPSET:
        text = f"expected opset {OLDEST_OPSET} to {LATEST_OPSET}, found {subject.opset}"
        yield Place(None, text)


def nameless_dimensions(subject: Subject) -> Iterator[Place]:
    """Several open dimensions of one name that need not be equal: `?`."""
    places = [
        (value.name, axis)
        for value in subject.graph.inputs
        for axis, size in enumerate(value.shape or ())
        if isinstance(size, ir.SymbolicDim) and size.value == "?"
    ]
    if len(places) > 1:
        first, others = f"{places[0][0]!r}", len(places) - 1
        text = f"found '?' on {first} and {others} more, which makes them equal"
        yield Place(None, f"expected names for open dimensions, {text}")


def _everywhere(subject: Subject) -> Iterator[ir.Node]:
    return iter(ir.traversal.RecursiveGraphIterator(subject.graph))


def _full_name(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
