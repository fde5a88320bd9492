"""What goes between the preflight and the child process that holds the compiler, as JSON files.

Files and not pipes, since the compiler's native code prints to stdout and stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import InputError, ModelError
from jettison.engines.tensorrt.module import ModuleName
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.shapes import ShapeRange

Severity = Literal["error", "warning", "info", "verbose"]


class LogLine(BaseModel):
    """One message of the compiler that is worth keeping; a message may span several lines."""

    model_config = ConfigDict(frozen=True)

    severity: Severity
    text: str


class InputProblem(BaseModel):
    """An input error found in the child, to be raised in the parent."""

    model_config = ConfigDict(frozen=True)

    about: Literal["model", "shapes"]
    what: str
    detail: str
    fix: str

    def error(self) -> InputError:
        """The error to raise."""
        kind = ModelError if self.about == "model" else InputError
        return kind(self.what, detail=self.detail, fix=self.fix)


class CompileRequest(BaseModel):
    """One model to compile for one GPU. Paths are absolute.

    `sparse` says that some layer's weights are 2:4, so that sparse kernels may be used.
    """

    model_config = ConfigDict(frozen=True)

    model: Path
    module: ModuleName
    compute_capability: int
    shapes: tuple[ShapeRange, ...]
    answer: Path
    sparse: bool = False


class CompileAnswer(BaseModel):
    """What the compiler said. `missing` tells why the module could not be loaded; all else is then empty.

    `sparse` says whether sparse kernels were allowed.
    """

    model_config = ConfigDict(frozen=True)

    version: str | None = None
    missing: str | None = None
    problem: InputProblem | None = None
    refusals: tuple[RefusedNode, ...] = ()
    built: bool = False
    shapes: tuple[ShapeRange, ...] = ()
    log: tuple[LogLine, ...] = ()
    sparse: bool = False
