"""A rollout's plan from a YAML file, and what is wrong with it in words."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from jettison.core.errors import InputError
from jettison.core.strict_yaml import read_mapping
from jettison.core.validation import Location, nearest, problem_of
from jettison.rollout.plan import RolloutPlan, Step, VerdictEndpoint

LARGEST_PLAN_BYTES = 1 << 20
"""The longest have some kilobytes."""
_SECTIONS: dict[str, type[BaseModel]] = {"verdict": VerdictEndpoint, "steps": Step}


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
        problem = problem_of(error, unknown_key_fix=_unknown_key_fix)
        raise InputError(what, detail=problem.detail, fix=problem.fix) from error


def _unknown_key_fix(location: Location) -> str:
    *outer, key = (str(part) for part in location)
    section = _SECTIONS.get(outer[0], RolloutPlan) if outer else RolloutPlan
    return nearest(key, section.model_fields)
