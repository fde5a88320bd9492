"""The one tree of errors, each with the exit code that the command line returns for it.

JettisonError
├── InputError               2  the user gave something that cannot work
│   ├── ModelError              a model file or graph
│   ├── SamplesError            calibration, search or evaluation samples
│   ├── RecipeError             the recipe or a command-line setting
│   ├── TargetError             a target that does not exist
│   └── RepositoryError         a model repository
├── MissingError             3  something is not installed on this machine
└── ExternalError            4  an external program failed
"""

from __future__ import annotations

from typing import ClassVar


class JettisonError(Exception):
    """An error that tells what failed, what was expected and found, and what to do next.

    Args:
        what: What failed, naming the model, tensor or file.
        detail: What was expected and what was found.
        fix: What to do next: the flag, the extra or the command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, detail: str, fix: str) -> None:
        super().__init__(f"{what}: {detail}. {fix}")
        self.what = what
        self.detail = detail
        self.fix = fix


class InputError(JettisonError):
    """The user gave something that cannot work; nothing was written."""

    exit_code = 2


class ModelError(InputError):
    """A model file or graph cannot be read, or cannot be handled."""


class SamplesError(InputError):
    """Samples do not fit the model, or hold no usable numbers."""


class RecipeError(InputError):
    """A recipe or a setting holds an unknown key or an impossible value."""


class TargetError(InputError):
    """A target that does not exist."""


class RepositoryError(InputError):
    """A model repository that cannot be read or written."""


class MissingError(JettisonError):
    """Something is not installed on this machine; `fix` names what brings it."""

    exit_code = 3


class ExternalError(JettisonError):
    """An external program failed; `detail` carries its own words."""

    exit_code = 4
