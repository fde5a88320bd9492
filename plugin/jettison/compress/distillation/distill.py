"""Distillation: a student is trained until it answers as its teacher does.

    loss = sum over the terms of the recipe of weight * term
    logits    T^2 KL(softmax(y_0 / T) || softmax(y / T)); other outputs |y - y_0|^2 / |y_0|^2
    labels    cross-entropy with the labels, or the mean squared error
    features, attention, relation: see `hints.py`
y is the student's answer, y_0 the teacher's, T the temperature (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jettison.compress.distillation.batches import Loss, Outputs, TensorBatch, as_tensors
from jettison.compress.distillation.feed import hold_out
from jettison.compress.distillation.hints import (
    Hinted,
    Pair,
    adapters_of,
    attention_loss,
    features_loss,
    paired,
    relation_loss,
)
from jettison.compress.distillation.losses import baseline_loss, class_scores, divergence, logs
from jettison.compress.distillation.student import NamedGraph, Student
from jettison.compress.distillation.teacher import OUTPUT, Teacher, answered
from jettison.compress.distillation.train import Lesson, Plan, Training, train
from jettison.compress.passes import Workpiece
from jettison.core.errors import ModelError, SamplesError
from jettison.core.samples import Batch, Samples, first
from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.classes import looks_like_classes

_EXAMPLES = 2


@dataclass(frozen=True)
class Course:
    """What a student learns, and how.

    `weights` are the terms of the loss that count, by name. `pairs` names layers of student and teacher;
    empty where they are chosen by depth. `labels` is the loss by labels, where `weights` has it. `key` names
    the settings.
    """

    weights: Mapping[str, float]
    temperature: float
    pairs: Mapping[str, str]
    labels: Loss | None
    outputs: tuple[TensorSpec, ...]
    plan: Plan
    key: str


@dataclass(frozen=True)
class Distilled:
    """How the training went, on how many samples, and by which layers."""

    training: Training
    learned: int
    held_out: int
    pairs: tuple[Pair, ...]


def distill(
    student: Student, teacher: Teacher, course: Course, training: Samples, *, piece: Workpiece
) -> Distilled:
    """Train the student, and leave it with the weights that did best on held-out samples.

    Raises:
        ModelError: No layers can be paired, or a layer of a pair does not exist.
    """
    hinting = {*course.weights} & {"features", "attention", "relation"}
    pairs = _pairs(student, teacher, course, hinting) if hinting else []
    learned, held_out = _split(training, course.plan)
    asks = hinting or "logits" in course.weights
    if asks:
        answer = teacher.answering([pair.teacher for pair in pairs])
        learned, held_out = answered(learned, answer), answered(held_out, answer)
    module = Hinted(student.module([pair.student for pair in pairs]), pairs)
    example = next(held_out.batches(_EXAMPLES))
    if asks:
        _check_teacher(teacher.what, example.inputs, course.outputs)
    if "features" in course.weights:
        module.adapters.extend(_adapters(module, pairs, example, student.inputs))
    lesson = Lesson(
        samples=learned,
        held_out=held_out,
        inputs=student.inputs,
        outputs=tuple(spec.name for spec in course.outputs),
        loss=_weighted(dict(_terms(student, teacher, course, module)), course.weights),
        key=course.key,
        after_step=_put_back(module),
    )
    found = train(module, lesson, course.plan, checkpoints=piece.checkpoints, progress=piece.progress)
    return Distilled(found, learned.count, held_out.count, tuple(pairs))


def _split(training: Samples, plan: Plan) -> tuple[Samples, Samples]:
    """Samples to learn from and to judge by; none is left alone in a last batch.

    A batch of one sample has no variance for a student's BatchNormalization to learn from.
    """
    learned, held_out = hold_out(training, seed=plan.seed)
    if plan.batch_size > 1 and learned.count % plan.batch_size == 1 and learned.count > 1:
        learned = first(learned, learned.count - 1)
    return learned, held_out


def _pairs(student: Student, teacher: Teacher, course: Course, hinting: set[str]) -> list[Pair]:
    named = [Pair(student.tap(mine), teacher.tap(theirs)) for mine, theirs in course.pairs.items()]
    pairs = named or paired(student.taps(), teacher.taps())
    if "attention" in hinting and not any(pair.student.rank > 2 for pair in pairs):
        raise _no_pairs("attention", "layers that give maps", pairs)
    if not pairs:
        raise _no_pairs(" and ".join(sorted(hinting)), "layers of equal rank in student and teacher", pairs)
    for pair in pairs:
        if pair.student.rank != pair.teacher.rank:
            raise ModelError(
                f"pair {pair}",
                detail=f"expected values of equal rank, found {pair.student.rank} and {pair.teacher.rank}",
                fix="Pair maps with maps, and vectors with vectors",
            )
    return pairs


def _no_pairs(terms: str, expected: str, pairs: Sequence[Pair]) -> ModelError:
    found = ", ".join(map(str, pairs)) or "none"
    return ModelError(
        f"losses: {terms}",
        detail=f"expected {expected}, found {found}",
        fix="Name them under `pairs`, student first, or leave this term out",
    )


def _check_teacher(what: str, arrays: Arrays, outputs: Sequence[TensorSpec]) -> None:
    """Nothing, where the teacher's answers have the shapes of the student's."""
    for spec in outputs:
        found = arrays[f"{OUTPUT}{spec.name}"]
        problem = spec.mismatch(found.shape) if spec.has_dynamic_batch else None
        if problem is not None:
            raise ModelError(
                what,
                detail=f"output {spec.name!r}: {problem}",
                fix="Give a teacher for the same task: as many classes, the same outputs",
            )


def _adapters(
    module: Hinted, pairs: Sequence[Pair], example: Batch, inputs: Sequence[str]
) -> Iterator[torch.nn.Module]:
    """Adapters for the student's taps, by what both give to an example."""
    batch = as_tensors(example, torch.device("cpu"))
    module.eval()
    with torch.no_grad():
        found = module(*(batch.inputs[name] for name in inputs))
    yield from adapters_of(pairs, found, batch.inputs)


def _terms(
    student: Student, teacher: Teacher, course: Course, module: Hinted
) -> Iterator[tuple[str, Callable[[Outputs, TensorBatch], Tensor]]]:
    yield "logits", _logits_loss(course, student_shares=student.is_shares, teacher_shares=teacher.is_shares)
    if course.labels is not None:
        yield "labels", course.labels
    yield "features", features_loss(module)
    yield "attention", attention_loss(module.pairs)
    yield "relation", relation_loss(module.pairs)


def _logits_loss(course: Course, *, student_shares: bool, teacher_shares: bool) -> Loss:
    """The distance from the teacher's answers, which each batch carries."""
    decides = looks_like_classes(course.outputs)
    names = [spec.name for spec in course.outputs]

    def carried(batch: Batch) -> Arrays:
        return {name: batch.inputs[f"{OUTPUT}{name}"] for name in names}

    others = baseline_loss(carried, course.outputs, temperature=course.temperature)

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        own = {name: outputs[name] for name in names}
        wanted = class_scores({name: batch.inputs[f"{OUTPUT}{name}"] for name in names}) if decides else None
        scores = class_scores(own) if decides else None
        if scores is None or wanted is None:
            return others(own, batch)
        pair = (logs(scores) if student_shares else scores, logs(wanted) if teacher_shares else wanted)
        return divergence(*pair, temperature=course.temperature)

    return loss


def _weighted(terms: Mapping[str, Loss], weights: Mapping[str, float]) -> Loss:
    """The sum of the terms that count, each times its weight."""
    lacking = [name for name in weights if name not in terms]
    if lacking:
        raise SamplesError(
            "training samples", detail=f"no loss for {', '.join(lacking)}", fix="Add an array 'labels'"
        )

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        return torch.stack([weight * terms[name](outputs, batch) for name, weight in weights.items()]).sum()

    return loss


def _put_back(module: Hinted) -> Callable[[float], None] | None:
    inner = module.student
    return (lambda _share: inner.project()) if isinstance(inner, NamedGraph) else None
