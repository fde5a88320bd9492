"""Recipes and variants as text: from YAML to the types of `recipe`, and what is wrong with it in words."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from jettison.compress.distillation.distill_pass import Distill
from jettison.core.errors import RecipeError
from jettison.core.samples import names_function
from jettison.core.strict_yaml import load_yaml
from jettison.core.validation import Location, models_in, nearest_key, problem_of
from jettison.recipe import Recipe, SampleSources, Variant
from jettison.recipe_effects import check_effects
from jettison.recipe_passes import PASSES

LARGEST_RECIPE_BYTES = 1 << 20
"""The longest recipe has some kilobytes; what is larger is a model, given in its place, and is not read."""

_VARIANT_FORM = "Write it like --variant 'int8=[{quantize: full}]'"


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, its paths taken from the file's own folder.

    Raises:
        RecipeError: No such file; not YAML; an unknown key, with the nearest known one; an impossible value;
            a setting that would have no effect.
    """
    what = f"recipe {path}"
    document = load_yaml(_content(path), what=what, fix="Correct the syntax")
    if not isinstance(document, dict):
        raise RecipeError(what, detail="expected a mapping of keys", fix="Start with `model:`")
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise recipe_error(what, error) from error
    check_effects(recipe, what)
    return _located(recipe, path.parent)


def parse_variant(text: str) -> Variant:
    """The variant in `NAME=[{quantize: full}]`.

    Raises:
        RecipeError: The text is not of that form, or names a pass that does not exist.
    """
    name, separator, passes = text.partition("=")
    document = load_yaml(passes, what=f"variant {text!r}", fix=_VARIANT_FORM) if separator else None
    if not isinstance(document, list):
        raise RecipeError(f"variant {text!r}", detail="expected NAME=[PASS, ...]", fix=_VARIANT_FORM)
    try:
        return Variant(name=name, passes=tuple(document))
    except ValidationError as error:
        raise recipe_error(f"variant {text!r}", error) from error


def recipe_error(what: str, error: ValidationError) -> RecipeError:
    """The first thing that pydantic found wrong, in words, with the nearest known key."""
    problem = problem_of(error, unknown_key_fix=_unknown_key_fix)
    return RecipeError(what, detail=problem.detail, fix=problem.fix)


def _content(path: Path) -> bytes:
    if not path.is_file():
        detail = "it is a folder" if path.is_dir() else "there is no such file"
        raise RecipeError(f"recipe {path}", detail=detail, fix="Give the path of a YAML file")
    if path.stat().st_size > LARGEST_RECIPE_BYTES:
        raise RecipeError(
            f"recipe {path}",
            detail=f"larger than {LARGEST_RECIPE_BYTES} bytes",
            fix="Give a recipe, not a model",
        )
    return path.read_bytes()


def _located(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with relative paths taken from its folder."""
    model = recipe.model.model_copy(update=recipe.model.located(folder))
    sources = {name: _source(text, folder) for name, text in recipe.samples.model_dump().items()}
    publish = recipe.publish
    if publish is not None:
        publish = publish.model_copy(update={"repository": folder / publish.repository})
    update = {"model": model, "samples": SampleSources(**sources), "publish": publish}
    variants = tuple(_in_folder(variant, folder) for variant in recipe.variants)
    return recipe.model_copy(update={**update, "variants": variants})


def _in_folder(variant: Variant, folder: Path) -> Variant:
    """The variant whose passes take relative paths from that folder."""
    passes = tuple(step.located(folder) if isinstance(step, Distill) else step for step in variant.passes)
    return variant.model_copy(update={"passes": passes})


def _source(text: str | None, folder: Path) -> str | None:
    if text is None or names_function(text):
        return text
    return str(folder / text)


def _unknown_key_fix(location: Location) -> str:
    """The section that the key belongs in, or else the nearest key that is known at that place."""
    key = str(location[-1])
    elsewhere = [
        name
        for name, field in Recipe.model_fields.items()
        if any(key in model.model_fields for model in models_in(field.annotation))
    ]
    if any(key in known.model_fields for known in PASSES.values()):
        elsewhere.append("a pass")
    if elsewhere:
        return f"It belongs in {' or '.join(elsewhere)}"
    return nearest_key(Recipe, location)
