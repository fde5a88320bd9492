"""What goes between a build and the child process that holds the builder, as JSON files."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from jettison.engines.tensorrt.exchange import InputProblem, LogLine
from jettison.engines.tensorrt.gpu import Gpu
from jettison.engines.tensorrt.module import ModuleName
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.settings import BuildSettings
from jettison.engines.tensorrt.shapes import ShapeRange


class BuildRequest(BaseModel):
    """One engine to build. Paths are absolute; `profiles` are given ranges, one tuple for each profile."""

    model_config = ConfigDict(frozen=True)

    model: Path
    module: ModuleName
    compute_capability: int
    profiles: tuple[tuple[ShapeRange, ...], ...]
    settings: BuildSettings
    plan: Path
    timing_cache: Path | None
    answer: Path
    progress: Path


class BuildAnswer(BaseModel):
    """What became of it. `missing` tells why nothing could be built here; all else is then empty.

    `cached` says whether a timing cache of an earlier build was used.
    """

    model_config = ConfigDict(frozen=True)

    version: str | None = None
    gpu: Gpu | None = None
    missing: str | None = None
    problem: InputProblem | None = None
    refusals: tuple[RefusedNode, ...] = ()
    profiles: tuple[tuple[ShapeRange, ...], ...] = ()
    log: tuple[LogLine, ...] = ()
    seconds: float = 0.0
    cached: bool = False


class BuildStep(BaseModel):
    """How far a phase of the builder is; one line of the progress file."""

    model_config = ConfigDict(frozen=True)

    phase: str
    done: int
    total: int
