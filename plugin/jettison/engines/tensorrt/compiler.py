"""The child process that holds TensorRT's compiler.

Started as `python -m jettison.engines.tensorrt.compiler REQUEST.json`: a process of its own, since some
inputs crash the compiler and its native code prints to the terminal. The answer goes into the file that the
request names; no file means that the compiler took the process along.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jettison.core.errors import InputError, MissingError
from jettison.core.files import write_bytes
from jettison.engines.tensorrt.exchange import CompileAnswer, CompileRequest, InputProblem, LogLine, Severity
from jettison.engines.tensorrt.messages import is_kept
from jettison.engines.tensorrt.module import load_module
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.shapes import OpenInput, ShapeRange, choose_ranges

_SEVERITIES: dict[str, Severity] = {
    "INTERNAL_ERROR": "error",
    "ERROR": "error",
    "WARNING": "warning",
    "INFO": "info",
    "VERBOSE": "verbose",
}


def compile_model(request: CompileRequest) -> CompileAnswer:
    """What TensorRT's compiler says about the model."""
    try:
        trt = load_module(request.module)
    except MissingError as error:
        return CompileAnswer(missing=error.detail)
    log: list[LogLine] = []
    logger = _recorder(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(request.model))
    answer = CompileAnswer(version=str(trt.__version__))
    refusals = () if parsed else _parser_refusals(parser)
    if _is_unreadable(refusals) or (parsed and network.num_outputs == 0):
        return answer.model_copy(update={"problem": _no_graph(request.model)})
    if not parsed:
        return answer.model_copy(update={"refusals": refusals, "log": tuple(log)})
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if (refusal := _set_target(trt, config, request.compute_capability)) is not None:
        return answer.model_copy(update={"refusals": (refusal,)})
    try:
        ranges = choose_ranges(_inputs(network), request.shapes)
    except InputError as error:
        problem = InputProblem(about="shapes", what=error.what, detail=error.detail, fix=error.fix)
        return answer.model_copy(update={"problem": problem})
    _add_profile(builder, network, config, ranges)
    sparse = request.sparse and _allow_sparse(trt, config)
    engine = builder.build_serialized_network(network, config)
    built = {"built": engine is not None, "shapes": ranges, "log": tuple(log), "sparse": sparse}
    return answer.model_copy(update=built)


def _recorder(trt: ModuleType, log: list[LogLine]) -> Any:
    """A logger that keeps what is worth keeping. The class can only be made once the module is there."""

    class Recorder(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = _SEVERITIES.get(severity.name, "verbose")
            if is_kept(level, text):
                log.append(LogLine(severity=level, text=text))

    return Recorder()


def _parser_refusals(parser: Any) -> tuple[RefusedNode, ...]:
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


def _is_unreadable(refusals: Sequence[RefusedNode]) -> bool:
    """Whether the file is no ONNX, or torn. Some such files the parser takes for empty graphs instead."""
    return any(refusal.code == "MODEL_DESERIALIZE_FAILED" for refusal in refusals)


def _no_graph(model: Path) -> InputProblem:
    return InputProblem(
        about="model",
        what=f"model {model.name}",
        detail="expected an ONNX graph with outputs, found none in the file",
        fix="Check that it is an ONNX file and whole",
    )


def _set_target(trt: ModuleType, config: Any, capability: int) -> RefusedNode | None:
    """Name the one GPU; without a name the compiler is lax and lets FP8 and FP4 pass everywhere."""
    named = getattr(trt.ComputeCapability, f"SM{capability}", None)
    config.num_compute_capabilities = 1
    if named is not None and config.set_compute_capability(named, 0):
        return None
    text = f"{trt.__name__} {trt.__version__} does not compile for sm{capability}"
    return RefusedNode(code="TARGET", description=text)


def _allow_sparse(trt: ModuleType, config: Any) -> bool:
    """Let the builder take sparse kernels; whether this module has them. Setters fail by logging alone."""
    flag = getattr(trt.BuilderFlag, "SPARSE_WEIGHTS", None)
    if flag is None:
        return False
    config.set_flag(flag)
    return bool(config.get_flag(flag))


def _inputs(network: Any) -> list[OpenInput]:
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


def _add_profile(builder: Any, network: Any, config: Any, ranges: Sequence[ShapeRange]) -> None:
    if not ranges:
        return
    tensors = {network.get_input(place).name: network.get_input(place) for place in range(network.num_inputs)}
    profile = builder.create_optimization_profile()
    for found in ranges:
        is_values = tensors[found.name].is_shape_tensor
        set_range = profile.set_shape_input if is_values else profile.set_shape
        set_range(found.name, found.minimum, found.optimum, found.maximum)
    config.add_optimization_profile(profile)


def main(arguments: Sequence[str]) -> None:
    """Answer the request in that file."""
    request = CompileRequest.model_validate_json(Path(arguments[0]).read_bytes())
    write_bytes(request.answer, compile_model(request).model_dump_json().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
