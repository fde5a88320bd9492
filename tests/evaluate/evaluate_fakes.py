"""Runners, samples and a clock for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jettison.core.samples import Samples, samples_of
from jettison.core.tensors import Arrays, TensorSpec


def spec(name: str, shape: Sequence[int | str | None], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape))


@dataclass
class FakeRunner:
    """A runner made of a function; remembers the batch sizes that it was run with."""

    function: Callable[[np.ndarray], Arrays]
    outputs: Sequence[TensorSpec] = (spec("scores", ("batch", 10)),)
    batch: int | str = "batch"
    sizes: list[int] = field(default_factory=list)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return (spec("x", (self.batch, 10)),)

    def run(self, arrays: Arrays) -> Arrays:
        self.sizes.append(len(arrays["x"]))
        return self.function(arrays["x"])


def echo(shift: float = 0.0, **options) -> FakeRunner:
    """A classifier that gives its input, shifted, as class scores."""
    return FakeRunner(lambda x: {"scores": x + np.float32(shift)}, **options)


def some_samples(count: int = 20, labels: bool | np.ndarray = True, seed: int = 0) -> Samples:
    """Samples whose label is the class of the highest input, unless given."""
    x = np.random.default_rng(seed).normal(size=(count, 10)).astype(np.float32)
    chosen = x.argmax(axis=1) if labels is True else (None if labels is False else labels)
    return samples_of({"x": x}, labels=chosen, specs=[spec("x", ("batch", 10))])


@dataclass
class FakeClock:
    """A clock that calls move on: every call takes its own time, times the drift of the moment."""

    milliseconds: dict[str, float]
    drift: Callable[[float], float] = lambda _: 1.0
    noise: Callable[[], float] = lambda: 1.0
    now_ns: float = 0.0
    called: list[str] = field(default_factory=list)

    def __call__(self) -> int:
        return int(self.now_ns)

    def calls(self) -> dict[str, Callable[[], None]]:
        return {name: lambda name=name: self._spend(name) for name in self.milliseconds}

    def _spend(self, name: str) -> None:
        self.called.append(name)
        self.now_ns += self.milliseconds[name] * 1e6 * self.drift(self.now_ns / 1e9) * self.noise()
