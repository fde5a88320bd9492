"""Settings that would have no effect beside the others: refused, in the words of the place they stand in.

What someone wrote down and nothing reads is mostly a mistake about something else: a search that was
forgotten, a speed that is taken for proven. Where the variants are the default ones, which are Jettison's
own choice, it is a note in the report instead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from jettison.core.errors import RecipeError
from jettison.core.targets import Target
from jettison.recipe import Recipe


@dataclass(frozen=True)
class Spelling:
    """How settings are written in one place: as keys of a recipe, or as options.

    `searching` is a variant that searches, and `learning` one that trains, as they are written there.
    """

    search: str
    time_budget: str
    min_speedup: str
    target: str
    searching: str
    training: str
    learning: str


KEYS = Spelling(
    search="samples.search",
    time_budget="time_budget_s",
    min_speedup="gate.min_speedup",
    target="targets: [cpu]",
    searching="{name: part, passes: [{quantize: partial}]}",
    training="samples.training",
    learning="{name: trained, passes: [{quantize: full}, {train: labels}]}",
)
OPTIONS = Spelling(
    search="--search",
    time_budget="--time-budget",
    min_speedup="--min-speedup",
    target="--target cpu",
    searching="--variant 'part=[{quantize: partial}]'",
    training="--training",
    learning="--variant 'trained=[{quantize: full}, {train: labels}]'",
)


def check_effects(recipe: Recipe, what: str, *, spelled: Spelling = KEYS) -> None:
    """Nothing, where all that was given is read by something, and all that is read was given.

    Raises:
        RecipeError: As `refuse_idle` and `refuse_unfed`.
    """
    refuse_idle(recipe, what, spelled=spelled)
    refuse_unfed(recipe, what, spelled=spelled)


def refuse_idle(recipe: Recipe, what: str, *, spelled: Spelling = KEYS) -> None:
    """Nothing, where every setting that was given is read by something.

    Raises:
        RecipeError: Samples or a time for searches, and none of the given variants searches; training
            samples, and none trains; a speed to reach, and no target on which one is measured.
    """
    if recipe.variants and _has_idle_training(recipe):
        names = ", ".join(variant.name for variant in recipe.variants)
        raise RecipeError(
            what,
            detail=f"{spelled.training} has no effect: expected a variant that trains, found only {names}",
            fix=f"Leave it out, or add a variant such as {spelled.learning}",
        )
    idle = _idle_in_search(recipe, search=spelled.search, time_budget=spelled.time_budget)
    if recipe.variants and idle:
        names = ", ".join(variant.name for variant in recipe.variants)
        raise RecipeError(
            what,
            detail=f"{idle[0]} has no effect: expected a variant that searches, found only {names}",
            fix=f"Leave it out, or add a variant such as {spelled.searching}",
        )
    if "min_speedup" in recipe.gate.model_fields_set:
        refuse_unmeasured_speed(recipe.targets, what, spelled=spelled)


def refuse_unfed(recipe: Recipe, what: str, *, spelled: Spelling = KEYS) -> None:
    """Nothing, where every variant that trains has samples to learn from.

    Raises:
        RecipeError: One trains, and no training samples are given.
    """
    if recipe.samples.training is None and (
        learner := next((found for found in recipe.variants if found.trains), None)
    ):
        raise RecipeError(
            what,
            detail=f"expected {spelled.training}, since variant {learner.name!r} trains, found none",
            fix="Give samples to learn from, none of which decides",
        )


def refuse_unmeasured_speed(targets: Collection[Target], what: str, *, spelled: Spelling = OPTIONS) -> None:
    """Nothing, where some target is this machine: on others no latency is measured.

    Raises:
        RecipeError: All targets are GPUs, so that the least speed would judge nothing.
    """
    if all(target.is_gpu for target in targets):
        names = ", ".join(target.name for target in targets)
        raise RecipeError(
            what,
            detail=f"{spelled.min_speedup} has no effect: expected target cpu, where latency is measured, "
            f"found only {names}",
            fix=f"Leave it out, or give {spelled.target}",
        )


def idle_notes(recipe: Recipe) -> tuple[str, ...]:
    """What was given for searches or training where the default variants are tried, which do neither."""
    if recipe.variants:
        return ()
    idle = " and ".join(_idle_in_search(recipe, search="search samples", time_budget="time budget"))
    notes = (f"not used: {idle}, since no default variant searches; {{quantize: partial}} does",)
    untrained = "not used: training samples, since no default variant trains; {train: labels} does"
    return (*(notes if idle else ()), *((untrained,) if _has_idle_training(recipe) else ()))


def _has_idle_training(recipe: Recipe) -> bool:
    """Whether training samples were given, and no variant that is tried trains."""
    return recipe.samples.training is not None and not any(variant.trains for variant, _ in recipe.tried)


def _idle_in_search(recipe: Recipe, *, search: str, time_budget: str) -> list[str]:
    """What was given for searches and is read by none of the variants that are tried, by these names."""
    if recipe.searching is not None:
        return []
    given = {search: recipe.samples.search, time_budget: recipe.time_budget_s}
    return [name for name, value in given.items() if value is not None]
