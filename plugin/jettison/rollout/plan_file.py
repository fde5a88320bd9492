"""A rollout's plan from a YAML file, and what is wrong with it in words."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pydantic import ValidationError

from jettison.core.errors import InputError
from jettison.core.strict_yaml import read_mapping
from jettison.core.validation import nearest_key, problem_of
from jettison.rollout.plan import RolloutPlan

LARGEST_PLAN_BYTES = 1 << 20
"""The longest have some kilobytes."""


def load_plan(path: Path) -> RolloutPlan:
    """The plan in a YAML file.

    Raises:
        InputError: No such file; not YAML; an unknown key, with the nearest known one; an impossible value.
    """
    what = f"rollout plan {path}"
    document = read_mapping(
        path, what, most=LARGEST_PLAN_BYTES, form="Give a plan", start="Start with `name:`"
    )
    try:
        return RolloutPlan.model_validate(document)
    except ValidationError as error:
        problem = problem_of(error, unknown_key_fix=partial(nearest_key, RolloutPlan))
        raise InputError(what, detail=problem.detail, fix=problem.fix) from error
