"""Triton's ModelConfig as far as we emit it: typed, frozen, complete, named as in the protocol buffer.

Fields bear the names of `model_config.proto`, so the text form (`pbtxt.py`) needs no table of its own.
A field that is not modelled here is refused when a config is read, never silently dropped.

Source: triton-inference-server/common, protobuf/model_config.proto.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from jettison.core.errors import RepositoryError

SAFE_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,127}"
"""Names of models and files. A leading digit is read as a version and a leading dot as a hidden model."""

SafeName = Annotated[str, Field(pattern=f"^{SAFE_NAME}$")]
FileName = Annotated[str, Field(pattern=f"^({SAFE_NAME})?$")]
"""A file inside the version folder, or empty where the backend's own default holds."""
Size = Annotated[int, Field(ge=-1)]
Dims = Annotated[tuple[Size, ...], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
DataType = Annotated[str, Field(pattern=r"^TYPE_[A-Z0-9]+$")]


class Message(BaseModel):
    """A message of the protocol buffer: frozen, and closed against fields that are not modelled."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Reshape(Message):
    """The shape that the model itself sees; empty for a scalar, which Triton's `dims` cannot say."""

    shape: tuple[Size, ...] = ()


class Input(Message):
    """One input; with `max_batch_size` > 0 the batch axis stands in front of `dims` unsaid."""

    name: Text
    data_type: DataType
    dims: Dims
    reshape: Reshape | None = None
    optional: bool = False
    allow_ragged_batch: bool = False


class Output(Message):
    """One output; `label_filename` names its classes for the classification extension."""

    name: Text
    data_type: DataType
    dims: Dims
    reshape: Reshape | None = None
    label_filename: FileName = ""


class Latest(Message):
    """Serve that many of the highest versions."""

    num_versions: int = Field(1, ge=1)


class Specific(Message):
    """Serve exactly these versions."""

    versions: tuple[Annotated[int, Field(ge=1)], ...] = ()


class All(Message):
    """Serve every version."""


class VersionPolicy(Message):
    """Which versions are served: exactly one of the three."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(choice is not None for choice in (self.latest, self.all, self.specific)) != 1:
            raise ValueError("give exactly one of latest, all and specific")
        return self


class Resource(Message):
    """A resource of the rate limiter that an execution holds."""

    name: Text
    is_global: bool = Field(False, alias="global")
    count: int = 0


class RateLimiter(Message):
    """What an execution needs before it may start; acts under `--rate-limit=execution_count` only."""

    resources: tuple[Resource, ...] = ()
    priority: int = 0


class InstanceGroup(Message):
    """Copies of the model that run at the same time, and where."""

    name: str = ""
    kind: Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"] = "KIND_AUTO"
    count: int = Field(0, ge=0)
    gpus: tuple[int, ...] = ()
    profile: tuple[str, ...] = ()
    rate_limiter: RateLimiter | None = None
    passive: bool = False
    host_policy: str = ""


class DynamicBatching(Message):
    """Requests that wait are joined to batches; preferred sizes are for plans with several profiles."""

    preferred_batch_size: tuple[Annotated[int, Field(ge=1)], ...] = ()
    max_queue_delay_microseconds: int = Field(0, ge=0)
    preserve_ordering: bool = False


class Parameter(Message):
    """A free parameter, whose meaning belongs to the backend."""

    string_value: str = ""


class WarmupInput(Message):
    """What an input is fed with during warm-up: exactly one of the three sources."""

    data_type: DataType
    dims: tuple[Size, ...] = ()
    zero_data: bool = False
    random_data: bool = False
    input_data_file: str = ""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(map(bool, (self.zero_data, self.random_data, self.input_data_file))) != 1:
            raise ValueError("give exactly one of zero_data, random_data and input_data_file")
        return self


class ModelWarmup(Message):
    """A request that runs before the model is READY."""

    name: Text
    batch_size: int = Field(0, ge=0)
    inputs: dict[str, WarmupInput] = {}
    count: int = Field(0, ge=0)


class Accelerator(Message):
    """An execution provider of ONNX Runtime, with its options."""

    name: Text
    parameters: dict[str, str] = {}


class ExecutionAccelerators(Message):
    """Accelerators by the kind of instance that they belong to."""

    gpu_execution_accelerator: tuple[Accelerator, ...] = ()
    cpu_execution_accelerator: tuple[Accelerator, ...] = ()


class GraphOptimization(Message):
    """How far ONNX Runtime optimizes: 0 all, 1 extended, -1 basic, 2 none (the backend's own coding)."""

    level: int = 0


class Optimization(Message):
    """Graph level and accelerators."""

    graph: GraphOptimization | None = None
    execution_accelerators: ExecutionAccelerators | None = None


class ResponseCache(Message):
    """Whether answers are cached, keyed by model, version and inputs."""

    enable: bool = False


class TransactionPolicy(Message):
    """Whether the model may send any number of answers for a request."""

    decoupled: bool = False


class ModelConfig(Message):
    """A complete model configuration, as `config.pbtxt` holds it."""

    name: SafeName
    platform: str = ""
    backend: str = ""
    version_policy: VersionPolicy | None = None
    max_batch_size: int = Field(0, ge=0)
    input: tuple[Input, ...] = ()
    output: tuple[Output, ...] = ()
    optimization: Optimization | None = None
    dynamic_batching: DynamicBatching | None = None
    instance_group: tuple[InstanceGroup, ...] = ()
    default_model_filename: FileName = ""
    cc_model_filenames: dict[str, FileName] = {}
    parameters: dict[str, Parameter] = {}
    model_warmup: tuple[ModelWarmup, ...] = ()
    model_transaction_policy: TransactionPolicy | None = None
    response_cache: ResponseCache | None = None

    def wire_shape(self, tensor: Input | Output) -> tuple[int, ...]:
        """The tensor's whole shape in requests: with the batch axis where the model is batched."""
        return (-1, *tensor.dims) if self.max_batch_size else tensor.dims

    def model_shape(self, tensor: Input | Output) -> tuple[int, ...]:
        """The tensor's whole shape in the model: after `reshape`, with the batch axis."""
        dims = tensor.dims if tensor.reshape is None else tensor.reshape.shape
        return (-1, *dims) if self.max_batch_size else dims


def check_name(name: str, *, what: str = "model name") -> str:
    """The name, if it can be a folder in a repository.

    Raises:
        RepositoryError: It has slashes or odd characters, or begins with a digit or a dot.
    """
    if not re.fullmatch(SAFE_NAME, name):
        raise RepositoryError(
            f"{what} {name!r}",
            detail="expected a letter or _ first, then letters, digits and _ . - (128 at most)",
            fix="Choose another: Triton reads a leading digit as a version and a hidden folder as a model",
        )
    return name
