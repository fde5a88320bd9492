"""What all uses of TensorRT's builder share: a logger that keeps, refusals, inputs and profiles.

One code over the modules `tensorrt` (10.x and 11.x) and `tensorrt_rtx`. Only child processes call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jettison.engines.tensorrt.exchange import InputProblem, LogLine, Severity
from jettison.engines.tensorrt.messages import is_kept
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.shapes import OpenInput, ShapeRange

_SEVERITIES: dict[str, Severity] = {
    "INTERNAL_ERROR": "error",
    "ERROR": "error",
    "WARNING": "warning",
    "INFO": "info",
    "VERBOSE": "verbose",
}


def strongly_typed(trt: ModuleType) -> int:
    """The flags of a strongly typed network: a flag by name, whose number differs between 10.x and 11.x."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def recorder(trt: ModuleType, log: list[LogLine]) -> Any:
    """A logger that keeps what is worth keeping. The class can only be made once the module is there."""

    class Recorder(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = _SEVERITIES.get(severity.name, "verbose")
            if is_kept(level, text):
                log.append(LogLine(severity=level, text=text))

    return Recorder()


def parser_refusals(parser: Any) -> tuple[RefusedNode, ...]:
    """Why the parser refused, with the ONNX node of each error."""
    errors = [parser.get_error(place) for place in range(parser.num_errors)]
    return tuple(_parser_refusal(error) for error in errors)


def _parser_refusal(error: Any) -> RefusedNode:
    operator = error.node_operator() or None
    description = error.desc()
    if description == "false":
        # The parser's whole text for an operator that it knows by name only (seen in 1.7).
        description = f"TensorRT does not run the operator {operator}"
    index = error.node()
    name = error.node_name() or (f"node {index}" if index >= 0 else None)
    return RefusedNode(code=error.code().name, description=description, node=name, operator=operator)


def is_unreadable(refusals: Sequence[RefusedNode]) -> bool:
    """Whether the file is no ONNX, or torn. Some such files the parser takes for empty graphs instead."""
    return any(refusal.code == "MODEL_DESERIALIZE_FAILED" for refusal in refusals)


def no_graph(model: Path) -> InputProblem:
    """What to say of a file without a graph."""
    return InputProblem(
        about="model",
        what=f"model {model.name}",
        detail="expected an ONNX graph with outputs, found none in the file",
        fix="Check that it is an ONNX file and whole",
    )


def allow_sparse(trt: ModuleType, config: Any) -> bool:
    """Let the builder take sparse kernels; whether this module has them. Setters fail by logging alone."""
    flag = getattr(trt.BuilderFlag, "SPARSE_WEIGHTS", None)
    if flag is None:
        return False
    config.set_flag(flag)
    return bool(config.get_flag(flag))


def inputs(network: Any) -> list[OpenInput]:
    """The inputs of a parsed network."""
    tensors = [network.get_input(place) for place in range(network.num_inputs)]
    _separate_unnamed(tensors)
    return [
        OpenInput(
            name=tensor.name,
            shape=tuple(tensor.shape),
            dimension_names=tuple(tensor.get_dimension_name(axis) or "" for axis in range(len(tensor.shape))),
            is_shape_tensor=tensor.is_shape_tensor,
        )
        for tensor in tensors
    ]


def _separate_unnamed(tensors: Sequence[Any]) -> None:
    """Give dimensions named `?` names of their own; TensorRT takes equal names for equal sizes.

    The first keeps its name: the compiler asserts that each name which it read is still in use (1.7).
    """
    seen = False
    for place, tensor in enumerate(tensors):
        for axis in range(len(tensor.shape)):
            if tensor.get_dimension_name(axis) == "?":
                if seen:
                    tensor.set_dimension_name(axis, f"unnamed_{place}_{axis}")
                seen = True


def add_profile(builder: Any, network: Any, config: Any, ranges: Sequence[ShapeRange]) -> None:
    """Add one optimization profile; a network without open dimensions needs none."""
    if not ranges:
        return
    tensors = {network.get_input(place).name: network.get_input(place) for place in range(network.num_inputs)}
    profile = builder.create_optimization_profile()
    for found in ranges:
        is_values = tensors[found.name].is_shape_tensor
        set_range = profile.set_shape_input if is_values else profile.set_shape
        set_range(found.name, found.minimum, found.optimum, found.maximum)
    config.add_optimization_profile(profile)
