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
from jettison.engines.tensorrt.exchange import CompileAnswer, CompileRequest, InputProblem, LogLine
from jettison.engines.tensorrt.module import load_module
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.session import (
    add_profile,
    allow_sparse,
    inputs,
    is_unreadable,
    no_graph,
    parser_refusals,
    recorder,
    strongly_typed,
)
from jettison.engines.tensorrt.shapes import choose_ranges


def compile_model(request: CompileRequest) -> CompileAnswer:
    """What TensorRT's compiler says about the model."""
    try:
        trt = load_module(request.module)
    except MissingError as error:
        return CompileAnswer(missing=error.detail)
    log: list[LogLine] = []
    logger = recorder(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(request.model))
    answer = CompileAnswer(version=str(trt.__version__))
    refusals = () if parsed else parser_refusals(parser)
    if is_unreadable(refusals) or (parsed and network.num_outputs == 0):
        return answer.model_copy(update={"problem": no_graph(request.model)})
    if not parsed:
        return answer.model_copy(update={"refusals": refusals, "log": tuple(log)})
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if (refusal := name_target(trt, config, request.compute_capability)) is not None:
        return answer.model_copy(update={"refusals": (refusal,)})
    try:
        ranges = choose_ranges(inputs(network), request.shapes)
    except InputError as error:
        problem = InputProblem(about="shapes", what=error.what, detail=error.detail, fix=error.fix)
        return answer.model_copy(update={"problem": problem})
    add_profile(builder, network, config, ranges)
    sparse = request.sparse and allow_sparse(trt, config)
    engine = builder.build_serialized_network(network, config)
    built = {"built": engine is not None, "shapes": ranges, "log": tuple(log), "sparse": sparse}
    return answer.model_copy(update=built)


def name_target(trt: ModuleType, config: Any, capability: int) -> RefusedNode | None:
    """Name the one GPU; without a name the compiler is lax and lets FP8 and FP4 pass everywhere."""
    named = getattr(trt.ComputeCapability, f"SM{capability}", None)
    config.num_compute_capabilities = 1
    if named is not None and config.set_compute_capability(named, 0):
        return None
    text = f"{trt.__name__} {trt.__version__} does not compile for sm{capability}"
    return RefusedNode(code="TARGET", description=text)


def main(arguments: Sequence[str]) -> None:
    """Answer the request in that file."""
    request = CompileRequest.model_validate_json(Path(arguments[0]).read_bytes())
    write_bytes(request.answer, compile_model(request).model_dump_json().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
