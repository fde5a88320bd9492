"""The child process that builds an engine: `python -m jettison.engines.tensorrt.builder REQUEST.json`.

One code over `tensorrt` 10.x and 11.x and `tensorrt_rtx`. Where they differ: 10.x makes strongly typed
networks by a flag; `tensorrt` builds for the GPU that is there, `tensorrt_rtx` for the one that is named; and
a timing cache is never set for `tensorrt_rtx`, which would then want a GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jettison.core.errors import InputError, MissingError
from jettison.core.files import write_bytes
from jettison.engines.tensorrt.build_exchange import BuildAnswer, BuildRequest
from jettison.engines.tensorrt.compiler import name_target
from jettison.engines.tensorrt.exchange import InputProblem, LogLine
from jettison.engines.tensorrt.gpu import Gpu, gpu_here
from jettison.engines.tensorrt.messages import builder_refusals
from jettison.engines.tensorrt.module import COMPILERS, load_module
from jettison.engines.tensorrt.monitor import monitor
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.session import (
    add_profile,
    inputs,
    is_unreadable,
    no_graph,
    parser_refusals,
    recorder,
    strongly_typed,
)
from jettison.engines.tensorrt.settings import apply, run_step
from jettison.engines.tensorrt.shapes import ShapeRange, choose_ranges

_SILENT = RefusedNode(code="BUILDER", description="TensorRT built no engine and gave no reason")


def build_engine(request: BuildRequest) -> BuildAnswer:
    """Build the engine and write its plan."""
    try:
        trt = load_module(request.module)
    except MissingError as error:
        return BuildAnswer(missing=error.detail)
    gpu = gpu_here()
    answer = BuildAnswer(version=str(trt.__version__), gpu=gpu)
    if request.module not in COMPILERS and (reason := _unfit(gpu, request.compute_capability)) is not None:
        return answer.model_copy(update={"missing": reason})
    started = time.monotonic()
    log: list[LogLine] = []
    found = _build(trt, request, answer, log)
    return found.model_copy(update={"log": tuple(log), "seconds": round(time.monotonic() - started, 3)})


def _unfit(gpu: Gpu | None, capability: int) -> str | None:
    """Why this machine cannot build for that GPU."""
    if gpu is None:
        return "it builds on the GPU that will run the engine, and there is none here"
    if gpu.compute_capability != capability:
        here = f"{gpu.name} of sm{gpu.compute_capability}"
        return f"it builds for the GPU that is there, {here}, not for sm{capability}"
    return None


def _build(trt: ModuleType, request: BuildRequest, answer: BuildAnswer, log: list[LogLine]) -> BuildAnswer:
    logger = recorder(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if (stopped := _parse(parser, network, request, answer)) is not None:
        return stopped
    try:
        profiles = _profiles(network, request.profiles)
    except InputError as error:
        problem = InputProblem(about="shapes", what=error.what, detail=error.detail, fix=error.fix)
        return answer.model_copy(update={"problem": problem})
    config = builder.create_builder_config()
    refusals = _configure(trt, config, request, log)
    for ranges in profiles:
        add_profile(builder, network, config, ranges)
    refusals = refusals or list(builder_refusals(log))
    if refusals:
        return answer.model_copy(update={"refusals": tuple(refusals)})
    cached = load_timings(config, request)
    config.progress_monitor = progress = monitor(trt, request.progress)
    plan = builder.build_serialized_network(network, config)
    del progress  # it must outlive the build, which calls it from threads of its own
    if plan is None:
        return answer.model_copy(update={"refusals": builder_refusals(log) or (_SILENT,)})
    write_bytes(request.plan, bytes(plan))
    save_timings(config, request)
    return answer.model_copy(update={"profiles": profiles, "cached": cached})


def _parse(parser: Any, network: Any, request: BuildRequest, answer: BuildAnswer) -> BuildAnswer | None:
    """The answer where the parser does not take the model, else None."""
    parsed = parser.parse_from_file(str(request.model))
    refusals = () if parsed else parser_refusals(parser)
    if is_unreadable(refusals) or (parsed and network.num_outputs == 0):
        return answer.model_copy(update={"problem": no_graph(request.model)})
    return None if parsed else answer.model_copy(update={"refusals": refusals})


def _profiles(network: Any, given: Sequence[Sequence[ShapeRange]]) -> tuple[tuple[ShapeRange, ...], ...]:
    """The ranges of each profile; an input that needs one and has none is an error, and no guess.

    Raises:
        InputError: A range is missing or does not fit.
    """
    found = inputs(network)
    for item in found:
        if item.needs_range and not all(any(r.name == item.name for r in one) for one in given or ((),)):
            raise InputError(
                f"input {item.name!r}",
                detail="expected a range of shapes, since it has open dimensions, found none",
                fix=f"Give the smallest, most usual and largest: --shapes {item.name}=MIN,OPT,MAX",
            )
    return tuple(ranges for one in given or ((),) if (ranges := choose_ranges(found, one)))


def _configure(trt: ModuleType, config: Any, request: BuildRequest, log: list[LogLine]) -> list[RefusedNode]:
    if request.module in COMPILERS and (refusal := name_target(trt, config, request.compute_capability)):
        return [refusal]

    def verbose() -> None:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    named = run_step("layer names", verbose, log)
    return [*([named] if named else []), *apply(trt, config, request.settings, log)]


def load_timings(config: Any, request: BuildRequest) -> bool:
    """Start from the timings of an earlier build; whether there were any that fit this GPU."""
    if request.module in COMPILERS or request.timing_cache is None:
        return False
    known = request.timing_cache.read_bytes() if request.timing_cache.is_file() else b""
    cache = config.create_timing_cache(known)
    return bool(config.set_timing_cache(cache, False)) and bool(known)


def save_timings(config: Any, request: BuildRequest) -> None:
    """Keep what this build measured for the next one."""
    if request.module in COMPILERS or request.timing_cache is None:
        return
    cache = config.get_timing_cache()
    if cache is not None:
        write_bytes(request.timing_cache, bytes(cache.serialize()))


def main(arguments: Sequence[str]) -> None:
    """Answer the request in that file."""
    request = BuildRequest.model_validate_json(Path(arguments[0]).read_bytes())
    write_bytes(request.answer, build_engine(request).model_dump_json().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
