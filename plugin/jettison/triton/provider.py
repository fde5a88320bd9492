"""An ONNX file that ONNX Runtime hands to TensorRT when it is loaded: the delivery without a plan.

The engine is built on the node, at the first load (minutes, and on a Jetson more), into a cache that outlives
the server. Explicit profile shapes keep it from being built again for each new shape of a request.

Source: triton-inference-server/onnxruntime_backend, src/onnxruntime.cc, the parameters of the accelerator
`tensorrt`; the form of profile shapes is ONNX Runtime's (its pull request 15546).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from jettison.core.engine import ProfileRange
from jettison.core.errors import InputError
from jettison.core.tensors import TensorSpec, format_shape
from jettison.triton.config import Accelerator, ExecutionAccelerators, ModelConfig, Optimization

Precision = Literal["FP32", "FP16", "INT8"]


def check_cache(cache: str, repository: Path) -> None:
    """Nothing, where that folder of the node can hold engines.

    Raises:
        InputError: It is relative, which the server would take from wherever it was started, or lies in the
            repository, where Triton would take it for a model or a version.
    """
    place = PurePosixPath(cache)
    if not place.is_absolute():
        raise InputError(
            f"cache {cache}", detail="expected an absolute path of the node", fix="Begin it with /"
        )
    if place.is_relative_to(repository.absolute()):
        raise InputError(
            f"cache {cache}",
            detail=f"expected a folder outside of the repository {repository}",
            fix="Give one beside it, as /var/cache/NAME",
        )


def with_tensorrt_provider(
    config: ModelConfig,
    inputs: Sequence[TensorSpec],
    *,
    ranges: Sequence[ProfileRange],
    cache: str,
    precision: Precision,
) -> ModelConfig:
    """The configuration of an ONNX model, served on GPUs by ONNX Runtime's TensorRT provider.

    Args:
        config: As for ONNX Runtime alone.
        inputs: Of the model.
        ranges: One for each input with open dimensions.
        cache: A folder of the node, outside of the repository, that the server may write.
        precision: What the graph itself holds: INT8 where it has Q/DQ nodes.

    Raises:
        InputError: An input with open dimensions has no range, or a range is of no input.
    """
    _check(inputs, ranges)
    parameters = {
        "precision_mode": precision,
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "true",
    }
    if ranges:
        parameters |= {
            "trt_profile_min_shapes": _shapes((item.name, item.minimum) for item in ranges),
            "trt_profile_opt_shapes": _shapes((item.name, item.optimum) for item in ranges),
            "trt_profile_max_shapes": _shapes((item.name, item.maximum) for item in ranges),
        }
    accelerator = Accelerator(name="tensorrt", parameters=parameters)
    chosen = ExecutionAccelerators(gpu_execution_accelerator=(accelerator,))
    optimization = (config.optimization or Optimization()).model_copy(
        update={"execution_accelerators": chosen}
    )
    groups = tuple(group.model_copy(update={"kind": "KIND_GPU"}) for group in config.instance_group)
    batch = min([config.max_batch_size, *(item.maximum[0] for item in ranges)])  # 0 stays 0: not batched
    return config.model_copy(
        update={"optimization": optimization, "instance_group": groups, "max_batch_size": batch}
    )


def _shapes(pairs: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    return ",".join(f"{name}:{format_shape(shape)}" for name, shape in pairs)


def _check(inputs: Sequence[TensorSpec], ranges: Sequence[ProfileRange]) -> None:
    given = {item.name: item for item in ranges}
    example = "Give one for each input with open dimensions: --shapes NAME=MIN,OPT,MAX"
    unknown = sorted(set(given) - {spec.name for spec in inputs})
    if unknown:
        known = [spec.name for spec in inputs]
        raise InputError(f"shapes for {unknown[0]!r}", detail=f"expected one of {known}", fix=example)
    for spec in inputs:
        if spec.is_dynamic and spec.name not in given:
            raise InputError(
                f"input {spec.name!r}",
                detail=f"expected a range of shapes, since {format_shape(spec.shape)} is open, found none",
                fix=example,
            )
        for shape in (given[spec.name].minimum, given[spec.name].maximum) if spec.name in given else ():
            if (problem := spec.mismatch(shape)) is not None:
                raise InputError(f"shapes for {spec.name!r}", detail=problem, fix=example)
