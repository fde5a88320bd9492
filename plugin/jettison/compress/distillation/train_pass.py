"""The passes `{train: labels}` and `{train: baseline}`: training of the graph as it is, Q/DQ pairs included.

On a float graph it is fine-tuning, on a pruned one the zeros stay, on a quantized one it is
quantization-aware training: what is trained computes exactly what is shipped.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from jettison.compress.distillation.door import load_torch, torch_threads
from jettison.compress.distillation.feed import hold_out
from jettison.compress.distillation.ramp_report import ramp_report
from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.pruning.removed import PrunedLayer, summary
from jettison.core.batching import fixed_batch_size
from jettison.core.code import code_digest
from jettison.core.errors import SamplesError
from jettison.core.runner import Runner
from jettison.core.samples import Batch, Samples, load_function
from jettison.core.tensors import Arrays
from jettison.core.validation import ImpossibleValueError
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.figures import counted
from jettison.graph.model import input_specs, output_specs

if TYPE_CHECKING:
    from jettison.compress.distillation.batches import Loss
    from jettison.compress.distillation.graph_module import GraphModule
    from jettison.compress.distillation.train import Lesson, Plan, Training

_RATES = {4: 3e-4, 8: 3e-5}
_FLOAT_RATE = 1e-3
"""Learning rates of AdamW by the bits of stored weights, and where there are none. The finer the steps of a
weight, the more a step of training throws it about: of a CNN in INT8 (35.6 dB) one epoch made 39.7 dB at
3e-5 and nothing better at 3e-4; of an encoder in INT4 (11.2 dB) two made 12.5 at 1e-4, 13.1 at 3e-4 and
nothing better at 1e-3. A float CNN of which nine tenths were cut off came to 88.6 % at 1e-3."""
_SGD_FACTOR = 10.0


class TrainModel(BaseModel):
    """Gradient descent on the graph's own weights, and on the scales of its quantization."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Literal["labels", "baseline"]
    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    loss: str | None = None
    patience: int | None = Field(default=None, ge=1)
    learn_scales: bool = True
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    criterion: Literal["magnitude", "taylor"] = "magnitude"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _criterion_of_a_sparsity(self) -> TrainModel:
        if self.sparsity is None and "criterion" in self.model_fields_set:
            raise ImpossibleValueError(
                "criterion has no effect without sparsity", fix="Leave it out, or write sparsity: 0.8"
            )
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def loss_code(self) -> str:
        """The code of the user's own loss, so that an edited one trains anew; empty where there is none."""
        return "" if self.loss is None else code_digest(self.loss)

    @property
    def libraries(self) -> tuple[str, ...]:
        """What else its result depends on."""
        return ("torch",)

    def check_sources(self, training: Samples) -> None:
        """Looks at the loss and the labels.

        Raises:
            SamplesError: There is no such loss, or the samples have no labels to learn.
        """
        if self.loss is not None:
            load_function(self.loss)
        if self.train == "labels" and not training.has_labels:
            raise SamplesError(
                f"samples {training.source}",
                detail="expected labels, which {train: labels} learns, found none",
                fix="Add an array 'labels' to them, or use {train: baseline}, which needs none",
            )

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses missing samples or labels, and a graph that cannot be trained through.

        Raises:
            MissingError: torch is not installed.
            SamplesError: The labels are none that the loss can read.
            RecipeError: There is no such loss.
        """
        if piece.training is None:
            return Refusal(
                reasons=("it needs training samples, and there are none",),
                instead="Give them: samples.training in the recipe, or --training",
            )
        if self.train == "labels" and not piece.training.has_labels:
            return Refusal(
                reasons=("the training samples have no labels",),
                instead="Add an array 'labels' to them, or use {train: baseline}, which needs none",
            )
        load_torch()
        from jettison.compress.distillation.graph_module import graph_module

        found = graph_module(piece.model, learn_scales=self.learn_scales)
        if isinstance(found, Refusal):
            return found
        if self.sparsity is not None and len(found.stored):
            return Refusal(
                reasons=("sparsity: the model is quantized, and its integers are not pruned any more",),
                instead="Write it before the pass that quantizes, where training keeps the zeros behind it",
            )
        loss = self._loss(piece, piece.training)
        return loss if isinstance(loss, Refusal) else None

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The trained model; notes tell how the loss on held-out samples fell."""
        del samples
        load_torch()
        from jettison.compress.distillation.train import train
        from jettison.compress.distillation.write_back import trained_model

        taught = self._taught(piece)
        with torch_threads(piece.threads):
            found = train(
                taught.module,
                taught.lesson,
                self._plan(piece, taught.module),
                checkpoints=piece.checkpoints,
                progress=piece.progress,
            )
        model = trained_model(piece.model, taught.module)
        pruned = self._pruned(piece.model, model, taught)
        return PassResult(
            model,
            notes=(*_notes(self, taught, found), *(summary(pruned) if pruned else ())),
            warnings=tuple(_warnings(self, found)),
            pruned=pruned,
        )

    def _pruned(self, before: ir.Model, after: ir.Model, taught: _Taught) -> tuple[PrunedLayer, ...]:
        """What was removed while training, layer by layer; nothing without a sparsity."""
        if self.sparsity is None:
            return ()
        reason = f"while training, to {self.sparsity:.1%} of all weights, by the least {self.criterion}"
        return ramp_report(before, after, taught.ramped, reason=reason)

    def _taught(self, piece: Workpiece) -> _Taught:
        from jettison.compress.distillation.graph_module import graph_module
        from jettison.compress.distillation.masks import graph_masks
        from jettison.compress.distillation.ramp import Ramp, first_pruned_epoch
        from jettison.compress.distillation.train import Lesson

        training = _given(piece)
        module, loss = graph_module(piece.model, learn_scales=self.learn_scales), self._loss(piece, training)
        if isinstance(module, Refusal) or isinstance(loss, Refusal):
            raise ValueError(f"{self.train}: called though it was refused")
        masks = graph_masks(module)

        ramp = None if self.sparsity is None else Ramp(module, self.sparsity, self.criterion)

        def put_back(share: float) -> None:
            masks.apply()
            module.project()
            if ramp is not None:
                ramp.after_step(share)

        learned, held_out = hold_out(training, seed=self.seed)
        lesson = Lesson(
            samples=learned,
            held_out=held_out,
            inputs=module.input_names,
            outputs=module.output_names,
            loss=loss,
            key=self.model_dump_json(),
            after_step=put_back,
            first_epoch=0 if self.sparsity is None else first_pruned_epoch(self.epochs),
        )
        ramped = () if ramp is None else ramp.names
        return _Taught(module, lesson, pruned=len(masks.pairs), ramped=ramped)

    def _loss(self, piece: Workpiece, training: Samples) -> Loss | Refusal:
        from jettison.compress.distillation import losses

        if self.loss is not None:
            return losses.own_loss(self.loss)
        if self.train == "labels":
            return losses.labels_loss(piece.model, training)
        baseline = piece.baseline if piece.baseline is not None else piece.model
        specs = output_specs(piece.model)
        if not any(spec.dtype.is_float for spec in specs):
            return Refusal(
                reasons=("none of its outputs is a floating point number",),
                instead="Let the model give its scores too, or leave this pass out",
            )

        @functools.cache
        def runner() -> Runner:
            return runner_of(baseline, threads=piece.threads)

        def answer(batch: Batch) -> Arrays:
            return runner().run(batch.inputs)

        is_softmax = losses.ends_in_softmax(piece.model.graph)
        return losses.baseline_loss(answer, specs, temperature=self.temperature, is_softmax=is_softmax)

    def _plan(self, piece: Workpiece, module: GraphModule) -> Plan:
        from jettison.compress.distillation.train import Plan

        fixed = fixed_batch_size(input_specs(piece.model))
        return Plan(
            epochs=self.epochs,
            batch_size=self.batch_size if fixed is None else max(self.batch_size // fixed, 1) * fixed,
            learning_rate=self.learning_rate or self._rate(module),
            optimizer=self.optimizer,
            seed=self.seed,
            patience=self.patience,
            micro_batch=fixed,
            is_fixed=fixed is not None,
        )

    def _rate(self, module: GraphModule) -> float:
        """The learning rate where none is given."""
        bits = min((origin.bits for origin in module.origins if origin.is_matrix), default=32)
        rate = next((rate for most, rate in _RATES.items() if bits <= most), _FLOAT_RATE)
        return rate * (_SGD_FACTOR if self.optimizer == "sgd" else 1.0)


@dataclass(frozen=True)
class _Taught:
    """What is trained, and by what.

    `pruned` is how many layers keep their zeros, `ramped` names the weights that are pruned meanwhile.
    """

    module: GraphModule
    lesson: Lesson
    pruned: int
    ramped: tuple[str, ...] = ()


def _given(piece: Workpiece) -> Samples:
    if piece.training is None:
        raise ValueError("training without samples: called though it was refused")
    return piece.training


def _notes(step: TrainModel, taught: _Taught, found: Training) -> Iterator[str]:
    """How it went, in words."""
    losses, lesson = found.held_out_losses, taught.lesson
    epochs = counted(len(found.train_losses), "epoch")
    samples, others = counted(lesson.samples.count, "sample"), counted(lesson.held_out.count, "other")
    by = (
        "by your loss"
        if step.loss
        else "by labels"
        if step.train == "labels"
        else "by the baseline's answers"
    )
    told = f"trained {by} for {epochs} on {samples}: loss on {others}"
    start = f"{losses[0]:.4g} before" + ("" if step.sparsity is None else " anything was removed")
    if found.best_epoch:
        yield f"{told} {start}, {losses[found.best_epoch]:.4g} after epoch {found.best_epoch}"
    else:
        yield f"{told} {start} and never less after: the weights are as they were"
    stored = len(taught.module.stored)
    if stored:
        scales = f"{len(taught.module.scales.logs)} scales learned" if step.learn_scales else "scales kept"
        yield f"trained through quantization: {stored} stored weights rounded at each step, {scales}"
    if taught.pruned:
        yield f"zeros kept in {taught.pruned} pruned weights"


def _warnings(step: TrainModel, found: Training) -> Iterator[str]:
    """What must not be overlooked: a training that came to nothing, a model that is still dense."""
    if found.is_diverged:
        yield (
            f"training diverged after {found.steps} steps: its loss was no number any more; give a smaller "
            "learning_rate"
        )
    if step.sparsity is not None and not found.best_epoch:
        yield (
            f"nothing was removed while training, expected {step.sparsity:.1%} of the weights: no epoch "
            "after the ramp had a loss that is a number; the weights are as they were"
        )
