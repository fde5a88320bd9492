"""A complete serving configuration from a model's own inputs and outputs.

Complete, because Triton's auto-completion guesses (it raises a batch size of 0 in silence); we always
start servers with `--disable-auto-complete-config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jettison.core.errors import ModelError
from jettison.core.tensors import Dimension, TensorSpec
from jettison.triton.config import (
    DynamicBatching,
    Input,
    InstanceGroup,
    ModelConfig,
    Output,
    Parameter,
    Reshape,
    check_name,
)

MODEL_FILENAME = "model.onnx"
ONNXRUNTIME = "onnxruntime"


class Serving(BaseModel):
    """How a model shall be served.

    `parameters` are read by the backend. The stock C++ backend and ours both know
    `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode` (0 sequential, 1 parallel),
    `enable_mem_arena`, `enable_mem_pattern` and `session.use_device_allocator_for_initializers`;
    ours also takes ONNX Runtime's own `session.*` keys, which the stock one passes over.

    Source: triton-inference-server/onnxruntime_backend, src/onnxruntime.cc, ModelState::ModelState.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int = Field(8, ge=0)
    instances: int = Field(1, ge=1)
    max_queue_delay_us: int = Field(0, ge=0)
    backend: str = ONNXRUNTIME
    filename: str = MODEL_FILENAME
    kind: Literal["KIND_CPU", "KIND_GPU", "KIND_AUTO"] = "KIND_CPU"
    parameters: dict[str, str] = {}


def config_of(
    name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, serving: Serving | None = None
) -> ModelConfig:
    """The complete configuration of a model with these inputs and outputs.

    Batched only if one and the same open dimension leads all inputs and outputs; else
    `max_batch_size` is 0 and `dims` are whole shapes. Give the specifications as ONNX Runtime sees them:
    the stock backend wants the outputs' open and fixed sizes to be exactly those.

    Raises:
        RepositoryError: The name cannot be a folder in a repository.
        ModelError: Triton cannot carry an element type or a size, or there is no input or no output.
    """
    check_name(name)
    serving = serving or Serving()
    if not inputs or not outputs:
        missing = "output" if inputs else "input"
        raise ModelError(
            f"model {name!r}", detail=f"it has no {missing}", fix="Triton needs both: add one to the graph"
        )
    batch = serving.max_batch_size if is_batched(inputs, outputs) else 0
    delay = serving.max_queue_delay_us
    group = InstanceGroup(kind=serving.kind, count=serving.instances)
    return ModelConfig(
        name=name,
        backend=serving.backend,
        max_batch_size=batch,
        input=tuple(Input(**_fields(spec, serving.backend, batched=batch > 0)) for spec in inputs),
        output=tuple(Output(**_fields(spec, serving.backend, batched=batch > 0)) for spec in outputs),
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=delay) if batch else None,
        instance_group=(group,),
        default_model_filename=serving.filename,
        parameters={key: Parameter(string_value=value) for key, value in serving.parameters.items()},
    )


def is_batched(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether one open dimension leads all inputs and outputs.

    Two different names mean two different things: a detector's `(detections, 7)` is not a batch.
    """
    specs = [*inputs, *outputs]
    names = {spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None}
    return all(spec.has_dynamic_batch for spec in specs) and len(names) <= 1


def _fields(spec: TensorSpec, backend: str, *, batched: bool) -> dict[str, object]:
    shape = tuple(_size(spec, size) for size in spec.shape[1 if batched else 0 :])
    fields: dict[str, object] = {"name": spec.name, "data_type": _data_type(spec, backend)}
    if shape:
        return {**fields, "dims": shape}
    # A scalar is [1] to clients. Triton refuses an empty reshape without batches, where the backends
    # themselves take [1] for a scalar.
    return {**fields, "dims": (1,), "reshape": Reshape() if batched else None}


def _size(spec: TensorSpec, size: Dimension) -> int:
    if not isinstance(size, int):
        return -1
    if size < 1:
        raise ModelError(
            f"tensor {spec.name!r}",
            detail=f"expected sizes of 1 and more, found {size} in {spec}",
            fix="Triton cannot carry empty dimensions: change the graph",
        )
    return size


def _data_type(spec: TensorSpec, backend: str) -> str:
    data_type = spec.dtype.triton_config
    if data_type is None or (data_type == "TYPE_BF16" and backend == ONNXRUNTIME):
        raise ModelError(
            f"tensor {spec.name!r}",
            detail=f"Triton's {backend} backend cannot carry {spec.dtype.name} inputs and outputs",
            fix="Cast it to float16 or float32 inside the graph",
        )
    return data_type
