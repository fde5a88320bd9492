"""A model as its losses are measured: on the numbers behind a softmax or a decision, not on what they become.

A softmax flattens large errors, and the number of a class tells nothing of how near another one was. So each
output that is the end of such operators gives what went into the first of them, under the name that it had.
"""

from __future__ import annotations

import onnx_ir as ir

from jettison.graph.edit import free_name, names_in

_FLATTENING = frozenset({"Softmax", "LogSoftmax"})
_DECIDING = frozenset({"ArgMax", "ArgMin", "TopK"})
_MOVING = frozenset(
    {
        "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""What may stand between a softmax or a decision and an output."""
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def judged_view(model: ir.Model) -> ir.Model:
    """The model whose outputs are what losses show on; itself where its own outputs are that."""
    ends = [_behind(value) for value in model.graph.outputs]
    if not any(ends):
        return model
    copy = model.clone()
    taken = names_in(copy)
    for index, (output, end) in enumerate(zip(list(copy.graph.outputs), ends, strict=True)):
        source = _behind(output) if end is not None else None
        if source is not None:
            copy.graph.outputs[index] = _renamed(copy.graph, output, source, taken)
    return copy


def is_blind(model: ir.Model) -> bool:
    """Whether a loss shows on no output: none holds floats, or decides over floats."""
    return not any(value.dtype in _FLOATS for value in judged_view(model).graph.outputs)


def _behind(output: ir.Value) -> ir.Value | None:
    """What went into the softmax or decision that the output comes from, None where it comes from none."""
    found, value = None, output
    while (source := _before(value)) is not None:
        found = value = source
    return found


def _before(value: ir.Value) -> ir.Value | None:
    """What goes into the softmax or decision at the end of the graph above that value, one step of it."""
    node = value.producer()
    while node is not None and node.op_type in _MOVING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node.inputs[0] if node is not None and node.op_type in _FLATTENING | _DECIDING else None


def _renamed(graph: ir.Graph, output: ir.Value, source: ir.Value, taken: set[str]) -> ir.Value:
    """A value that holds what `source` does and has the output's name, which the output itself loses."""
    name = output.name or ""
    output.name = free_name(f"{name}:decided", taken)
    node = ir.node("Identity", [source], num_outputs=1, name=free_name(f"{name}:judged", taken))
    found = node.outputs[0]
    found.name, found.type, found.shape = name, source.type, source.shape
    graph.append(node)
    return found
