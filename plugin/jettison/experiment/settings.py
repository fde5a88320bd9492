"""What an experiment asks, fixed before the first unit: its digest is the experiment's id.

Whoever could change the margin, the bets or the data source after a look could choose the answer. So all of
them are in the id, counters carry the id, and a verdict refuses counters of another one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from jettison.core.validation import ImpossibleValueError
from jettison.experiment.counter_form import NAME
from jettison.experiment.counters import WHOLE
from jettison.experiment.eprocess import FORMULAS, bet_sizes

REQUEST = "request"
"""The unit that is none: requests of one stream resemble each other."""

_ID_DIGITS = 32
"""128 bits of SHA-256; with 63 characters at most it is also a Kubernetes label."""

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def _digest(text: str) -> str:
    digits = text.removeprefix("sha256:")
    if len(digits) == 64 and set(digits) <= set("0123456789abcdef"):
        return f"sha256:{digits}"
    fix = "Give the SHA-256 of the file that is served: sha256sum FILE"
    raise ImpossibleValueError(f"expected a SHA-256 in hexadecimal, found {text!r:.80}", fix=fix)


def _name(text: str) -> str:
    if NAME.fullmatch(text):
        return text
    raise ImpossibleValueError(
        f"expected a name of letters, digits, '.', '_', '-', found {text!r:.80}", fix="Rename it"
    )


Digest = Annotated[str, AfterValidator(_digest)]
Name = Annotated[str, AfterValidator(_name)]


class LatencyLimit(BaseModel):
    """How many of its answers the candidate may give late.

    Args:
        limit_ms: What counts as late.
        quantile: The share of requests that must be in time: with 0.99, one of a hundred may be late.
        proven_quantile: A lower share that must be proven before a promotion; None to only roll back where
            `quantile` is proven to be missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_ms: float = Field(gt=0, allow_inf_nan=False)
    quantile: Share
    proven_quantile: Share | None = None

    @model_validator(mode="after")
    def _proof_is_possible(self) -> LatencyLimit:
        if self.proven_quantile is not None and self.proven_quantile >= self.quantile:
            raise ImpossibleValueError(
                f"expected proven_quantile below quantile {self.quantile}, found {self.proven_quantile}",
                fix="Of a candidate exactly at the quantile nothing above it can be proven: lower it",
            )
        return self


class Slice(BaseModel):
    """A part of the units that must not pay for the rest, such as those with a pedestrian.

    Args:
        name: As the counters have it.
        margin: How much worse the candidate may be there.
        planned_disagreement: There; that of the experiment where there is None.
        proof: Whether a promotion waits until the slice is proven as well; else the slice can only roll back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    margin: Share
    planned_disagreement: Annotated[float, Field(gt=0, le=1)] | None = None
    proof: bool = False

    @model_validator(mode="after")
    def _is_a_part(self) -> Slice:
        if self.name == WHOLE:
            fix = "Give the experiment's own margin for all units"
            raise ImpossibleValueError(f"the slice {WHOLE!r} is the whole", fix=fix)
        return self


class Rules(BaseModel):
    """How counters become a verdict.

    Args:
        margin: How much worse than the baseline the candidate may be, on average over units that score from
            -1 to 1: 0.01 is one unit more wrong of a hundred.
        planned_disagreement: The share of units on which the two are expected to differ. A wrong guess costs
            units and never validity.
        alpha: How often a candidate that is worse by the margin may be promoted. A good one may be rolled
            back as often for its quality, and once more as often by all guards together.
        evidence: `labels` judges the units on which the two differ; `agreement` proves that they hardly do,
            which needs no labels and is more than is needed.
        min_units: No promotion before that many.
        max_units: `exhausted` after that many; None for no end.
        latency: The latency guard.
        guard_errors: Whether errors are compared.
        slices: Guards of parts.
        max_loss: The share of units of which an answer may be missing before the comparison is invalid.
        is_aa: Whether both models are the same one, to test the road: every difference is then a fault of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: Share
    planned_disagreement: float = Field(gt=0, le=1, allow_inf_nan=False)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    evidence: Literal["labels", "agreement"] = "labels"
    min_units: int = Field(default=0, ge=0)
    max_units: int | None = Field(default=None, gt=0)
    latency: LatencyLimit | None = None
    guard_errors: bool = True
    slices: tuple[Slice, ...] = ()
    max_loss: Share = 0.01
    is_aa: bool = False

    @model_validator(mode="after")
    def _is_possible(self) -> Rules:
        if self.max_units is not None and self.min_units > self.max_units:
            detail = f"expected min_units of at most max_units {self.max_units}, found {self.min_units}"
            raise ImpossibleValueError(detail, fix="Lower it")
        names = [part.name for part in self.slices]
        if len(set(names)) < len(names):
            raise ImpossibleValueError(f"expected each slice once, found {names}", fix="Keep one of them")
        if self.evidence == "agreement" and self.slices:
            fix = "Leave the slices out, or set evidence: labels"
            raise ImpossibleValueError("slices are judged by labels, and there are none", fix=fix)
        return self

    @property
    def bets(self) -> tuple[float, ...]:
        """The stakes of the quality tests."""
        return bet_sizes(self.margin, self.planned_disagreement)

    @property
    def guards(self) -> int:
        """How many guards share an alpha: slices, latency and errors."""
        return len(self.slices) + (self.latency is not None) + self.guard_errors

    def slice_bets(self, part: Slice) -> tuple[float, ...]:
        """The stakes of a slice's tests."""
        return bet_sizes(part.margin, part.planned_disagreement or self.planned_disagreement)


class Settings(Rules):
    """One experiment: its rules, and what they are applied to.

    Args:
        name: What people call it.
        baseline: SHA-256 of the model that serves today.
        candidate: SHA-256 of the model that shall replace it.
        data_source: Where the units come from, such as `shadow:gate-cameras` or `replay:march`.
        unit: What is independent of the next one: clip, study, patient, device-hour.
        requests_are_independent: Says that every request is such a unit.
    """

    name: Name
    baseline: Digest
    candidate: Digest
    data_source: str = Field(min_length=1, max_length=200)
    unit: str = Field(min_length=1, max_length=63)
    requests_are_independent: bool = False

    @model_validator(mode="after")
    def _is_honest(self) -> Settings:
        if self.unit == REQUEST and not self.requests_are_independent:
            raise ImpossibleValueError(
                "unit: expected what is independent of the next one, found 'request'",
                fix="Name the clip, study, patient or device-hour that requests belong to, or set "
                "requests_are_independent: true where no two requests come from one of them",
            )
        if self.is_aa != (self.baseline == self.candidate):
            found = "two models" if self.is_aa else "one model twice"
            fix = "Set is_aa: true to test the road with one model, and false to compare two"
            raise ImpossibleValueError(f"is_aa is {str(self.is_aa).lower()}, found {found}", fix=fix)
        return self

    @property
    def id(self) -> str:
        """The experiment's id: the digest of every setting but its name, and of the formulas' version."""
        asked = self.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) | {"formulas": FORMULAS}
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
