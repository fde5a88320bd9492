"""What `run` and `compress` answer: the JSON contract. Fields are added, never renamed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from jettison.compress.pruning.removed import PrunedLayer
from jettison.compress.quantization.layer_report import LayerReport
from jettison.compress.quantization.placement import LayerDecision
from jettison.evaluate.decisions import DecisionReport
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.saliency import SaliencyReport
from jettison.triton.publish import Published


@dataclass(frozen=True)
class Delivered(Published):
    """A version of the repository that holds the run's model.

    `is_new` is false where it stood there already, with the same files, and nothing was published.
    """

    is_new: bool = True


class BaselineResult(BaseModel):
    """The float model. Latency is null where the target is not this machine."""

    model_config = ConfigDict(frozen=True)

    path: Path
    size_bytes: int
    score: float
    latency_ms: float | None
    latency_p99_ms: float | None = None
    sha256: str | None = None
    latency_quantiles_ms: tuple[float, ...] = ()


class Explanation(BaseModel):
    """What became of each layer, which decisions changed, and whether both models look at the same parts.

    `saliency` is None where it was not asked for; `changed_saliency` is of changed decisions, and None where
    none changed.
    """

    model_config = ConfigDict(frozen=True)

    layers: tuple[LayerReport, ...]
    decisions: DecisionReport | NotApplicable = Field(discriminator="applies")
    saliency: SaliencyReport | NotApplicable | None = None
    changed_saliency: SaliencyReport | NotApplicable | None = None


class VariantResult(BaseModel):
    """One variant: what it is, what was measured, and what the gate says of it.

    `score_delta_low` is the lower bound of the paired confidence interval on (variant - baseline).
    `compiles` is TensorRT's answer, null where it was not asked or is not installed. A variant that a
    pass refused has no path, and its reasons say why. `int8_mac_share` and `fp8_mac_share` are of the
    multiply-accumulates, by the compiler's list of layers. `pruned` tells what passes of pruning removed from
    each layer; `compressed_bytes`, where there is any, what the numbers stored take when they are compressed.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path | None = None
    size_bytes: int | None = None
    score: float | None = None
    score_delta: float | None = None
    score_delta_low: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    accepted: bool = False
    reasons: tuple[str, ...] = ()
    compiles: bool | None = None
    layers_kept_in_float: tuple[str, ...] = ()
    latency_p99_ms: float | None = None
    speedup_low: float | None = None
    simulation_sqnr_db: float | None = None
    portable: bool | None = None
    int8_mac_share: float | None = None
    fp8_mac_share: float | None = None
    sha256: str | None = None
    layers: tuple[LayerDecision, ...] = ()
    notes: tuple[str, ...] = ()
    explanation: Explanation | None = None
    pruned: tuple[PrunedLayer, ...] = ()
    compressed_bytes: int | None = None
    latency_quantiles_ms: tuple[float, ...] = ()


class TargetResult(BaseModel):
    """All variants of one model for one target, and which of them was chosen, with reasons."""

    model_config = ConfigDict(frozen=True)

    model: str
    target: str
    baseline: BaselineResult
    variants: tuple[VariantResult, ...]
    chosen: str
    evaluations: int
    seconds: float
    peak_rss_bytes: int
    reasons: tuple[str, ...] = ()
    metric: str = ""
    evaluation_samples: int = 0
    notes: tuple[str, ...] = ()
    published: tuple[Delivered, ...] = ()

    @property
    def chosen_variant(self) -> VariantResult | None:
        """The chosen variant, or None where the baseline was chosen."""
        return next((variant for variant in self.variants if variant.name == self.chosen), None)


class Origin(BaseModel):
    """How a run was made: its command line, when it ended (ISO 8601), and on which processor."""

    model_config = ConfigDict(frozen=True)

    command: tuple[str, ...]
    at: str
    machine: str


class RunResult(TargetResult):
    """The first target's result, with every target's beside it."""

    targets: tuple[TargetResult, ...] = ()
    origin: Origin | None = None
