"""The pass `{quantize: partial}`: the fastest choice of layers that holds the tolerance.

Layers are calibrated and corrected once; each layer's damage and time are measured alone; a search over
their sums gives a front of choices; then few joint evaluations find the fastest one whose score, at worst,
stays within the tolerance, and try to take further layers into integers from there. What is made small is
the time, the size, or the bits of a product (objective.py). Where the time given for the search runs out, it
ends with the best choice known by then; measuring the layers is not cut short.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.passes import Figures, Measurement, PassResult, Refusal, Workpiece
from jettison.compress.quantization.keep_float import kept_layers
from jettison.compress.quantization.material import Material, gather
from jettison.compress.quantization.objective import UNITS, Objective
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.repairs import Effort
from jettison.compress.quantization.search import Point, Search, spread
from jettison.core.samples import Samples

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
        search = Search(material.order, material.damages, material.cost)
        everything = search.price(frozenset(material.order))
        front = spread(search.front(), _FRONT_POINTS) or [everything]
        tolerance = piece.tolerance if self.tolerance is None else self.tolerance
        trial = _Trial(piece, material, tolerance, self.max_evaluations, self.objective)
        best = trial.fastest(front)
        if best is not None:
            best = trial.take_back(best, search)
        chosen = best if best is not None else front[-1]
        placement = material.place(chosen.layers)
        return PassResult(
            material.quantize(chosen.layers),
            layers=placement.layers,
            notes=(*material.notes, *trial.notes(chosen, found=best is not None)),
            warnings=trial.warnings(found=best is not None),
            counterpart=material.repairs.counterpart,
            evaluations=len(trial.measured),
        )


@dataclass
class _Trial:
    """Joint evaluations of points, each kept on disk, as many as were allowed."""

    piece: Workpiece
    material: Material
    tolerance: float
    budget: int
    objective: Objective
    measured: dict[frozenset[str], Measurement] = field(default_factory=dict)
    was_cut_short: bool = False
    are_too_few: bool = False

    def fastest(self, front: list[Point]) -> Point | None:
        """The fastest point of the front that holds, by halving: more damage is taken to score less."""
        low, high, best = 0, len(front) - 1, None
        while low <= high and self._may_go_on():
            middle = (low + high) // 2
            if self.holds(front[middle]):
                best, high = front[middle], middle - 1
            else:
                low = middle + 1
        return best

    def take_back(self, best: Point, search: Search) -> Point:
        """Faster choices around the best one, the most promising first, while evaluations are left."""
        for point in search.neighbours(best):
            if not self._may_go_on():
                break
            if point.cost < best.cost and self.holds(point):
                best = point
        return best

    def holds(self, point: Point) -> bool:
        """Whether the score of that choice, at worst, stays within the tolerance.

        Where the samples are too few to prove that of any choice, the score itself decides: the verdict is
        not theirs, and a choice by an impossible rule would keep nearly all layers in float.
        """
        found = self.measure(point.layers)
        if found.best_low < -self.tolerance:
            self.are_too_few = True
            return found.score_delta >= -self.tolerance
        return found.score_delta_low >= -self.tolerance

    def measure(self, layers: frozenset[str]) -> Measurement:
        """The joint evaluation of a choice, once."""
        if layers not in self.measured:
            key = hashlib.sha256("\n".join(sorted(layers)).encode()).hexdigest()[:16]
            figures = self.piece.recalled(f"joint-{key}", lambda: self._figures(layers))
            self.measured[layers] = Measurement(
                score_delta=figures["score_delta"],
                score_delta_low=figures["score_delta_low"],
                sqnr_db=figures.get("sqnr_db"),
                speedup=figures.get("speedup"),
                best_low=figures["best_low"],
            )
        return self.measured[layers]

    def notes(self, chosen: Point, *, found: bool) -> tuple[str, ...]:
        """How the choice was made, in words; what `warnings` tells is not repeated."""
        total, base = len(self.material.order), self.material.cost(frozenset())
        count = len(self.measured)
        effort = f"{count} joint evaluation{'' if count == 1 else 's'}"
        if not found:
            return self._price_note(base, chosen.cost), effort
        measure = "falls" if self.are_too_few else "falls at worst"
        verdict = (
            f"{len(chosen.layers)} of {total} layers in integers: the cheapest choice found whose score "
            f"{measure} by {self.tolerance:g} on the search samples"
        )
        return verdict, self._price_note(base, chosen.cost), effort

    def warnings(self, *, found: bool) -> tuple[str, ...]:
        """What whoever uses the result must know: the rule was weakened, the search cut, or nothing held."""
        few = (
            f"the search samples are too few to prove a tolerance of {self.tolerance:g} of any choice, so "
            f"choices were judged by their score alone: give more by --search or samples.search"
        )
        cut = "the time for the search ran out, and a longer one may find more"
        none = (
            f"no choice of layers held the tolerance of {self.tolerance:g} on the search samples; this is "
            f"the one with the least damage"
        )
        told = ((few, self.are_too_few), (cut, self.was_cut_short), (none, not found))
        return tuple(text for text, applies in told if applies)

    def _price_note(self, base: float, cost: float) -> str:
        source = self.material.cost_source
        if self.objective == "latency":
            return f"predicted speed-up {base / max(cost, 1e-9):.2f} ({source})"
        return f"{self.objective}: {cost:.4g} {UNITS[self.objective]} of {base:.4g} in float ({source})"

    def _may_go_on(self) -> bool:
        """Whether there is an evaluation left and time for it; the first one is made in any case."""
        if len(self.measured) >= self.budget:
            return False
        if self.measured and self.piece.is_out_of_time:
            self.was_cut_short = True
        return not self.was_cut_short

    def _figures(self, layers: frozenset[str]) -> Figures:
        if self.piece.measure is None:
            raise ValueError("a search without anything to measure by")
        found = self.piece.measure(self.material.quantize(layers))
        figures = {
            "score_delta": found.score_delta,
            "score_delta_low": found.score_delta_low,
            "best_low": found.best_low,
        }
        if found.sqnr_db is not None:
            figures["sqnr_db"] = found.sqnr_db
        if found.speedup is not None:
            figures["speedup"] = found.speedup
        return figures
