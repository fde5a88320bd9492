"""Patterns that match nothing in the model, of `keep_float` or `keep_dense`: told before any work."""

from __future__ import annotations

import onnx_ir as ir

from jettison.compress.passes import Workpiece
from jettison.core.errors import RecipeError
from jettison.graph.clean import clean
from jettison.recipe import Recipe

_KEYS = ("keep_float", "keep_dense")


def check_patterns(recipe: Recipe, model: ir.Model) -> None:
    """Nothing, where each pattern of the variants' first passes matches; later ones see another graph.

    Raises:
        RecipeError: A pattern matches nothing, with the names that there are.
    """
    asked = [pair for pair in recipe.tried if any(getattr(pair[0].passes[0], key, ()) for key in _KEYS)]
    if not asked:
        return
    cleaned = clean(model)
    for variant, target in asked:
        refusal = variant.passes[0].check(Workpiece(model=cleaned, target=target))
        if refusal is not None and refusal.reasons[0].startswith(tuple(f"{key}: " for key in _KEYS)):
            what = f"variant {variant.name!r}"
            raise RecipeError(what, detail=refusal.reasons[0], fix=refusal.instead)
