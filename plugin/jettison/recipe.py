"""The recipe: what to make of which model, for where, and what it must hold, as types.

The literal table `PASSES` is the only place that knows which passes there are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from jettison.compress.passes import Pass
from jettison.compress.quantization.cast import CastBfloat16, CastFloat16
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.modelopt import QuantizeModelopt
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.errors import TargetError
from jettison.core.targets import Target, parse_target
from jettison.core.validation import ImpossibleValueError, nearest, refuse_truth, shown
from jettison.evaluate.gate import Gate

PASSES: dict[tuple[str, str], type[BaseModel]] = {
    ("quantize", "full"): QuantizeFull,
    ("quantize", "partial"): QuantizePartial,
    ("quantize", "dynamic"): QuantizeDynamic,
    ("quantize", "float16"): CastFloat16,
    ("quantize", "bfloat16"): CastBfloat16,
    ("quantize", "float8"): QuantizeFloat8,
    ("quantize", "int4"): QuantizeInt4,
}
"""Each pass by its verb and kind, as in `{quantize: full}`."""

BACKENDS: dict[tuple[str, str, str], type[BaseModel]] = {
    ("quantize", "full", "modelopt"): QuantizeModelopt,
}
"""Other makers of a pass's result, by its verb, kind and `backend`."""

SEARCHING: tuple[type[BaseModel], ...] = (QuantizePartial,)
"""Passes whose result depends on joint evaluations: on search samples, metric, tolerance and machine."""

COUNTS_ONLY_WITH: dict[str, tuple[str, str]] = {"percentile": ("ranges", "percentile")}
"""Keys that have no effect unless another key of their pass has that value: refused where they are given."""

_OTHER_WORDS = {"{quantize: int8}": ["{quantize: full}"]}
"""What is meant by spellings to which another pass only looks nearer."""

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


def _pass_of(value: object) -> Pass:
    """The pass that a mapping like `{quantize: full, ranges: mse}` describes."""
    if isinstance(value, BaseModel):
        return value  # type: ignore[return-value]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"a pass is a mapping such as {{quantize: full}}, found {shown(value)}")
    verbs = {verb for verb, _ in PASSES}
    verb = next((key for key in value if key in verbs), next(iter(value)))
    spelled = f"{{{verb}: {value[verb]}}}"
    known = PASSES.get((str(verb), str(value[verb])))
    if known is None:
        every = [f"{{{verb}: {kind}}}" for verb, kind in PASSES]
        near = _OTHER_WORDS.get(spelled, difflib.get_close_matches(spelled, every, n=1))
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ImpossibleValueError(f"there is no pass {spelled}", fix=f"{hint}Passes are {', '.join(every)}")
    if "backend" in value:
        known = _backend_of(value, str(verb), spelled)
    _check_keys(value, known, spelled)
    return known.model_validate(value)  # type: ignore[return-value]


def _backend_of(value: Mapping[object, object], verb: str, spelled: str) -> type[BaseModel]:
    """The pass that stands in for the one of that verb and kind."""
    there = {key[2]: found for key, found in BACKENDS.items() if key[:2] == (verb, str(value[verb]))}
    found = there.get(str(value["backend"]))
    if found is None:
        raise ImpossibleValueError(
            f"{spelled} has no backend {shown(value['backend'])}",
            fix=f"Leave it out for Jettison's own{''.join(f', or write backend: {name}' for name in there)}",
        )
    return found


def _check_keys(value: Mapping[object, object], known: type[BaseModel], spelled: str) -> None:
    """Refuses keys that the pass does not have, that have no effect, and `yes` where a number belongs."""
    for key in value:
        if key not in known.model_fields:
            fix = nearest(str(key), known.model_fields)
            raise ImpossibleValueError(f"{spelled} has no key {shown(key)}", fix=fix)
    for key in value.keys() & COUNTS_ONLY_WITH.keys():
        other, needed = COUNTS_ONLY_WITH[str(key)]
        chosen = (
            value.get(other, known.model_fields[other].default) if other in known.model_fields else needed
        )
        if chosen != needed:
            raise ImpossibleValueError(
                f"{key} has no effect with {other}: {chosen}",
                fix=f"Leave it out, or write {other}: {needed}",
            )
    refuse_truth(value, known)


PassField = Annotated[Any, BeforeValidator(_pass_of)]


class ModelSource(BaseModel):
    """The model and the name under which it is reported and published."""

    model_config = _CLOSED

    name: Name
    path: Path


class SampleSources(BaseModel):
    """Where samples come from: a file, a folder of shards, or package.module:function."""

    model_config = _CLOSED

    calibration: str
    search: str | None = None
    evaluation: str | None = None


class Variant(BaseModel):
    """A name, and the passes that make the variant, in order."""

    model_config = _CLOSED

    name: Name
    passes: tuple[PassField, ...] = Field(min_length=1)

    @property
    def searches(self) -> bool:
        """Whether any of the passes judges its choices by joint evaluations."""
        return any(isinstance(found, SEARCHING) for found in self.passes)


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
    """What is worth trying on a target: static INT8 by two range methods, and the cheap forms beside it."""
    full, mse = QuantizeFull(), QuantizeFull(ranges="mse")
    if target.is_gpu:
        half = CastFloat16()
        return (
            Variant(name="float16", passes=(half,)),
            Variant(name="int8", passes=(full, half)),
            Variant(name="int8-mse", passes=(mse, half)),
        )
    return (
        Variant(name="int8", passes=(full,)),
        Variant(name="int8-mse", passes=(mse,)),
        Variant(name="dynamic", passes=(QuantizeDynamic(),)),
    )
