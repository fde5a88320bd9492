"""What is done against the loss by rounding, chosen by calibration samples that no correction was made from.

Ranges by each method, with and without a bias correction; the same on an equalized copy of the model; then,
on the best of them, weights rounded with error feedback. None of it wins on every model, and what helps alone
can ruin a model together (MiniLM with ranges by mse and a correction), so each candidate is measured as a
whole, with every layer in integers.
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
from jettison.compress.quantization.damage import DAMAGE_SAMPLES, NoiseJudge
from jettison.compress.quantization.equalize import channel_maxima, equalized
from jettison.compress.quantization.placement import Placement
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.refine import refined_weights
from jettison.compress.quantization.static import LayerIntegers, RangeChoice, layer_integers, quantize_static
from jettison.compress.quantization.weights import QuantizedWeight
from jettison.core.memory import release, trim
from jettison.core.samples import Samples, split
from jettison.graph.junction import find_junctions

MEASURED_RANGES: tuple[RangeMethod, ...] = ("max", "mse")
"""Range methods that won on some model; percentile and KL won on none (benchmarks/guarantee.py)."""

Effort = Literal["none", "measure", "all"]
"""Which repairs are tried: none; a bias correction; equalization and error feedback too."""

Work = Literal["plain", "corrected", "refined"]

_LEAST_CANDIDATES = 2
"""Plain rounding and a bias correction, which a search without any time left still compares."""

Place = Callable[[ir.Graph], Placement]
"""Where pairs stand in a graph with every layer in integers that may be."""


@dataclass(frozen=True)
class Candidate:
    """Repairs by name: how ranges are made, of which model, and what is done about rounding.

    `corrected` takes the mean error out of biases; `refined` also rounds weights with error feedback, which
    without a correction may do harm.
    """

    choice: RangeChoice = field(default_factory=RangeChoice)
    work: Work = "plain"
    is_equalized: bool = False

    def __str__(self) -> str:
        kept = "left out" if self.work == "plain" else "kept"
        feedback = ", weights rounded with error feedback" if self.work == "refined" else ""
        equalized_words = ", channels equalized" if self.is_equalized else ""
        return f"ranges by {self._ranges}{equalized_words}, bias correction {kept}{feedback}"

    @property
    def short(self) -> str:
        """The same in a word or two."""
        words = (self._ranges, "equalized" if self.is_equalized else "", self.work)
        return " ".join(word for word in words if word not in ("", "plain"))

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
    is_equalized: bool = False

    @property
    def counterpart(self) -> ir.Model | None:
        """The float model whose layers the integer ones stand for, where it is not the one given."""
        return self.model if self.is_equalized else None

    def quantize(self, placement: Placement) -> ir.Model:
        """The model with the layers of that placement in integers, repaired."""
        source = corrected(self.model, self.corrections, placement)
        return quantize_static(source, self.calibration, placement, choice=self.choice, weights=self.weights)


@dataclass(frozen=True)
class Chosen:
    """The repairs that were kept, their name, and in words who preferred them and what each was worth.

    `left_out` counts those that were not tried, for want of time.
    """

    repairs: Repairs
    candidate: Candidate
    notes: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """That the time ran out, where it did."""
        count = self.left_out
        if not count:
            return ()
        were = "repair was" if count == 1 else "repairs were"
        return (f"half of the time for the search was spent, and {count} {were} not tried",)


def choose_repairs(
    piece: Workpiece, samples: Samples, place: Place, *, choices: Sequence[RangeChoice], effort: Effort
) -> Chosen:
    """The candidate that leaves the least noise on held-out samples, the first one where none leaves less.

    Raises:
        SamplesError: The samples make the float model overflow.
    """
    bench = Bench(piece, samples, place)
    if effort == "none" and len(choices) == 1:
        return Chosen(bench.make(Candidate(choices[0])), Candidate(choices[0]))
    rungs = list(first_rungs(choices, effort, equalize=effort == "all" and bench.can_equalize))
    contest = _Contest(bench, len(rungs) + (effort == "all"))
    for rung in rungs:
        if contest.may_go_on:
            contest.enter(rung)
    if effort == "all" and contest.may_go_on:
        contest.enter(replace(contest.best("corrected"), work="refined"))
    return contest.chosen()


class Bench:
    """Makes candidates for one model from some samples, and measures them by others."""

    def __init__(self, piece: Workpiece, samples: Samples, place: Place) -> None:
        self.piece, self._samples, self._place = piece, samples, place
        self.fitting, self.judging = repair_sets(samples)
        self._judge: NoiseJudge | None = None
        self._sources: dict[bool, tuple[ir.Model, Calibration]] = {}
        self._rounded: tuple[Candidate, dict[str, LayerIntegers]] | None = None

    @property
    def judges(self) -> str:
        """Who prefers one candidate to another, in words."""
        if self.judging is self.fitting:
            return "the samples behind it, too few to hold some out,"
        return "calibration samples behind ranges only, and behind no correction,"

    @property
    def can_equalize(self) -> bool:
        """Whether the model has a place where factors can be moved."""
        return bool(find_junctions(self.piece.model))

    def noise(self, repairs: Repairs) -> float:
        """What the repaired model leaves of noise with every layer in integers, over the signal."""
        if self._judge is None:
            exact = self.piece.target.is_gpu
            self._judge = NoiseJudge(self.piece.model, self.judging, exact=exact)
        return self._judge.noise(repairs.quantize(self._place(repairs.model.graph)))

    def make(self, candidate: Candidate) -> Repairs:
        """The candidate with its weights and the correction that belongs to them."""
        model, calibration = self._source(candidate)
        threads, integers = self.piece.threads, self._integers(candidate)
        if candidate.work == "refined":
            refined = refined_weights(model, self.fitting, integers=integers, threads=threads)
            integers |= {name: replace(integers[name], weight=weight) for name, weight in refined.items()}
            trim()
        corrections = {}
        if candidate.work != "plain":
            corrections = bias_corrections(model, self.fitting, integers=integers, threads=threads)
        weights = {name: found.weight for name, found in integers.items()}
        return Repairs(
            model, calibration, candidate.choice, corrections, weights, is_equalized=candidate.is_equalized
        )

    def _integers(self, candidate: Candidate) -> dict[str, LayerIntegers]:
        """What layers compute with where weights are rounded to the nearest; the last answer is kept."""
        key = replace(candidate, work="plain")
        if self._rounded is None or self._rounded[0] != key:
            model, calibration = self._source(candidate)
            placement = self._place(model.graph)
            integers = layer_integers(model, calibration, placement, choice=candidate.choice)
            self._rounded = key, integers
        return dict(self._rounded[1])

    def _source(self, candidate: Candidate) -> tuple[ir.Model, Calibration]:
        """The float model and the ranges of its activations, which do not hold for the other one."""
        key = candidate.is_equalized
        if key not in self._sources:
            piece = replace(self.piece, model=self._equalized()) if key else self.piece
            self._sources[key] = piece.model, piece.calibration(self._samples)
        return self._sources[key]

    def _equalized(self) -> ir.Model:
        model = self.piece.model
        maxima = channel_maxima(model, self._samples, threads=self.piece.threads)
        return equalized(model, maxima).model


class _Contest:
    """Keeps the candidate that leaves the least noise; one whose noise is known already is not even made."""

    def __init__(self, bench: Bench, rungs: int) -> None:
        self._bench, self._rungs = bench, rungs
        self._noises: dict[Candidate, float] = {}
        self._left_s = bench.piece.time_left_s() / 2 if bench.piece.time_left_s is not None else None
        self._made: Repairs | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether at least half of the time that was left is there; the first two are tried anyway."""
        left = self._bench.piece.time_left_s
        if left is None or self._left_s is None or len(self._noises) < _LEAST_CANDIDATES:
            return True
        return left() > self._left_s

    def enter(self, candidate: Candidate) -> None:
        """Let a candidate try to be the best."""
        made: list[Repairs] = []

        def measure() -> dict[str, float]:
            made.append(self._bench.make(candidate))
            return {"noise": self._bench.noise(made[0])}

        piece = self._bench.piece
        self._noises[candidate] = piece.recalled(f"repair {candidate}", measure)["noise"]
        if self.best() == candidate:
            self._made = made[0] if made else None
        made.clear()
        release()
        if piece.progress is not None:
            piece.progress(len(self._noises), self._rungs)

    def best(self, *works: Work) -> Candidate:
        """The candidate that leaves the least noise, of those with such work where it is named."""
        entered = [name for name in self._noises if not works or name.work in works]
        return min(entered, key=lambda name: self._noises[name])

    def chosen(self) -> Chosen:
        """The best one as it was made."""
        best = self.best()
        worth = (f"{name.short} {_decibels(noise):.1f}" for name, noise in self._noises.items())
        notes = f"{best}, as {self._bench.judges} prefer", f"SQNR there, in dB: {', '.join(worth)}"
        left_out = self._rungs - len(self._noises)
        return Chosen(self._made or self._bench.make(best), best, notes, left_out)


def first_rungs(choices: Sequence[RangeChoice], effort: Effort, *, equalize: bool) -> Iterator[Candidate]:
    """All but error feedback, which costs as much as all others: it is tried on the best corrected one."""
    works: tuple[Work, ...] = ("plain",) if effort == "none" else ("plain", "corrected")
    for is_equalized in (False, True) if equalize else (False,):
        for choice in choices:
            for work in works:
                yield Candidate(choice, work, is_equalized)


def repair_sets(samples: Samples) -> tuple[Samples, Samples]:
    """Samples that repairs are made from, and others that judge them; the same where there are too few."""
    if samples.count <= CORRECTION_SAMPLES:
        return samples, samples
    judges = min(DAMAGE_SAMPLES, samples.count - CORRECTION_SAMPLES)
    judging, fitting = split(samples, judges / samples.count, seed=0)
    return fitting, judging


def _decibels(noise: float) -> float:
    return -10.0 * math.log10(noise) if noise > 0 else math.inf
