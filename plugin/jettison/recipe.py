"""The recipe: what to make of which model, for where, and what it must hold, as types."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from jettison.compress.quantization.cast import CastFloat16
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.core.errors import TargetError
from jettison.core.targets import Target, parse_target
from jettison.core.validation import ImpossibleValueError, refuse_truth, shown
from jettison.evaluate.gate import Gate
from jettison.recipe_passes import SEARCHING, TRAINING, PassField, check_order
from jettison.sources.source import Source

BASELINE = "baseline"
"""The name of the model itself among its variants."""
FLOAT_SUFFIX = "fp32"
"""Behind a model's name, the name under which the baseline is published."""
_LONGEST_NAME = 128
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_.-]{{0,{_LONGEST_NAME - 1}}}")
_CLOSED = ConfigDict(frozen=True, extra="forbid")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        fix = "Begin with a letter, go on with letters, digits, _ . and -, 128 at most"
        raise ImpossibleValueError(f"expected a name, found {shown(value)}", fix=fix)
    return value


Name = Annotated[str, AfterValidator(_name)]


class ModelSource(Source):
    """The model and the name under which it is reported and published."""

    name: Name


class SampleSources(BaseModel):
    """Where samples come from: a file, a folder of shards, or package.module:function."""

    model_config = _CLOSED

    calibration: str
    search: str | None = None
    evaluation: str | None = None
    training: str | None = None


class Variant(BaseModel):
    """A name, and the passes that make the variant, in order."""

    model_config = _CLOSED

    name: Name
    passes: tuple[PassField, ...] = Field(min_length=1)

    @field_validator("passes")
    @classmethod
    def _in_order(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        check_order(value)
        return value

    @property
    def searches(self) -> bool:
        """Whether any of the passes judges its choices by joint evaluations."""
        return any(isinstance(found, SEARCHING) for found in self.passes)

    @property
    def trains(self) -> bool:
        """Whether any of the passes learns from training samples."""
        return any(isinstance(found, TRAINING) for found in self.passes)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Libraries beside the common ones whose versions can change what the passes make."""
        return tuple(sorted({name for found in self.passes for name in getattr(found, "libraries", ())}))


class Publication(BaseModel):
    """Where the baseline and the chosen variant are published."""

    model_config = _CLOSED

    repository: Path
    keep_versions: int = Field(default=2, ge=1, strict=True)


class Recipe(BaseModel):
    """One model, its samples, its targets, the variants to try and the gate that they must pass."""

    model_config = _CLOSED

    model: ModelSource
    samples: SampleSources
    metric: str | None = None
    targets: tuple[Target, ...] = (Target(name="cpu", dialect="cpu"),)
    variants: tuple[Variant, ...] = ()
    gate: Gate = Gate()
    publish: Publication | None = None
    seed: int = Field(default=0, ge=0, strict=True)
    threads: int = Field(default=0, ge=0, strict=True)
    explain: bool = True
    time_budget_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, strict=True)

    @field_validator("targets", mode="before")
    @classmethod
    def _parse_targets(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"expected a list such as [cpu, sm89], found {shown(value)}")
        try:
            found = tuple(entry if isinstance(entry, Target) else parse_target(str(entry)) for entry in value)
        except TargetError as error:
            raise ImpossibleValueError(f"{error.what}: {error.detail}", fix=error.fix) from error
        twice = _twice([target.name for target in found])
        if twice:
            raise ImpossibleValueError(f"found {', '.join(twice)} twice", fix="Name each target once")
        return found

    @field_validator("gate", mode="before")
    @classmethod
    def _gate_in_numbers(cls, value: Any) -> Any:
        return refuse_truth(value, Gate)

    @field_validator("variants")
    @classmethod
    def _distinct_names(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        twice = ", ".join(_twice([BASELINE, *(variant.name for variant in value)]))
        if twice:
            fix = f"Give each variant a name of its own; {BASELINE!r} is the model itself"
            raise ImpossibleValueError(f"found the name {twice} twice", fix=fix)
        return value

    @model_validator(mode="after")
    def _published_names(self) -> Recipe:
        """What may be chosen can be published: known before the work and not after it."""
        names = [FLOAT_SUFFIX, *(variant.name for variant in self.variants)] if self.publish else []
        if _twice(names):
            raise ImpossibleValueError(
                f"{self.model.name}-{FLOAT_SUFFIX} is the name under which the baseline is published",
                fix=f"Give the variant {FLOAT_SUFFIX!r} another name",
            )
        longest = max((f"{self.model.name}-{name}" for name in names), key=len, default="")
        if len(longest) > _LONGEST_NAME:
            raise ImpossibleValueError(
                f"expected published names of {_LONGEST_NAME} characters at most, found {longest!r} with "
                f"{len(longest)}",
                fix="Shorten the name of the model or of the variant",
            )
        return self

    @property
    def searching(self) -> str | None:
        """The name of a variant that judges its choices by samples, or None."""
        return next((variant.name for variant, _ in self.tried if variant.searches), None)

    @property
    def tried(self) -> tuple[tuple[Variant, Target], ...]:
        """Every variant with every target that it is tried for."""
        return tuple((variant, target) for target in self.targets for variant in self.variants_for(target))

    def variants_for(self, target: Target) -> tuple[Variant, ...]:
        """The recipe's variants, or a sensible set for the target where it names none."""
        return self.variants or default_variants(target)


def _twice(names: Collection[str]) -> list[str]:
    """The names that stand there more than once."""
    return sorted({name for name in names if list(names).count(name) > 1})


def default_variants(target: Target) -> tuple[Variant, ...]:
    """What is worth trying on a target: static INT8, plain and with every repair, and the cheap forms."""
    full, repaired = QuantizeFull(), QuantizeFull(ranges="measure", repair="all")
    if target.is_gpu:
        half = CastFloat16()
        return (
            Variant(name="float16", passes=(half,)),
            Variant(name="int8", passes=(full, half)),
            Variant(name="int8-tuned", passes=(repaired, half)),
        )
    return (
        Variant(name="int8", passes=(full,)),
        Variant(name="int8-tuned", passes=(repaired,)),
        Variant(name="dynamic", passes=(QuantizeDynamic(),)),
    )
