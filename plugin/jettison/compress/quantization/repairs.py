"""What is done against the loss by rounding, chosen by calibration samples that took no part in it.

Ranges by each method, with and without a bias correction; then, on the best ranges, weights rounded with
error feedback. None of it wins on every model, and what helps alone can ruin a model together (MiniLM with
ranges by mse and a correction), so each candidate is measured as a whole, with every layer in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import onnx_ir as ir

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.correct import CORRECTION_SAMPLES, Correction, bias_corrections, corrected
from jettison.compress.quantization.damage import (
    BATCH,
    DAMAGE_SAMPLES,
    logits_view,
    noise_to_signal,
    outputs_of,
)
from jettison.compress.quantization.placement import Placement
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.refine import refined_weights
from jettison.compress.quantization.static import LayerIntegers, RangeChoice, layer_integers, quantize_static
from jettison.compress.quantization.weights import QuantizedWeight
from jettison.core.batching import fitting_batches
from jettison.core.samples import Samples, first, split
from jettison.graph.model import input_specs

MEASURED_RANGES: tuple[RangeMethod, ...] = ("max", "mse")
"""Range methods that won on some model; percentile and KL won on none (benchmarks/guarantee.py)."""

Effort = Literal["none", "measure", "all"]
"""Which repairs are tried: none, a bias correction, or error feedback too."""

Place = Callable[[ir.Graph], Placement]
"""Where pairs stand in a graph with every layer in integers that may be."""


@dataclass(frozen=True)
class Candidate:
    """Repairs by name: how ranges are made, and what is done about rounding.

    `corrected` takes the mean error out of biases; `refined` also rounds weights with error feedback, which
    without a correction may do harm.
    """

    choice: RangeChoice = field(default_factory=RangeChoice)
    work: Literal["plain", "corrected", "refined"] = "plain"

    def __str__(self) -> str:
        kept = "left out" if self.work == "plain" else "kept"
        feedback = ", weights rounded with error feedback" if self.work == "refined" else ""
        return f"ranges by {self._ranges}, bias correction {kept}{feedback}"

    @property
    def short(self) -> str:
        """The same in a word or two."""
        return self._ranges if self.work == "plain" else f"{self._ranges} {self.work}"

    @property
    def _ranges(self) -> str:
        if self.choice.method == "percentile":
            return f"percentile {self.choice.percentile:g}"
        return self.choice.method


@dataclass(frozen=True)
class Repairs:
    """A candidate as it was made: the float model, its calibration, and by layer what is done for it.

    `corrections` belong to `weights`, the integers of each layer. All of it holds for any choice of layers.
    """

    model: ir.Model
    calibration: Calibration
    choice: RangeChoice = field(default_factory=RangeChoice)
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)

    def quantize(self, placement: Placement) -> ir.Model:
        """The model with the layers of that placement in integers, repaired."""
        source = corrected(self.model, self.corrections, placement)
        return quantize_static(source, self.calibration, placement, choice=self.choice, weights=self.weights)


class Ladder:
    """Makes candidates for one model, judges them by held-out samples, and keeps the best."""

    def __init__(self, piece: Workpiece, samples: Samples, place: Place) -> None:
        self._piece, self._place = piece, place
        self._calibration = piece.calibration(samples)
        self._fitting, self._judging = repair_sets(samples)
        self._judge: _Judge | None = None
        self._noises: dict[Candidate, float] = {}
        self._rungs = 0
        self._rounded: tuple[RangeChoice, dict[str, LayerIntegers]] | None = None
        self._made: Repairs | None = None
        self.best = Candidate()

    def climb(self, choices: Sequence[RangeChoice], effort: Effort) -> Repairs:
        """The candidate that leaves the least noise, the first one where nothing can be told.

        Error feedback is tried on the best ranges only: they, not it, decide by how much a model gains.
        """
        self.best = Candidate(choices[0])
        if effort == "none" and len(choices) == 1:
            return self._make(self.best)
        rungs = list(_first_rungs(choices, effort))
        self._rungs = len(rungs) + (effort == "all")
        for candidate in rungs:
            self._enter(candidate)
        if effort == "all":
            self._enter(Candidate(self.best.choice, "refined"))
        return self._made or self._make(self.best)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, by whom, and what each candidate was worth; nothing where there was no choice."""
        if not self._noises:
            return ()
        judges = "calibration samples that took no part in it prefer"
        if self._judging is self._fitting:
            judges = "the samples behind it prefer, being too few to hold some out"
        worth = (f"{candidate.short} {_decibels(noise):.1f}" for candidate, noise in self._noises.items())
        return f"{self.best}, as {judges}", f"SQNR there, in dB: {', '.join(worth)}"

    def _enter(self, candidate: Candidate) -> None:
        """Let a candidate try to be the best; where its noise is known it is not even made."""
        made: list[Repairs] = []

        def measure() -> dict[str, float]:
            made.append(self._make(candidate))
            return {"noise": self._noise(made[0])}

        noise = self._piece.recalled(f"repair {candidate}", measure)["noise"]
        least = self._noises.get(self.best, math.inf)
        self._noises[candidate] = noise
        if noise < least:
            self.best, self._made = candidate, made[0] if made else None
        if self._piece.progress is not None:
            self._piece.progress(len(self._noises), self._rungs)

    def _noise(self, repairs: Repairs) -> float:
        if self._judge is None:
            self._judge = _Judge(self._piece, self._judging)
        return self._judge.noise(repairs.quantize(self._place(repairs.model.graph)))

    def _make(self, candidate: Candidate) -> Repairs:
        """The candidate with its weights and the correction that belongs to them."""
        model, threads = self._piece.model, self._piece.threads
        integers = self._integers(candidate.choice)
        if candidate.work == "refined":
            refined = refined_weights(model, self._fitting, integers=integers, threads=threads)
            integers |= {name: replace(integers[name], weight=weight) for name, weight in refined.items()}
        corrections = {}
        if candidate.work != "plain":
            corrections = bias_corrections(model, self._fitting, integers=integers, threads=threads)
        weights = {name: found.weight for name, found in integers.items()}
        return Repairs(model, self._calibration, candidate.choice, corrections, weights)

    def _integers(self, choice: RangeChoice) -> dict[str, LayerIntegers]:
        """What layers compute with where weights are rounded to the nearest; kept for the last choice."""
        if self._rounded is None or self._rounded[0] != choice:
            model = self._piece.model
            placement = self._place(model.graph)
            integers = layer_integers(model, self._calibration, placement, choice=choice)
            self._rounded = choice, integers
        return dict(self._rounded[1])


def _first_rungs(choices: Sequence[RangeChoice], effort: Effort) -> Iterator[Candidate]:
    for choice in choices:
        yield Candidate(choice)
        if effort != "none":
            yield Candidate(choice, "corrected")


def repair_sets(samples: Samples) -> tuple[Samples, Samples]:
    """Samples that repairs are made from, and others that judge them; the same where there are too few."""
    if samples.count <= CORRECTION_SAMPLES:
        return samples, samples
    judges = min(DAMAGE_SAMPLES, samples.count - CORRECTION_SAMPLES)
    judging, fitting = split(samples, judges / samples.count, seed=0)
    return fitting, judging


class _Judge:
    """Says how far a quantized model's outputs are from the float model's, on samples of its own."""

    def __init__(self, piece: Workpiece, samples: Samples) -> None:
        few = first(samples, DAMAGE_SAMPLES)
        self._exact = piece.target.is_gpu
        self._batches = list(fitting_batches(few, input_specs(piece.model), size=BATCH))
        self._reference = outputs_of(logits_view(piece.model), self._batches, exact=False)

    def noise(self, quantized: ir.Model) -> float:
        """Energy of the error over the energy of the output."""
        found = outputs_of(logits_view(quantized), self._batches, exact=self._exact)
        return noise_to_signal(self._reference, found)


def _decibels(noise: float) -> float:
    return -10.0 * math.log10(noise) if noise > 0 else math.inf
