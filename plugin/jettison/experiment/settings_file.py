"""An experiment's settings from a YAML file, and what is wrong with them in words."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pydantic import ValidationError

from jettison.core.errors import InputError
from jettison.core.strict_yaml import read_mapping
from jettison.core.validation import nearest_key, problem_of, refuse_truth
from jettison.experiment.settings import Settings

LARGEST_SETTINGS_BYTES = 1 << 20
"""The longest have some kilobytes."""


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
    problem = problem_of(error, unknown_key_fix=partial(nearest_key, Settings))
    return InputError(what, detail=problem.detail, fix=problem.fix)
