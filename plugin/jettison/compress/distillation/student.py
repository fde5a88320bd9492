"""A model that learns from another: a narrower form of the graph, or a torch module of the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx_ir as ir
import torch
from torch import Tensor, nn

from jettison.compress.distillation.borders import check_answers, check_borders, in_order
from jettison.compress.distillation.graph_module import GraphModule
from jettison.compress.distillation.graph_taps import Tap, graph_taps, named_tap, with_taps
from jettison.compress.distillation.losses import ends_in_softmax
from jettison.compress.distillation.module_taps import (
    WatchedModule,
    answer,
    leaves_of,
    module_taps,
    named_module_tap,
)
from jettison.compress.distillation.write_back import trained_model
from jettison.compress.passes import BoundModule, Modules
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.graph.model import input_specs, output_specs


class Student(Protocol):
    """What is trained: as a module that gives outputs and taps by name, and as ONNX when it is done."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the inputs, in the order in which the module takes them."""
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

    def module(self, taps: Sequence[Tap]) -> nn.Module:
        """The module that is trained."""
        ...

    def model(self) -> ir.Model:
        """The student as it is now, in ONNX, with the baseline's inputs and outputs."""
        ...


class NamedGraph(nn.Module):  # type: ignore[misc]
    """A graph's module whose outputs come by name."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        return dict(zip(self.graph.output_names, self.graph(*inputs), strict=True))

    def project(self) -> None:
        """What the graph's module puts back after each step."""
        self.graph.project()


class GraphStudent:
    """A narrower form of the baseline's graph."""

    def __init__(self, small: ir.Model) -> None:
        self._small = small
        self._module: GraphModule | None = None
        self.inputs = tuple(spec.name for spec in input_specs(small))

    @property
    def is_shares(self) -> bool:
        """Whether its class scores come from a Softmax."""
        return ends_in_softmax(self._small.graph)

    def taps(self) -> list[Tap]:
        """Its layers by depth."""
        return graph_taps(self._small)

    def tap(self, name: str) -> Tap:
        """The value or node of that name."""
        return named_tap(self._small, name, what="student")

    def module(self, taps: Sequence[Tap]) -> nn.Module:
        """The graph with these values as outputs too."""
        self._module = GraphModule(with_taps(self._small, taps))
        return NamedGraph(self._module)

    def model(self) -> ir.Model:
        """The narrow graph with the trained weights."""
        return self._small if self._module is None else trained_model(self._small, self._module)


@dataclass(frozen=True)
class Exam:
    """What a student of the user's own is compared with: the baseline, and what it answers to an example."""

    baseline: ir.Model
    example: Arrays
    answers: Arrays
    samples: Samples
    is_shares: bool


class ModuleStudent:
    """A torch module of the user's own.

    Raises:
        ModelError: It gives other outputs than the baseline.
    """

    def __init__(self, factory: str, bound: BoundModule, modules: Modules, exam: Exam) -> None:
        self._factory, self._bound, self._modules, self._exam = factory, bound, modules, exam
        self._watched: WatchedModule | None = None
        self.inputs, self.is_shares = bound.inputs, exam.is_shares
        self._names = tuple(spec.name for spec in output_specs(exam.baseline))
        found = leaves_of(answer(bound, exam.example), self._names, bound.what)
        self._order = tuple(found)
        arrays = {name: value.cpu().numpy() for name, value in found.items()}
        check_answers(exam.answers, arrays, is_shares=exam.is_shares, what=bound.what)

    def taps(self) -> list[Tap]:
        """Its layers in the order in which they run."""
        return module_taps(self._bound, self._exam.example)

    def tap(self, name: str) -> Tap:
        """The submodule of that name."""
        return named_module_tap(self._bound, name, self._exam.example)

    def module(self, taps: Sequence[Tap]) -> nn.Module:
        """The module with hooks on these submodules."""
        self._watched = WatchedModule(self._bound, self._names, [tap.name for tap in taps])
        return self._watched

    def model(self) -> ir.Model:
        """The module with its present weights, exported by a process of its own.

        Raises:
            ModelError: It cannot be exported, its ONNX form answers otherwise, or has other borders.
        """
        with tempfile.TemporaryDirectory(prefix="jettison-student-") as folder:
            state = Path(folder) / "state.pt"
            found = {
                name: value
                for name, value in self._bound.module.state_dict().items()
                if isinstance(value, Tensor)
            }
            torch.save({name: value.detach().cpu().clone() for name, value in found.items()}, state)
            baseline = self._exam.baseline
            made = self._modules.export(
                self._factory,
                state,
                samples=self._exam.samples,
                inputs=input_specs(baseline),
                outputs=self._order,
            )
        check_borders(baseline, made, what=self._bound.what)
        return in_order(made, baseline)
