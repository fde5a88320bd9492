"""The pass `{quantize: partial}`: the fastest choice of layers that holds the tolerance.

Layers are calibrated and corrected once; each layer's damage and time are measured alone; a search over
their sums gives a front of choices; then few joint evaluations find the fastest one whose score, at worst,
stays within the tolerance, and try to take further layers into integers from there (trial.py). What is made
small is the time, the size, or the bits of a product (objective.py). Where the time given for the search runs
out, it ends with the best choice known by then; measuring the layers is not cut short. Where no choice is
predicted to cost less than float, nothing is quantized.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import Figures, Measurement, PassResult, Refusal, Workpiece
from jettison.compress.quantization.keep_float import kept_layers
from jettison.compress.quantization.material import Material, gather
from jettison.compress.quantization.objective import UNITS, Objective
from jettison.compress.quantization.placement import LayerDecision
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.repairs import Effort
from jettison.compress.quantization.search import Point, Search, spread
from jettison.compress.quantization.trial import Trial
from jettison.core.samples import Samples
from jettison.evaluate.figures import counted

_FRONT_POINTS = 24
"""Choices of the front that the joint evaluations may pick from: 1 dB apart on the models measured."""


class QuantizePartial(BaseModel):
    """Static INT8 for the layers that are worth it, within a tolerance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["partial"] = "partial"
    tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    objective: Objective = "latency"
    max_evaluations: int = Field(default=12, ge=2, le=200)
    ranges: RangeMethod | Literal["measure"] = "measure"
    repair: Effort = "all"
    keep_float: tuple[str, ...] = ()

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses what `{quantize: full}` refuses, and a road without anything to judge by."""
        refusal = QuantizeFull(keep_float=self.keep_float).check(piece)
        if refusal is None and piece.measure is None:
            return Refusal(
                reasons=("a search needs something to judge its choices by",),
                instead="Use it in a variant's passes, through run or compress",
            )
        return refusal

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model with the chosen layers in integers; notes tell the front and how it was chosen."""
        kept = kept_layers(piece.model.graph, self.keep_float)
        material = gather(piece, samples, self.ranges, kept, objective=self.objective, effort=self.repair)
        tolerance = piece.tolerance if self.tolerance is None else self.tolerance
        trial = Trial(
            lambda layers: _measurement(material, layers),
            tolerance,
            self.max_evaluations,
            lambda: piece.is_out_of_time,
        )
        answer = _answer(Search(material.order, material.damages, material.cost), trial)
        words = _Words(material, trial, answer, self.objective)
        layers = answer.chosen.layers
        return PassResult(
            material.quantize(layers) if layers else piece.model.clone(),
            layers=tuple(words.decisions(kept)),
            notes=(*material.notes, *words.notes()),
            warnings=(*material.warnings, *words.warnings()),
            counterpart=material.repairs.counterpart if layers else None,
            evaluations=len(trial.measured),
            is_cut_short=trial.is_cut_short or material.is_cut_short,
        )


@dataclass(frozen=True)
class _Answer:
    """The choice, whether it holds the tolerance, and what all layers in integers and in float would cost."""

    chosen: Point
    is_held: bool
    everything: Point
    nothing: Point


def _answer(search: Search, trial: Trial) -> _Answer:
    """The cheapest choice that holds; where none does, the one of least damage; else nothing in integers."""
    everything, nothing = search.price(frozenset(search.order)), search.price(frozenset())
    front = spread(search.front(), _FRONT_POINTS)
    if not front:
        return _Answer(nothing, is_held=True, everything=everything, nothing=nothing)
    best = trial.fastest(front)
    chosen = front[-1] if best is None else trial.take_back(best, search)
    return _Answer(chosen, is_held=best is not None, everything=everything, nothing=nothing)


def _measurement(material: Material, layers: frozenset[str]) -> Measurement:
    """The joint evaluation of a choice, from the kept figures where it was made before."""
    key = hashlib.sha256("\n".join(sorted(layers)).encode()).hexdigest()[:16]
    figures = material.recalled(f"joint-{key}", lambda: _figures(material, layers))
    return Measurement(
        score_delta=figures["score_delta"],
        score_delta_low=figures["score_delta_low"],
        sqnr_db=figures.get("sqnr_db"),
        best_low=figures["best_low"],
    )


def _figures(material: Material, layers: frozenset[str]) -> Figures:
    if material.piece.measure is None:
        raise ValueError("a search without anything to measure by")
    found = material.piece.measure(material.quantize(layers))
    figures = {
        "score_delta": found.score_delta,
        "score_delta_low": found.score_delta_low,
        "best_low": found.best_low,
    }
    return figures if found.sqnr_db is None else {**figures, "sqnr_db": found.sqnr_db}


@dataclass(frozen=True)
class _Words:
    """What is told of a search and its answer; notes do not repeat what warnings tell."""

    material: Material
    trial: Trial
    answer: _Answer
    objective: Objective

    def decisions(self, kept: frozenset[str]) -> Iterator[LayerDecision]:
        """What became of each layer: those that the search left in float tell what they would cost."""
        for layer in self.material.place(self.answer.chosen.layers).layers:
            if layer.quantized or layer.node in kept or layer.node not in self.material.damages:
                yield layer
            else:
                yield layer.model_copy(update={"reason": self._why_float(layer.node)})

    def notes(self) -> tuple[str, ...]:
        """How the choice was made."""
        chosen, count = self.answer.chosen, len(self.trial.measured)
        effort = counted(count, "joint evaluation")
        price = self._price_note(self.answer.nothing.cost, chosen.cost)
        if not chosen.layers or not self.answer.is_held:
            return price, effort
        measure = "falls" if self.trial.are_too_few else "falls at worst"
        verdict = (
            f"{len(chosen.layers)} of {len(self.material.order)} layers in integers: the cheapest choice "
            f"found whose score {measure} by {self.trial.tolerance:g} on the search samples"
        )
        return verdict, price, effort

    def warnings(self) -> tuple[str, ...]:
        """What whoever uses the result must know: the rule was weakened, the search cut, or nothing held."""
        trial, tolerance = self.trial, f"{self.trial.tolerance:g}"
        few = (
            f"the search samples are too few to prove a tolerance of {tolerance} of any choice, so "
            f"choices were judged by their score alone: give more by --search or samples.search"
        )
        cut = (
            "the time for the search ran out, and a longer one may find more: the same command goes on where "
            "this one stopped"
        )
        spent = (
            f"the {trial.budget} joint evaluations allowed were spent before the choices were searched "
            f"through: more of them (max_evaluations) may find a cheaper one"
        )
        none = (
            f"no choice of layers held the tolerance of {tolerance} on the search samples, not even the one "
            f"with the least damage, which this is"
        )
        is_spent = trial.is_incomplete and not trial.is_cut_short and self.answer.is_held
        told = (
            (few, trial.are_too_few),
            (cut, trial.is_cut_short and self.answer.is_held),
            (spent, is_spent),
            (none, not self.answer.is_held),
            (self._nothing_cheaper(), not self.answer.chosen.layers),
        )
        return tuple(text for text, applies in told if applies)

    def _nothing_cheaper(self) -> str:
        costs = self._price_note(self.answer.nothing.cost, self.answer.everything.cost)
        return (
            f"nothing was quantized, since no choice of layers is predicted to cost less than float; all in "
            f"integers: {costs}"
        )

    def _why_float(self, layer: str) -> str:
        noise = self.material.damages[layer]
        if not self.answer.chosen.layers:
            return "left in float by the search: integers are not predicted to be cheaper"
        alone = "" if noise <= 0 else f": alone in integers it leaves {-10 * math.log10(noise):.1f} dB SQNR"
        return f"left in float by the search{alone}"

    def _price_note(self, base: float, cost: float) -> str:
        source = self.material.cost_source
        if self.objective == "latency":
            return f"predicted speed-up {base / max(cost, 1e-9):.2f} ({source})"
        return f"{self.objective}: {cost:.4g} {UNITS[self.objective]} of {base:.4g} in float ({source})"
