"""The record of a compiled engine: what it was built from, by what, and for which GPU.

Engines of one model are not equal byte by byte from build to build, so an engine is identified by the ONNX
file, the settings and the version of TensorRT. The record lies beside the plan and goes into the manifest of
the published version, where `jettison check` reads it.
"""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.errors import InputError
from jettison.core.targets import CAPABILITIES
from jettison.core.tensors import TensorSpec, format_shape

ENGINE_FILE = "engine.json"
"""Beside each plan: its record."""
PLAN_FILE = "model.plan"
AMPERE = 80
JETSON = frozenset({87, 110})
"""GPUs of Jetson, for which hardware compatible plans are not supported.

Source: TensorRT's Developer Guide, "Hardware Compatibility".
"""


class ProfileRange(BaseModel):
    """Smallest, most usual and largest shape of one input in one optimization profile."""

    model_config = ConfigDict(frozen=True)

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def covers(self, shape: tuple[int, ...]) -> bool:
        """Whether that shape lies inside."""
        return len(shape) == len(self.minimum) and all(
            low <= size <= high for low, size, high in zip(self.minimum, shape, self.maximum, strict=True)
        )


class EngineRecord(BaseModel):
    """What a plan is.

    Args:
        onnx: The digest of the ONNX model, with its external data.
        settings: The settings of the builder, as JSON.
        module: The Python module that built it; only `tensorrt` makes plans for Triton.
        tensorrt: That module's version.
        compute_capability: Of the GPU that it was built for, as 89.
        gpu: The GPU's name, which says the SKU that it was tuned on; empty where none was there.
        architecture: Of the processor, as x86_64.
        system: The operating system.
        image: The image in which it was built, with its digest where one is known.
        compatibility: Which other GPUs take it, by TensorRT's hardware compatibility level.
        version_compatible: Whether later versions of TensorRT take it.
        inputs: As the ONNX model has them.
        outputs: As the ONNX model has them.
        profiles: One tuple of ranges for each optimization profile; empty where no input is open.
        sha256: The digest of the plan's bytes, to find a torn copy; no part of its identity.
        seconds: What the build took.
        memory_bytes: Activation memory at the largest shapes, as TensorRT tells.
    """

    model_config = ConfigDict(frozen=True)

    onnx: str
    settings: str
    module: str
    tensorrt: str
    compute_capability: int
    gpu: str = ""
    architecture: str
    system: str
    image: str | None = None
    compatibility: str = "none"
    version_compatible: bool = False
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[tuple[ProfileRange, ...], ...] = ()
    sha256: str
    seconds: float = 0.0
    memory_bytes: int | None = None

    @property
    def identity(self) -> str:
        """SHA-256 over the ONNX model, the settings and TensorRT's module and version."""
        return identity_of(self.onnx, self.settings, module=self.module, version=self.tensorrt)

    @property
    def compute(self) -> str:
        """The compute capability as Triton writes it, such as 8.9."""
        return dotted(self.compute_capability)

    def runs_on(self, capability: int) -> bool:
        """Whether a GPU of that compute capability takes the plan."""
        if capability == self.compute_capability:
            return True
        return (
            self.compatibility == "ampere-plus"
            and min(capability, self.compute_capability) >= AMPERE
            and not {capability, self.compute_capability} & JETSON
        )

    def check_capability(self, capability: int) -> None:
        """Pass where that GPU takes the plan.

        Raises:
            InputError: It does not.
        """
        if not self.runs_on(capability):
            raise InputError(
                f"plan for sm{self.compute_capability}",
                detail=f"expected one for compute capability {dotted(capability)} "
                f"({CAPABILITIES.get(capability, 'unknown')}), found {self.compute}",
                fix=f"Build it there: jettison build MODEL --target sm{capability} -o DIR",
            )

    def check_version(self, version: str) -> None:
        """Pass where that TensorRT reads the plan: the very version that built it.

        Raises:
            InputError: It is another.
        """
        if not same_version(self.tensorrt, version):
            raise InputError(
                f"plan for sm{self.compute_capability}",
                detail=f"expected one by TensorRT {version}, found {self.tensorrt}",
                fix="Build it in the image that serves it: jettison build --image TAG",
            )

    def check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Pass where one profile covers all of these shapes of inputs.

        Raises:
            InputError: None does.
        """
        ranges = self.profiles or ((),)
        if any(all(item.covers(shapes[item.name]) for item in one if item.name in shapes) for one in ranges):
            return
        found = ", ".join(f"{name}={format_shape(shape)}" for name, shape in sorted(shapes.items()))
        spans = "; ".join(
            ", ".join(f"{i.name}={format_shape(i.minimum)} to {format_shape(i.maximum)}" for i in one)
            for one in ranges
        )
        raise InputError(
            f"plan for sm{self.compute_capability}",
            detail=f"expected shapes inside of a profile ({spans}), found {found}",
            fix="Build it with a range that covers them: jettison build --shapes NAME=MIN,OPT,MAX",
        )


def identity_of(onnx: str, settings: str, *, module: str, version: str) -> str:
    """SHA-256 over these four, in hexadecimal."""
    text = "\n".join((onnx, settings, module, version))
    return hashlib.sha256(text.encode()).hexdigest()


def dotted(capability: int) -> str:
    """A compute capability as Triton writes it: 8.9 for 89, 12.0 for 120."""
    return f"{capability // 10}.{capability % 10}"


def undotted(text: str) -> int:
    """The compute capability that `dotted` writes so: 89 for 8.9."""
    return int(text.replace(".", ""))


def same_version(left: str, right: str) -> bool:
    """Whether two versions are one to TensorRT: those parts that both name are equal.

    Images name three parts or four of a version, and the module names three or more.
    """
    here, there = (version.partition("+")[0].split(".") for version in (left, right))
    common = max(3, min(len(here), len(there)))
    return here[:common] == there[:common]


def read_record(text: bytes, what: str) -> EngineRecord:
    """The record in that text.

    Raises:
        InputError: It is none.
    """
    try:
        return EngineRecord.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            what,
            detail=f"expected the record of an engine, found {error.error_count()} fields that do not fit",
            fix="Build the engine again: jettison build",
        ) from error
