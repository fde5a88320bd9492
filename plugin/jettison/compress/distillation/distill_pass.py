"""The passes `{distill: {student: ...}}` and `{distill: {shrink: ...}}`: a small model learns from a large.

The teacher is the model before all passes, unless the recipe names another. The student takes the model's
place: the same inputs, the same outputs, and the passes behind work on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from jettison.compress.distillation.distill_settings import DEFAULT_LOSSES, HINTS, Factory, Losses, Shrink
from jettison.compress.distillation.door import load_torch, torch_threads
from jettison.compress.distillation.shrink import shrunk
from jettison.compress.passes import Modules, PassResult, Refusal, Workpiece
from jettison.core.batching import fixed_batch_size, padded
from jettison.core.code import code_digest
from jettison.core.errors import ModelError, SamplesError
from jettison.core.files import sha256_of
from jettison.core.samples import Samples, names_function
from jettison.core.tensors import Arrays
from jettison.core.validation import ImpossibleValueError
from jettison.engines.onnxruntime import runner_of
from jettison.graph.model import input_specs, model_digest, open_model, output_specs

if TYPE_CHECKING:
    from jettison.compress.distillation.batches import Loss
    from jettison.compress.distillation.distill import Course, Distilled
    from jettison.compress.distillation.student import Student
    from jettison.compress.distillation.teacher import Teacher
    from jettison.compress.distillation.train import Plan

_RATES = {"adamw": 1e-3, "sgd": 1e-2}
"""Learning rates where none is given, for networks that begin with chance or with a part of their weights.
Source of the first: Kingma and Ba 2014 (arXiv 1412.6980), algorithm 1."""
_EXAMPLES = 2


class Distill(BaseModel):
    """What both passes share; `teacher` is no part of what identifies the result, its content is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distill: Literal["student", "shrink"]
    teacher: str | None = Field(default=None, exclude=True)
    teacher_state: Path | None = Field(default=None, exclude=True)
    losses: Losses | None = None
    pairs: dict[str, str] = {}
    temperature: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_effect(self) -> Distill:
        counted = {} if self.losses is None else self.losses.counted
        if self.losses is not None and not counted:
            raise ImpossibleValueError(
                "losses: expected a weight above 0, found none", fix="Write losses: {logits: 1}"
            )
        if self.pairs and not counted.keys() & {*HINTS}:
            raise ImpossibleValueError(
                "pairs has no effect: no loss looks at layers",
                fix=f"Give one of {', '.join(HINTS)} a weight",
            )
        if self.teacher_state is not None and not (self.teacher and names_function(self.teacher)):
            raise ImpossibleValueError(
                "teacher_state has no effect without a teacher as package.module:function",
                fix="Leave it out, or name the function that makes the teacher",
            )
        if "temperature" in self.model_fields_set and counted and "logits" not in counted:
            raise ImpossibleValueError(
                "temperature has no effect without the loss logits",
                fix="Leave it out, or give logits a weight",
            )
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def teacher_digest(self) -> str:
        """The content of a teacher that the recipe names, so that another one teaches anew.

        One that is not there has none: `check_sources` tells of it, and no text of a pass fails for it.
        """
        if self.teacher is None:
            return ""
        if not names_function(self.teacher):
            with contextlib.suppress(ModelError):
                return model_digest(Path(self.teacher))
            return ""
        state = self.teacher_state
        content = sha256_of(state) if state is not None and state.is_file() else ""
        return f"{self.teacher} {code_digest(self.teacher)} {content}"

    @property
    def libraries(self) -> tuple[str, ...]:
        """What else its result depends on."""
        return ("torch",)

    def located(self, folder: Path) -> Distill:
        """The pass with relative paths taken from that folder."""
        update: dict[str, str | Path] = {}
        if self.teacher is not None and not names_function(self.teacher):
            update["teacher"] = str(folder / self.teacher)
        if self.teacher_state is not None:
            update["teacher_state"] = folder / self.teacher_state
        return self.model_copy(update=update)

    def check_sources(self, training: Samples) -> None:
        """Looks at the teacher, its weights, and what there is to learn.

        Raises:
            ModelError: There is no such teacher, it is no ONNX model, or its weights are not there.
            SamplesError: Labels alone have a weight, and the samples have none.
        """
        if self.teacher is not None and not names_function(self.teacher):
            _require_file(f"teacher {self.teacher}", Path(self.teacher))
            open_model(Path(self.teacher))
        if self.teacher_state is not None:
            _require_file(f"teacher_state {self.teacher_state}", self.teacher_state)
        if not self._weights(training):
            raise SamplesError(
                f"samples {training.source}",
                detail="expected labels, which alone have a weight in losses, found none",
                fix="Add an array 'labels' to them, or give logits a weight",
            )

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses missing samples, outputs that nothing can be learned from, and a student that is none.

        Raises:
            MissingError: torch is not installed.
            SamplesError: The labels are none that the loss can read.
        """
        if piece.training is None:
            return Refusal(
                reasons=("it needs training samples, and there are none",),
                instead="Give them: samples.training in the recipe, or --training",
            )
        if not any(spec.dtype.is_float for spec in output_specs(piece.model)):
            return Refusal(
                reasons=("none of its outputs is a floating point number",),
                instead="Let the model give its scores too, or leave this pass out",
            )
        load_torch()
        labels = self._labels(piece, piece.training)
        return labels if isinstance(labels, Refusal) else self._refusal(piece)

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The trained student; notes tell how its loss on held-out samples fell."""
        del samples
        torch = load_torch()
        from jettison.compress.distillation.distill import distill

        if piece.training is None:
            raise ValueError("distill: called though it was refused")
        with torch_threads(piece.threads), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            student, teacher = self._student(piece), self._teacher(piece)
            found = distill(student, teacher, self._course(piece), piece.training, piece=piece)
            model = student.model()
        return PassResult(model, notes=tuple(self._notes(piece, teacher.what, found)), counterpart=model)

    def _refusal(self, piece: Workpiece) -> Refusal | None:
        raise NotImplementedError

    def _student(self, piece: Workpiece) -> Student:
        raise NotImplementedError

    @property
    def _told(self) -> str:
        raise NotImplementedError

    def _teacher(self, piece: Workpiece) -> Teacher:
        from jettison.compress.distillation.teacher import GraphTeacher, ModuleTeacher, graph_teacher

        baseline = _baseline(piece)
        inputs = tuple(spec.name for spec in input_specs(baseline))
        outputs = tuple(spec.name for spec in output_specs(baseline))
        if self.teacher is None:
            return GraphTeacher("the model before all passes", baseline, outputs, piece.threads)
        if not names_function(self.teacher):
            return graph_teacher(Path(self.teacher), outputs, inputs=inputs, threads=piece.threads)
        bound = modules_of(piece).open(self.teacher, self.teacher_state, inputs=inputs, role="teacher")
        return ModuleTeacher(f"teacher {self.teacher}", bound, outputs, example_of(piece))

    def _course(self, piece: Workpiece) -> Course:
        from jettison.compress.distillation.distill import Course

        training = _training(piece)
        labels = self._labels(piece, training)
        return Course(
            weights=self._weights(training),
            temperature=self.temperature,
            pairs=self.pairs,
            labels=None if isinstance(labels, Refusal) else labels,
            outputs=output_specs(_baseline(piece)),
            plan=self._plan(piece),
            key=self.model_dump_json(),
        )

    def _weights(self, training: Samples) -> dict[str, float]:
        """The terms that count: labels only where the samples have them."""
        losses = self.losses or DEFAULT_LOSSES
        return {
            name: weight for name, weight in losses.counted.items() if name != "labels" or training.has_labels
        }

    def _labels(self, piece: Workpiece, training: Samples) -> Loss | Refusal | None:
        """The loss by labels, None where it does not count, or why there is none."""
        from jettison.compress.distillation.losses import labels_loss

        weights = self._weights(training)
        if not weights:
            return Refusal(
                reasons=("only labels have a weight, and the training samples have none",),
                instead="Add an array 'labels' to them, or give logits a weight",
            )
        return labels_loss(_baseline(piece), training) if "labels" in weights else None

    def _plan(self, piece: Workpiece) -> Plan:
        from jettison.compress.distillation.train import Plan

        fixed = fixed_batch_size(input_specs(piece.model))
        return Plan(
            epochs=self.epochs,
            batch_size=self.batch_size if fixed is None else max(self.batch_size // fixed, 1) * fixed,
            learning_rate=self.learning_rate or _RATES[self.optimizer],
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            seed=self.seed,
            patience=self.patience,
            micro_batch=fixed,
            is_fixed=fixed is not None,
        )

    def _notes(self, piece: Workpiece, teacher: str, found: Distilled) -> Iterator[str]:
        losses, training = found.training.held_out_losses, found.training
        weights = self._weights(_training(piece))
        terms = ", ".join(f"{weight:g} {name}" for name, weight in weights.items())
        yield f"{self._told} learned from {teacher} by {terms}"
        told = f"loss on {found.held_out} held-out samples {losses[0]:.4g} before"
        after = f"{losses[training.best_epoch]:.4g} after epoch {training.best_epoch} of {self.epochs}"
        yield f"trained on {found.learned} samples: {told}, {after}"
        if training.is_diverged:
            yield (
                f"training diverged after {training.steps} steps: its loss was no number any more; give a "
                "smaller learning_rate"
            )
        if self.losses is not None and self.losses.labels and "labels" not in weights:
            yield "the training samples have no labels: that term was left out"
        if found.pairs:
            yield f"layers learned: {'; '.join(map(str, found.pairs))}"


class DistillStudent(Distill):
    """A torch module of the user's own learns from the model."""

    distill: Literal["student"] = "student"
    student: Factory

    @computed_field  # type: ignore[prop-decorator]
    @property
    def student_code(self) -> str:
        """The code that makes the student, so that an edited one learns anew."""
        return code_digest(self.student)

    @property
    def _told(self) -> str:
        return f"student {self.student}"

    def _refusal(self, piece: Workpiece) -> Refusal | None:
        if piece.modules is not None:
            return None
        return Refusal(
            reasons=("no torch modules can be opened here",), instead="Run it with jettison run or compress"
        )

    def _student(self, piece: Workpiece) -> Student:
        from jettison.compress.distillation.losses import ends_in_softmax
        from jettison.compress.distillation.student import Exam, ModuleStudent

        baseline, example = _baseline(piece), example_of(piece)
        answers = runner_of(baseline, threads=piece.threads).run(example)
        exam = Exam(baseline, example, answers, _training(piece), ends_in_softmax(baseline.graph))
        bound = modules_of(piece).open(self.student, None, inputs=tuple(example), role="student")
        student = ModuleStudent(self.student, bound, modules_of(piece), exam)
        student.model()  # one that cannot be exported is told before the training, and not after it
        return student


class DistillShrink(Distill):
    """A narrower form of the model learns from the model."""

    distill: Literal["shrink"] = "shrink"
    shrink: Shrink

    @property
    def _told(self) -> str:
        return f"the model with {self.shrink.width:g} of the channels of its layers"

    def _refusal(self, piece: Workpiece) -> Refusal | None:
        from jettison.compress.distillation.graph_module import graph_module

        small = shrunk(piece.model, self.shrink.width)
        found = small if isinstance(small, Refusal) else graph_module(small)
        return found if isinstance(found, Refusal) else None

    def _student(self, piece: Workpiece) -> Student:
        from jettison.compress.distillation.student import GraphStudent

        small = shrunk(piece.model, self.shrink.width)
        if isinstance(small, Refusal):
            raise ValueError("distill: called though it was refused")
        return GraphStudent(small)


def modules_of(piece: Workpiece) -> Modules:
    """The way to torch modules.

    Raises:
        ModelError: There is none.
    """
    if piece.modules is None:
        raise ModelError(
            "distill",
            detail="no torch modules can be opened here",
            fix="Run it with jettison run or compress",
        )
    return piece.modules


def example_of(piece: Workpiece) -> Arrays:
    """Inputs of two training samples, or as many as the model's fixed batch has."""
    size = fixed_batch_size(input_specs(_baseline(piece))) or _EXAMPLES
    return padded(next(_training(piece).batches(size)).inputs, size)


def _baseline(piece: Workpiece) -> ir.Model:
    return piece.model if piece.baseline is None else piece.baseline


def _training(piece: Workpiece) -> Samples:
    if piece.training is None:
        raise ValueError("distill: without samples, called though it was refused")
    return piece.training


def _require_file(what: str, path: Path) -> None:
    if not path.is_file():
        raise ModelError(what, detail="expected a file, found no such file", fix="Correct its path")
