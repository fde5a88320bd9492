"""The recipe: what to make of which model, for where, and what it must hold, as typed YAML.

The literal table `PASSES` is the only place that knows which passes there are.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from jettison.compress.passes import Pass
from jettison.compress.quantization.cast import CastBfloat16, CastFloat16
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.core.errors import RecipeError, TargetError
from jettison.core.targets import Target, parse_target
from jettison.evaluate.gate import Gate

PASSES: dict[tuple[str, str], type[BaseModel]] = {
    ("quantize", "full"): QuantizeFull,
    ("quantize", "partial"): QuantizePartial,
    ("quantize", "dynamic"): QuantizeDynamic,
    ("quantize", "float16"): CastFloat16,
    ("quantize", "bfloat16"): CastBfloat16,
}
"""Each pass by its verb and kind, as in `{quantize: full}`."""

SEARCHING: tuple[type[BaseModel], ...] = (QuantizePartial,)
"""Passes whose result depends on joint evaluations: on search samples, metric, tolerance and machine."""

LARGEST_RECIPE_BYTES = 1 << 20
_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$"
BASELINE = "baseline"
"""The name of the model itself among its variants."""
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: its own, ValueError for impossible dates and text, RecursionError for deep nesting."""
_CLOSED = ConfigDict(frozen=True, extra="forbid")


def _pass_of(value: object) -> Pass:
    """The pass that a mapping like `{quantize: full, ranges: mse}` describes."""
    if isinstance(value, BaseModel):
        return value  # type: ignore[return-value]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"a pass is a mapping such as {{quantize: full}}, found {value!r}")
    verbs = {verb for verb, _ in PASSES}
    verb = next((key for key in value if key in verbs), next(iter(value)))
    known = PASSES.get((str(verb), str(value[verb])))
    if known is None:
        spelled = [f"{{{verb}: {kind}}}" for verb, kind in PASSES]
        near = difflib.get_close_matches(f"{{{verb}: {value[verb]}}}", spelled, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"there is no pass {{{verb}: {value[verb]}}}; {hint}passes are {', '.join(spelled)}")
    return known.model_validate(value)  # type: ignore[return-value]


PassField = Annotated[Any, BeforeValidator(_pass_of)]


class ModelSource(BaseModel):
    """The model and the name under which it is reported and published."""

    model_config = _CLOSED

    name: str = Field(pattern=_NAME)
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

    name: str = Field(pattern=_NAME)
    passes: tuple[PassField, ...] = Field(min_length=1)

    @property
    def searches(self) -> bool:
        """Whether any of the passes judges its choices by joint evaluations."""
        return any(isinstance(found, SEARCHING) for found in self.passes)


class Publication(BaseModel):
    """Where the baseline and the chosen variant are published."""

    model_config = _CLOSED

    repository: Path
    keep_versions: int = Field(default=2, ge=1)


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
    seed: int = 0
    threads: int = Field(default=0, ge=0)

    @field_validator("targets", mode="before")
    @classmethod
    def _parse_targets(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("targets is a list such as [cpu, sm89]")
        try:
            return tuple(entry if isinstance(entry, Target) else parse_target(str(entry)) for entry in value)
        except TargetError as error:
            raise ValueError(f"{error.what}: {error.detail}. {error.fix}") from error

    @field_validator("variants")
    @classmethod
    def _distinct_names(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in value]
        twice = sorted({name for name in names if names.count(name) > 1 or name == BASELINE})
        if twice:
            raise ValueError(
                f"variant names must differ, and {BASELINE!r} is the model itself; found {twice}"
            )
        return value

    def variants_for(self, target: Target) -> tuple[Variant, ...]:
        """The recipe's variants, or a sensible set for the target where it names none."""
        return self.variants or default_variants(target)


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


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, its paths taken from the file's own folder.

    Raises:
        RecipeError: No such file; not YAML; an unknown key, with the nearest known one; an impossible value.
    """
    document = _read_yaml(path)
    if not isinstance(document, dict):
        raise RecipeError(f"recipe {path}", detail="expected a mapping of keys", fix="Start with `model:`")
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise recipe_error(f"recipe {path}", error) from error
    return _located(recipe, path.parent)


def parse_variant(text: str) -> Variant:
    """The variant in `NAME=[{quantize: full}]`.

    Raises:
        RecipeError: The text is not of that form, or names a pass that does not exist.
    """
    name, separator, passes = text.partition("=")
    try:
        document = yaml.safe_load(passes) if separator else None
    except _NOT_YAML as error:
        raise RecipeError(f"variant {text!r}", detail=f"not YAML: {error}", fix=_VARIANT_FORM) from error
    if not isinstance(document, list):
        raise RecipeError(f"variant {text!r}", detail="expected NAME=[PASS, ...]", fix=_VARIANT_FORM)
    try:
        return Variant(name=name, passes=tuple(document))
    except ValidationError as error:
        raise recipe_error(f"variant {text!r}", error) from error


_VARIANT_FORM = "Write it like --variant 'int8=[{quantize: full}]'"


def _read_yaml(path: Path) -> object:
    if not path.is_file():
        raise RecipeError(
            f"recipe {path}", detail="there is no such file", fix="Give the path of a YAML file"
        )
    if path.stat().st_size > LARGEST_RECIPE_BYTES:
        raise RecipeError(
            f"recipe {path}",
            detail=f"larger than {LARGEST_RECIPE_BYTES} bytes",
            fix="Give a recipe, not a model",
        )
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except _NOT_YAML as error:
        raise RecipeError(f"recipe {path}", detail=f"not YAML: {error}", fix="Correct the syntax") from error


def _located(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with relative paths taken from its folder."""
    model = recipe.model.model_copy(update={"path": folder / recipe.model.path})
    sources = {name: _source(text, folder) for name, text in recipe.samples.model_dump().items()}
    publish = recipe.publish
    if publish is not None:
        publish = publish.model_copy(update={"repository": folder / publish.repository})
    return recipe.model_copy(update={"model": model, "samples": SampleSources(**sources), "publish": publish})


def _source(text: str | None, folder: Path) -> str | None:
    if text is None or ":" in text:
        return text
    return str(folder / text)


def recipe_error(what: str, error: ValidationError) -> RecipeError:
    """The first thing that pydantic found wrong, in words, with the nearest known key."""
    found = error.errors()[0]
    place = ".".join(str(part) for part in found["loc"] if part != "function-before")
    if found["type"] == "extra_forbidden":
        return RecipeError(what, detail=f"unknown key {place!r}", fix=_nearest_key(str(found["loc"][-1])))
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "missing":
        return RecipeError(what, detail=f"the key {place!r} is missing", fix="Add it")
    return RecipeError(what, detail=f"{place}: {message}", fix=f"Found {found['input']!r}; correct it")


def _nearest_key(key: str) -> str:
    models: tuple[type[BaseModel], ...] = (
        Recipe, ModelSource, SampleSources, Variant, Publication, Gate, *PASSES.values()
    )  # fmt: skip
    known = sorted({name for model in models for name in model.model_fields})
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known keys are {', '.join(known)}"
