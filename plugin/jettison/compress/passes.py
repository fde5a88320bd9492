"""The contract of a pass: model in, smaller model out, or a refusal with its reasons.

A pass is its configuration: a frozen pydantic model whose fields are the recipe's keys. It changes no
model that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.targets import Target


class Refusal(BaseModel):
    """Why a pass does not apply to a model and target, and what applies instead."""

    model_config = ConfigDict(frozen=True)

    reasons: tuple[str, ...]
    instead: str

    def __str__(self) -> str:
        return f"{'; '.join(self.reasons)}. {self.instead}"


@dataclass(frozen=True)
class Workpiece:
    """A model on its way through passes, and where it shall run.

    `model` is clean and must not be changed. `calibrate` measures activations; several variants of one
    model share one calibration through it.
    """

    model: ir.Model
    target: Target
    threads: int = 0
    progress: Progress | None = None
    calibrate: Callable[[ir.Model, Samples], Calibration] | None = None

    def calibration(self, samples: Samples) -> Calibration:
        """The histograms of the model's activations on these samples."""
        if self.calibrate is not None:
            return self.calibrate(self.model, samples)
        return calibrate(self.model, samples, threads=self.threads, progress=self.progress)


@dataclass(frozen=True)
class PassResult:
    """The new model, what was decided for each weighted layer, and remarks for the report."""

    model: ir.Model
    layers: tuple[LayerDecision, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class Pass(Protocol):
    """One way to make a model smaller or faster."""

    def check(self, piece: Workpiece) -> Refusal | None:
        """Why the pass does not apply, or None."""
        ...

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The new model; called only where `check` found no refusal."""
        ...
