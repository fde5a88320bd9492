"""The door through which evaluation sees any model: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jettison.core.tensors import Arrays, TensorSpec


@runtime_checkable
class Runner(Protocol):
    """A model that can be run: an ONNX file in ONNX Runtime, an engine, a live Triton."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Specifications of the inputs, in the model's order."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Specifications of the outputs, in the model's order."""
        ...

    def run(self, arrays: Arrays) -> Arrays:
        """All outputs for these inputs, by name; the first axis is the batch where the model has one."""
        ...


@runtime_checkable
class Mixing(Protocol):
    """A runner that knows whether samples of one batch change each other's answers."""

    @property
    def mixes_samples(self) -> bool:
        """Whether they do."""
        ...


def mixes_samples(runner: Runner) -> bool:
    """Whether samples of one batch change each other's answers, as far as the runner can tell."""
    return isinstance(runner, Mixing) and runner.mixes_samples
