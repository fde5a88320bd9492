"""An experiment's settings from a YAML file, and what is wrong with them in words."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from jettison.core.errors import InputError
from jettison.core.strict_yaml import read_mapping
from jettison.core.validation import Location, nearest, problem_of, refuse_truth
from jettison.experiment.settings import LatencyLimit, Settings, Slice

LARGEST_SETTINGS_BYTES = 1 << 20
"""The longest have some kilobytes."""

_SECTIONS: dict[str, type[BaseModel]] = {"latency": LatencyLimit, "slices": Slice}


def load_settings(path: Path) -> Settings:
    """The settings in a YAML file.

    Raises:
        InputError: No such file; not YAML; an unknown key, with the nearest known one; an impossible value.
    """
    what = f"experiment {path}"
    document = read_mapping(
        path, what, most=LARGEST_SETTINGS_BYTES, form="Give settings", start="Start with `name:`"
    )
    try:
        refuse_truth(document, Settings)
        return Settings.model_validate(document)
    except ValidationError as error:
        raise settings_error(what, error) from error
    except ValueError as error:
        raise InputError(what, detail=str(error), fix="Write a number") from error


def settings_error(what: str, error: ValidationError) -> InputError:
    """The first thing that is wrong, with the nearest known key."""
    problem = problem_of(error, unknown_key_fix=_unknown_key_fix)
    return InputError(what, detail=problem.detail, fix=problem.fix)


def _unknown_key_fix(location: Location) -> str:
    *outer, key = (str(part) for part in location)
    section = _SECTIONS.get(outer[0], Settings) if outer else Settings
    return nearest(key, section.model_fields)
