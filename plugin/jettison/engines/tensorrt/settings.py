"""The settings of a build, and how they are told to the builder of either module.

TensorRT's setters do not raise: they log an error and go on. So the log is read after each of them, and what
did not hold is told by the setting's own name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jettison.engines.tensorrt.exchange import LogLine
from jettison.engines.tensorrt.report import RefusedNode

Compatibility = Literal["none", "ampere-plus", "same-capability"]
_LEVELS: dict[Compatibility, str] = {
    "none": "NONE",
    "ampere-plus": "AMPERE_PLUS",
    "same-capability": "SAME_COMPUTE_CAPABILITY",
}
MIB = 1 << 20


class BuildSettings(BaseModel):
    """How an engine shall be built; its JSON is part of the engine's identity.

    Args:
        level: The builder's optimization level, 0 (fast build) to 5 (fast engine).
        workspace_mib: The most memory that a layer may use while it runs; None for all there is.
        compatibility: Which other GPUs shall take the plan, at a price in speed.
        version_compatible: Whether later versions of TensorRT shall take it. It runs code of its own.
        sparse: Whether sparse kernels may be used, since some weights are 2:4.
    """

    model_config = ConfigDict(frozen=True)

    level: int = Field(3, ge=0, le=5)
    workspace_mib: int | None = Field(None, gt=0)
    compatibility: Compatibility = "none"
    version_compatible: bool = False
    sparse: bool = False


def apply(trt: ModuleType, config: Any, settings: BuildSettings, log: Sequence[LogLine]) -> list[RefusedNode]:
    """Tell the builder all settings; what it did not take, each by its name."""
    return [
        refusal
        for name, step in _steps(trt, config, settings)
        if (refusal := run_step(name, step, log)) is not None
    ]


def run_step(name: str, step: Callable[[], object], log: Sequence[LogLine]) -> RefusedNode | None:
    """What the builder logged against one step, or that its module has no such thing."""
    before = len(log)
    try:
        done = step()
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        # pybind11 raises these for a name, a type or a value that this version does not know.
        return RefusedNode(code="SETTING", description=f"{name}: {error}")
    errors = [line.text for line in log[before:] if line.severity == "error"]
    if errors or done is False:
        return RefusedNode(code="SETTING", description=f"{name}: {'; '.join(errors) or 'not taken'}")
    return None


Step = tuple[str, Callable[[], object]]


def _steps(trt: ModuleType, config: Any, settings: BuildSettings) -> list[Step]:
    flags = trt.BuilderFlag
    steps: list[Step] = [
        ("builder level", lambda: _set(config, "builder_optimization_level", settings.level))
    ]
    if settings.workspace_mib is not None:
        size = settings.workspace_mib * MIB
        pool = trt.MemoryPoolType.WORKSPACE
        steps.append(("workspace limit", lambda: config.set_memory_pool_limit(pool, size)))
    if settings.compatibility != "none":
        steps.append(("hardware compatibility", lambda: _set_level(trt, config, settings.compatibility)))
    if settings.version_compatible:
        steps.append(("version compatibility", lambda: _set_flag(config, flags.VERSION_COMPATIBLE)))
    if settings.sparse:
        steps.append(("sparse weights", lambda: _set_flag(config, flags.SPARSE_WEIGHTS)))
    return steps


def _set(config: Any, name: str, value: object) -> bool:
    """Whether the value stands after it was set."""
    setattr(config, name, value)
    return bool(getattr(config, name) == value)


def _set_flag(config: Any, flag: Any) -> bool:
    config.set_flag(flag)
    return bool(config.get_flag(flag))


def _set_level(trt: ModuleType, config: Any, wanted: Compatibility) -> bool:
    return _set(
        config, "hardware_compatibility_level", getattr(trt.HardwareCompatibilityLevel, _LEVELS[wanted])
    )
