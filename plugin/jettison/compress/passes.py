"""The contract of a pass: model in, smaller model out, or a refusal with its reasons.

A pass is its configuration: a frozen pydantic model whose fields are the recipe's keys. It changes no
model that it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.pruning.removed import PrunedLayer
from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.targets import Target
from jettison.core.tensors import TensorSpec

Figures = dict[str, float]
"""Named numbers that a search computes once and keeps."""


class Refusal(BaseModel):
    """Why a pass does not apply to a model and target, and what applies instead."""

    model_config = ConfigDict(frozen=True)

    reasons: tuple[str, ...]
    instead: str

    def __str__(self) -> str:
        return f"{'; '.join(self.reasons)}. {self.instead}"


@dataclass(frozen=True)
class Measurement:
    """What a joint evaluation of a model tells a search, on samples that the verdict never uses.

    `score_delta_low` is the lower bound of the paired interval on (model - baseline). `best_low` is the bound
    that a model without any difference would get: where it lies below the tolerance, there are too few
    samples to prove anything.
    """

    score_delta: float
    score_delta_low: float
    sqnr_db: float | None
    best_low: float = 0.0


class BoundModule(Protocol):
    """A torch module and how it takes the arrays of samples."""

    @property
    def what(self) -> str:
        """Names it in errors."""
        ...

    @property
    def module(self) -> Any:
        """The `torch.nn.Module`."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arrays, in the order of its inputs."""
        ...

    @property
    def arguments(self) -> Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Arguments of its call, of one value for each input."""
        ...


class Modules(Protocol):
    """The way of passes to torch modules that a recipe names by `package.module:function`."""

    def open(self, factory: str, state: Path | None, *, inputs: Collection[str], role: str) -> BoundModule:
        """A new module, in evaluation mode, bound to arrays of these names; errors name it by its role."""
        ...

    def export(
        self,
        factory: str,
        state: Path,
        *,
        samples: Samples,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
    ) -> ir.Model:
        """The module with these weights as a clean ONNX model, equal to it on some of the samples."""
        ...


@dataclass(frozen=True)
class Workpiece:
    """A model on its way through passes, and where it shall run.

    `model` is clean and must not be changed. `calibrate` measures activations; several variants of one
    model share one calibration through it. `measure` judges a model jointly, for passes that search;
    `remember` keeps figures by a key, so that a search that was broken off goes on where it stopped.
    `time_left_s` says how many seconds a search may still take; None where it may take its time. `training`
    are samples to learn from, `baseline` is the model before all passes, and `checkpoints` a folder of this
    pass alone, in which a training that is broken off leaves where it stood. `modules` opens the torch
    modules that passes name.
    """

    model: ir.Model
    target: Target
    threads: int = 0
    progress: Progress | None = None
    calibrate: Callable[[ir.Model, Samples], Calibration] | None = None
    measure: Callable[[ir.Model], Measurement] | None = None
    remember: Callable[[str, Callable[[], Figures]], Figures] | None = None
    tolerance: float = 0.01
    time_left_s: Callable[[], float] | None = None
    training: Samples | None = None
    baseline: ir.Model | None = None
    checkpoints: Path | None = None
    modules: Modules | None = None

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time that was given has run out."""
        return self.time_left_s is not None and self.time_left_s() <= 0

    def recalled(self, key: str, compute: Callable[[], Figures]) -> Figures:
        """The figures under that key, computed only where they are not kept yet."""
        return compute() if self.remember is None else self.remember(key, compute)

    def calibration(self, samples: Samples) -> Calibration:
        """The histograms of the model's activations on these samples."""
        if self.calibrate is not None:
            return self.calibrate(self.model, samples)
        return calibrate(self.model, samples, threads=self.threads, progress=self.progress)


@dataclass(frozen=True)
class PassResult:
    """The new model, what was decided for each weighted layer, and remarks for the report.

    `simulation` computes on this machine what the model computes on a GPU, where ONNX Runtime's CPU
    provider would not: it runs 16-bit floats in float32. `evaluations` counts the joint evaluations of a
    search. `warnings` are remarks that must not be overlooked; `is_cut_short` says that a search would have
    gone on with more time, so that this is not its last word. `counterpart` is the float model whose layers
    these stand for, where a pass changed what layers hand on before it quantized them. `pruned` tells of each
    weighted layer what a pass of pruning took away from it.
    """

    model: ir.Model
    layers: tuple[LayerDecision, ...] = ()
    notes: tuple[str, ...] = ()
    simulation: ir.Model | None = None
    evaluations: int = 0
    warnings: tuple[str, ...] = ()
    counterpart: ir.Model | None = None
    pruned: tuple[PrunedLayer, ...] = ()
    is_cut_short: bool = False


@runtime_checkable
class Pass(Protocol):
    """One way to make a model smaller or faster."""

    def check(self, piece: Workpiece) -> Refusal | None:
        """Why the pass does not apply, or None."""
        ...

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The new model; called only where `check` found no refusal."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A pass that learns from samples, by code and models that the recipe names."""

    def check_sources(self, training: Samples) -> None:
        """Nothing, where all that it will read is there: asked before any work.

        Raises:
            ModelError: A model or state dict that it names does not exist.
            SamplesError: A function that it names does not exist, or the samples lack what it learns from.
        """
        ...
