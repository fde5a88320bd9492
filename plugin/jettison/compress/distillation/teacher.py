"""A model that a student learns from: it answers, and is not trained.

Its answers are put beside the samples, as arrays of the same batches: so they go wherever the samples go,
and are computed in the order of the samples' source, whenever a training stops and goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from jettison.compress.distillation import module_taps
from jettison.compress.distillation.batches import rows_of
from jettison.compress.distillation.borders import holds_shares
from jettison.compress.distillation.graph_taps import Tap, graph_taps, named_tap, with_taps
from jettison.compress.distillation.hints import LAYER
from jettison.compress.distillation.losses import ends_in_softmax
from jettison.compress.passes import BoundModule
from jettison.core.batching import fixed_batch_size, padded
from jettison.core.errors import ModelError
from jettison.core.runner import Runner
from jettison.core.samples import Batch, Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model, output_specs

OUTPUT = "teacher output "
"""Before the name of an output: the name under which a batch carries what the teacher answered."""
PIECE = 64
"""Samples that a teacher gets at once: memory for its inner values stays small."""
KEPT_BYTES = 1 << 28
"""Answers up to this size are kept after the first reading; beyond it they are computed anew each time."""

Answering = Callable[[Arrays], Arrays]


class Teacher(Protocol):
    """What can be learned from: its answers under the baseline's names, and its layers."""

    @property
    def what(self) -> str:
        """The teacher in words."""
        ...

    @property
    def is_shares(self) -> bool:
        """Whether its class scores are probabilities."""
        ...

    def taps(self) -> list[Tap]:
        """Its layers by depth."""
        ...

    def tap(self, name: str) -> Tap:
        """The layer of that name."""
        ...

    def answering(self, taps: Sequence[Tap]) -> Answering:
        """Gives its outputs, and these layers by number, for the inputs of some samples."""
        ...


@dataclasses.dataclass(frozen=True)
class GraphTeacher:
    """An ONNX model, run by ONNX Runtime. `outputs` are the baseline's names."""

    what: str
    model: ir.Model
    outputs: tuple[str, ...]
    threads: int = 0

    @property
    def is_shares(self) -> bool:
        """Whether its class scores come from a Softmax."""
        return ends_in_softmax(self.model.graph)

    def taps(self) -> list[Tap]:
        """Its layers by depth."""
        return graph_taps(self.model)

    def tap(self, name: str) -> Tap:
        """The value or node of that name."""
        return named_tap(self.model, name, what=self.what)

    def answering(self, taps: Sequence[Tap]) -> Answering:
        """Runs the graph with these values as outputs too."""
        runner = runner_of(with_taps(self.model, taps), threads=self.threads)
        names = _own_names(self.model, self.outputs, self.what)

        def answer(arrays: Arrays) -> Arrays:
            found = _run(runner, arrays)
            outputs = {f"{OUTPUT}{ours}": found[theirs] for ours, theirs in names.items()}
            return {**outputs, **{f"{LAYER}{index}": found[tap.name] for index, tap in enumerate(taps)}}

        return answer


@dataclasses.dataclass(frozen=True)
class ModuleTeacher:
    """A torch module. `example` are the inputs of some samples."""

    what: str
    bound: BoundModule
    outputs: tuple[str, ...]
    example: Arrays

    @property
    def is_shares(self) -> bool:
        """Whether its class scores look like probabilities on the example."""
        found = self.answering(())(self.example)
        return holds_shares(next(iter(found.values())))

    def taps(self) -> list[Tap]:
        """Its layers in the order in which they run."""
        return module_taps.module_taps(self.bound, self.example)

    def tap(self, name: str) -> Tap:
        """The submodule of that name."""
        return module_taps.named_module_tap(self.bound, name, self.example)

    def answering(self, taps: Sequence[Tap]) -> Answering:
        """Calls the module in evaluation mode, without gradients."""
        import torch

        watched = module_taps.WatchedModule(self.bound, self.outputs, [tap.name for tap in taps]).eval()

        def answer(arrays: Arrays) -> Arrays:
            inputs = [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in self.bound.inputs]
            with torch.no_grad():
                found = {name: value.numpy().copy() for name, value in watched(*inputs).items()}
            outputs = {f"{OUTPUT}{name}": found[name] for name in self.outputs}
            return {**outputs, **{f"{LAYER}{index}": found[tap.name] for index, tap in enumerate(taps)}}

        return answer


def graph_teacher(path: Path, outputs: Sequence[str], *, inputs: Sequence[str], threads: int) -> GraphTeacher:
    """The ONNX file as a teacher.

    Raises:
        ModelError: It cannot be read, takes other inputs, or gives other outputs.
    """
    what = f"teacher {path}"
    model = clean(open_model(path))
    lacking = [spec.name for spec in input_specs(model) if spec.name not in inputs]
    if lacking:
        raise ModelError(
            what,
            detail=f"expected inputs of the model, {', '.join(inputs)}, found {', '.join(lacking)}",
            fix="Name its inputs as the model's: both are fed with the same samples",
        )
    _own_names(model, outputs, what)
    return GraphTeacher(what, model, tuple(outputs), threads)


def answered(samples: Samples, answer: Answering) -> Samples:
    """The samples with the teacher's answers beside their inputs."""
    return dataclasses.replace(samples, read=_Answers(samples, answer).read)


@dataclasses.dataclass
class _Answers:
    """Samples with answers, which are kept where they are small."""

    samples: Samples
    answer: Answering
    kept: list[Batch] | None = None

    def read(self) -> Iterator[Batch]:
        if self.kept is not None:
            yield from self.kept
            return
        pieces, held = list[Batch](), 0
        for batch in self.samples.batches(PIECE):
            found = self.answer(batch.inputs)
            held += sum(array.nbytes for array in found.values())
            whole = Batch({**batch.inputs, **found}, batch.labels)
            if held <= KEPT_BYTES:
                pieces.append(whole)
            yield whole
        if held <= KEPT_BYTES:
            self.kept = pieces


def _own_names(model: ir.Model, outputs: Sequence[str], what: str) -> Mapping[str, str]:
    """What a teacher calls the baseline's outputs: the same, or by their places where it has as many."""
    found = [spec.name for spec in output_specs(model)]
    if set(outputs) <= set(found):
        return {name: name for name in outputs}
    if len(found) != len(outputs):
        raise ModelError(
            what,
            detail=f"expected outputs {', '.join(outputs)}, those of the model, found {', '.join(found)}",
            fix="Give a teacher with these outputs, or with as many in the same order",
        )
    return dict(zip(outputs, found, strict=True))


def _run(runner: Runner, arrays: Arrays) -> Arrays:
    """All outputs, where the model's batch size is fixed in batches of that size."""
    names = [spec.name for spec in runner.inputs]
    batch = Batch({name: arrays[name] for name in names})
    fixed = fixed_batch_size(runner.inputs)
    if fixed is None:
        return runner.run(batch.inputs)
    parts = []
    for start in range(0, len(batch), fixed):
        piece = rows_of(batch, slice(start, start + fixed))
        found = runner.run(padded(piece.inputs, fixed))
        parts.append({name: array[: len(piece)] for name, array in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
