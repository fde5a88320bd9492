"""A finished run as its folder tells it: `report.json`, read as far as the page needs it.

Every field may be missing: an older run has less to tell, and NaN is null in JSON. What is there must have
the right form, else the file is no report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.artifacts import LINEAGE_FILE, Lineage
from jettison.core.errors import RecipeError
from jettison.core.files import read_bounded

REPORT_FILE = "report.json"
BASELINE = "baseline"
_LARGEST_BYTES = 1 << 29
_HOW = "Give the folder that `jettison run` or `jettison compress` wrote, or run again"


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Seen(_Told):
    """How often values were seen, in equal bins from `low` to `high`."""

    low: float | None = None
    high: float | None = None
    shares: tuple[float | None, ...] = ()


class LayerInput(_Told):
    """How a layer's input is rounded, and what was seen of it."""

    element_type: str | None = None
    low: float | None = None
    high: float | None = None
    seen_low: float | None = None
    seen_high: float | None = None
    clip_share: float | None = None
    seen: Seen | None = None


class LayerWeight(_Told):
    """How a layer's weight is stored."""

    element_type: str | None = None
    size_bytes: int | None = None
    baseline_size_bytes: int | None = None


class LayerTime(_Told):
    """A layer's time in both models."""

    baseline_us: float | None = None
    variant_us: float | None = None


class Layer(_Told):
    """One layer, and what became of it."""

    node: str = ""
    kind: str = ""
    quantized: bool = False
    reason: str | None = None
    sqnr_db: float | None = None
    weight: LayerWeight = LayerWeight()
    input: LayerInput = LayerInput()
    time: LayerTime | None = None


class Change(_Told):
    """One sample that is decided otherwise."""

    sample: int
    from_class: int | None = None
    to_class: int | None = None
    baseline_margin: float | None = None
    variant_margin: float | None = None
    label: int | None = None
    effect: Literal["worse", "better", "same"] | None = None


class Decisions(_Told):
    """What is decided otherwise, or why that cannot be told."""

    applies: bool = True
    reason: str = ""
    samples: int | None = None
    changed: int | None = None
    worse: int | None = None
    better: int | None = None
    baseline_margin_median: float | None = None
    decisions: tuple[Change, ...] = ()


class Look(_Told):
    """What both models look at in one sample."""

    sample: int
    class_number: int | None = None
    variant_class: int | None = None
    rank_correlation: float | None = None
    top_overlap: float | None = None
    baseline_map: tuple[tuple[float | None, ...], ...] = ()
    variant_map: tuple[tuple[float | None, ...], ...] = ()


class Saliency(_Told):
    """What both models look at, or why that cannot be told."""

    applies: bool = True
    reason: str = ""
    kind: Literal["image", "tokens"] = "image"
    rank_correlation: float | None = None
    rank_correlation_low: float | None = None
    top_overlap: float | None = None
    samples: tuple[Look, ...] = ()


class Explanation(_Told):
    """Layers, decisions, and what is looked at."""

    layers: tuple[Layer, ...] = ()
    decisions: Decisions | None = None
    saliency: Saliency | None = None
    changed_saliency: Saliency | None = None


class Variant(_Told):
    """One variant's figures; the baseline's too, of which some have no meaning."""

    name: str = BASELINE
    path: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    score: float | None = None
    score_delta: float | None = None
    score_delta_low: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_quantiles_ms: tuple[float | None, ...] = ()
    speedup: float | None = None
    accepted: bool = False
    reasons: tuple[str, ...] = ()
    compiles: bool | None = None
    layers_kept_in_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    explanation: Explanation | None = None


class Target(_Told):
    """All variants for one target."""

    model: str = ""
    target: str = ""
    baseline: Variant = Variant()
    variants: tuple[Variant, ...] = ()
    chosen: str = BASELINE
    reasons: tuple[str, ...] = ()
    metric: str = ""
    evaluation_samples: int | None = None
    evaluations: int | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def everyone(self) -> tuple[Variant, ...]:
        """The baseline, and all variants behind it."""
        return (self.baseline, *self.variants)


class Origin(_Told):
    """How the run was made."""

    command: tuple[str, ...] = ()
    at: str = ""
    machine: str = ""


class Run(Target):
    """The whole run."""

    targets: tuple[Target, ...] = ()
    origin: Origin | None = None

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Every target's results; of a document without a list, its own."""
        return self.targets or (self,)


def read_run(folder: Path) -> Run:
    """The run in that folder.

    Raises:
        RecipeError: The folder holds no report, or one that is damaged.
    """
    what = f"run {folder}"
    file = folder / REPORT_FILE
    if not file.is_file():
        raise RecipeError(what, detail=f"expected a finished run with {REPORT_FILE}, found none", fix=_HOW)
    content = read_bounded(file, what, most=_LARGEST_BYTES, missing=_HOW, fix=_HOW)
    try:
        return Run.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or REPORT_FILE
        raise RecipeError(
            what, detail=f"expected the JSON of a run, found {where}: {first['msg']}", fix=_HOW
        ) from error


def read_lineage(folder: Path) -> Lineage | None:
    """Who made the model in that folder from what; None where that is not told, or not in our words."""
    try:
        return Lineage.model_validate_json((folder / LINEAGE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
