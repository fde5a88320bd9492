"""The gate: which variants the evidence allows, and which of them is chosen, with reasons in plain words.

A variant is accepted when all of this holds:

1. Its score is proven to be within `tolerance` of the baseline's: the lower bound of the paired interval
   at `confidence` is at least -tolerance. Too few samples therefore refuse a variant, and say so.
2. It compiles for its target. Where no compiler is installed nothing is known, and nothing is refused.
3. It means the same on every CPU (`Portability`), where that was measured.
4. It brings something: it is measurably faster than the baseline, or smaller.
5. It keeps the speed asked for, `min_speedup`. A smaller variant may be equal to that within the measured
   interval, since its gain is the size; one that is not smaller has to reach it.

Speed counts only where it was measured on the target. On a `cpu` target that is the machine of the run. On
a GPU target the latency of this machine says nothing about the GPU, so evidence for one carries no speed
unless the engine ran there, and the variant is judged by its size and by whether TensorRT compiles it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict, Field

from jettison.core.errors import RecipeError
from jettison.evaluate.figures import beyond, counted, exact, percent
from jettison.evaluate.interval import TANGO, PairedInterval
from jettison.evaluate.portability import Portability
from jettison.evaluate.speed import SESSION_SHARE, Latency

SMALLER_SHARE = 0.95
"""A file is smaller below that share of the baseline's size; dropping names and dead nodes saves less."""


class Gate(BaseModel):
    """What a variant must hold; the fields are the recipe's keys.

    Args:
        tolerance: How far the score may fall, in the metric's unit: 0.01 is one point of accuracy, or
            20 dB with the metric sqnr. For mae it is in the unit of the outputs.
        confidence: Of the one-sided bound that proves it.
        min_speedup: How many times as fast as the baseline a variant must be on its target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    min_speedup: float = Field(default=1.0, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Evidence:
    """What was measured of one variant on one target.

    Args:
        interval: Of its score against the baseline's.
        size_bytes: Of the variant, external data included.
        baseline_size_bytes: Of the baseline.
        speed: Against the baseline in one run on the target, or None where that was not measured.
        compiles: The target's compiler's answer, or None where it is not installed or not needed.
        refusal: The first thing that the compiler refused, in its words, where it does not compile.
        portability: Kernel against simulation, or None where it does not apply.
        broken: Samples for which the outputs hold NaN or infinity.
    """

    interval: PairedInterval
    size_bytes: int
    baseline_size_bytes: int
    speed: Latency | None = None
    compiles: bool | None = None
    refusal: str | None = None
    portability: Portability | None = None
    broken: int = 0

    @property
    def size_share(self) -> float:
        """The variant's size as a share of the baseline's."""
        return self.size_bytes / max(1, self.baseline_size_bytes)

    @property
    def is_smaller(self) -> bool:
        """Whether the file is smaller than the baseline's by more than cleaning up saves."""
        return self.size_share < SMALLER_SHARE


class GateReport(BaseModel):
    """Whether a variant is accepted: the reasons against it, or else the figures that speak for it."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    reasons: tuple[str, ...]


def judge(gate: Gate, evidence: Evidence) -> GateReport:
    """The gate's answer to the evidence on one variant.

    Raises:
        RecipeError: The interval was computed at another confidence than the gate's.
    """
    if evidence.interval.confidence != gate.confidence:
        raise RecipeError(
            "gate",
            detail=f"expected an interval at {gate.confidence}, found {evidence.interval.confidence}",
            fix="Compute the interval at the gate's confidence",
        )
    against = tuple(_against(gate, evidence))
    return GateReport(accepted=not against, reasons=against or tuple(_for(gate, evidence)))


def _against(gate: Gate, evidence: Evidence) -> Iterator[str]:
    samples = evidence.interval.samples
    if evidence.broken:
        yield f"outputs hold NaN or infinity for {evidence.broken} of {counted(samples, 'sample')}"
    if evidence.interval.low < -gate.tolerance:
        yield _score_text(gate, evidence.interval)
    if evidence.compiles is False:
        yield "does not compile for the target" + (f": {evidence.refusal}" if evidence.refusal else "")
    if evidence.portability is not None and not evidence.portability.is_portable:
        yield evidence.portability.text
    if evidence.speed is None:
        if not evidence.is_smaller:
            yield f"{_size_text(evidence)}, and its speed was not measured on the target"
    elif (text := _speed_text(gate, evidence, evidence.speed)) is not None:
        yield text


def _score_text(gate: Gate, interval: PairedInterval) -> str:
    counts = f"{counted(interval.samples, 'sample')} ({interval.worse} worse, {interval.better} better)"
    if interval.delta < -gate.tolerance:
        fall = beyond(interval.delta, -gate.tolerance, sign="+")
        return f"score {fall} on {counts}: more than the tolerance of {exact(gate.tolerance)}"
    text = (
        f"score {interval.delta:+.4g} on {counts}, but a loss of up to "
        f"{beyond(-interval.low, gate.tolerance)} cannot be excluded "
        f"at {percent(interval.confidence)} confidence: more than the tolerance of {exact(gate.tolerance)}"
    )
    return text + _more_samples(gate, interval)


def _more_samples(gate: Gate, interval: PairedInterval) -> str:
    """What more samples would do for a variant that holds on those that there are.

    With a tolerance of 0 the lower bound must be 0 or more. Without a better sample it never is, however
    many there are: it lies at or below the mean, and scale * 3/n below 0 where nothing differs. Where as
    many get better as worse it is in 1 - confidence of all repetitions only, as for any true difference of 0.
    """
    if gate.tolerance == 0:
        return "; no number of samples proves a tolerance of 0 unless the score rises: give one above 0"
    needed = samples_needed(gate)
    if interval.method == TANGO and needed is not None and interval.samples < needed:
        return f"; even without any difference that takes about {needed} samples"
    return ""


def samples_needed(gate: Gate) -> int | None:
    """How many samples prove the tolerance if not one of them differs, for scores from 0 to 1.

    ln(1 - confidence) / ln(1 - tolerance), the rule of three: 299 for the defaults. From a confidence of
    about 0.97 on the score bound is the wider one, z^2 (1 - tolerance) / tolerance. None where no number
    is enough (tolerance 0) or any is (1 and more).
    """
    if not 0 < gate.tolerance < 1:
        return None
    undisturbed = math.log(1 - gate.confidence) / math.log1p(-gate.tolerance)
    quantile = NormalDist().inv_cdf(gate.confidence)
    return math.ceil(max(undisturbed, quantile**2 * (1 - gate.tolerance) / gate.tolerance))


def _speed_text(gate: Gate, evidence: Evidence, speed: Latency) -> str | None:
    asked = gate.min_speedup
    reached = speed.speedup_high if evidence.is_smaller else speed.speedup
    if reached < asked:
        of_whom = "" if evidence.is_smaller else " of a file that is not smaller"
        return f"{_times(speed, asked)}, where {exact(asked)} is asked{of_whom}"
    if not evidence.is_smaller and speed.speedup_low <= 1:
        return f"not proven to be faster: {_times(speed, 1)}, and {_size_text(evidence)}"
    return None


def _times(speed: Latency, limit: float) -> str:
    """The speed-up and its bounds, none of them rounded to or across the limit that it is held against."""
    middle, low, high = (
        beyond(value, limit, decimals=2) for value in (speed.speedup, speed.speedup_low, speed.speedup_high)
    )
    return f"{middle} times the baseline's speed ({low} to {high})"


def _size_text(evidence: Evidence) -> str:
    share = beyond(evidence.size_share, SMALLER_SHARE, decimals=2)
    return f"not smaller ({share} of the baseline's size, where below {SMALLER_SHARE} counts)"


def _for(gate: Gate, evidence: Evidence) -> Iterator[str]:
    interval = evidence.interval
    low = beyond(interval.low, -gate.tolerance, sign="+")
    yield (
        f"score {interval.delta:+.4g}, at worst {low} at {percent(interval.confidence)} confidence: "
        f"within the tolerance of {exact(gate.tolerance)}"
    )
    if evidence.speed is not None:
        yield f"{beyond(evidence.speed.speedup, 1, decimals=2)} times the baseline's speed"
    yield f"{beyond(evidence.size_share, SMALLER_SHARE, decimals=2)} of the baseline's size"
    if evidence.compiles:
        yield "compiles for the target"


@dataclass(frozen=True)
class Candidate:
    """A variant that went through the gate."""

    evidence: Evidence
    report: GateReport


@dataclass(frozen=True)
class Choice:
    """The name that was chosen, and why."""

    name: str
    reasons: tuple[str, ...]


EQUAL_SPEED_SHARE = SESSION_SHARE
"""Speeds within that share of the fastest are equal: two sessions of one file differ by as much."""


def choose(
    candidates: Mapping[str, Candidate], *, baseline: str, refused: Mapping[str, str] | None = None
) -> Choice:
    """The fastest accepted variant, or else the baseline with the reason against every variant.

    `refused` has the reasons of variants that could not be made.

    Speeds within `EQUAL_SPEED_SHARE` of the fastest are equal; then the smaller file wins, to a hundredth
    of the baseline's size, then the better lower bound of the score, then the name. Without speeds (a GPU
    target) the smallest file wins.
    """
    accepted = {name: candidate for name, candidate in candidates.items() if candidate.report.accepted}
    if not accepted:
        against = {name: "; ".join(candidate.report.reasons) for name, candidate in candidates.items()}
        reasons = (f"{name}: {reason}" for name, reason in (against | dict(refused or {})).items())
        return Choice(baseline, tuple(reasons) or ("there is no variant",))
    fastest = max(_speedup(candidate) for candidate in accepted.values())
    equal = [name for name, some in accepted.items() if _speedup(some) >= fastest * (1 - EQUAL_SPEED_SHARE)]
    chosen = min(equal, key=lambda name: _rank(name, accepted[name]))
    return Choice(chosen, (_why(chosen, accepted, equal), *accepted[chosen].report.reasons))


def _speedup(candidate: Candidate) -> float:
    return 1.0 if candidate.evidence.speed is None else candidate.evidence.speed.speedup


def _rank(name: str, candidate: Candidate) -> tuple[float, float, str]:
    return round(candidate.evidence.size_share, 2), -candidate.evidence.interval.low, name


def _why(chosen: str, accepted: Mapping[str, Candidate], equal: Sequence[str]) -> str:
    """By what the chosen one beats the other accepted ones; `equal` are those as fast as the fastest."""
    if len(accepted) == 1:
        return f"{chosen} is the only accepted variant"
    if len(equal) == 1:
        return f"{chosen} is the fastest of {len(accepted)} accepted variants"
    peers = f"{len(accepted)} accepted variants"
    if accepted[chosen].evidence.speed is not None:
        peers = f"{len(equal)} equally fast ones, of {peers}"
    size = _rank(chosen, accepted[chosen])[0]
    rivals = [name for name in equal if name != chosen and _rank(name, accepted[name])[0] == size]
    if not rivals:
        return f"{chosen} is the smallest of {peers}"
    return (
        f"{chosen} is the most accurate at worst of {len(rivals) + 1} equally small ones, which are the "
        f"smallest of {peers}"
    )
