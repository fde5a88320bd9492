"""The one door to torch and to Keras. Both are large, and are loaded only in the process that exports."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from jettison.core.errors import MissingError
from jettison.core.extras import install_command
from jettison.sources.source import Kind

_EXTRAS = {"torch": "train", "keras": "keras"}
_NEEDS: dict[Kind, tuple[str, ...]] = {
    "path": (),
    "torch": ("torch",),
    "exported": ("torch",),
    "keras": ("torch", "keras"),
}
"""Modules without which a form of model cannot be read."""

KERAS_SETTINGS = {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu"}
"""Environment variables that Keras reads as it is imported: no TensorFlow, no GPU."""


def check_installed(kind: Kind) -> None:
    """Nothing, where the modules are installed that read such a model; they are not imported.

    Raises:
        MissingError: One is missing; the message names the extra that brings all of them.
    """
    for name in _NEEDS[kind]:
        if importlib.util.find_spec(name) is None:
            raise _missing(name, f"no module named {name!r}", extra=_EXTRAS[_NEEDS[kind][-1]])


def load_torch() -> ModuleType:
    """The module torch.

    Raises:
        MissingError: It is not installed, or its native libraries do not load here.
    """
    return _load("torch")


def load_keras() -> ModuleType:
    """The module keras, with torch as its backend.

    Raises:
        MissingError: It is not installed, it is older than Keras 3, or torch does not load.
    """
    os.environ.update(KERAS_SETTINGS)
    load_torch()
    keras = _load("keras")
    if not hasattr(keras, "config") or keras.config.backend() != "torch":
        raise _missing("keras", "expected Keras 3 with the backend torch, found another one", extra="keras")
    return keras


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise _missing(name, str(error), extra=_EXTRAS[name]) from error


def _missing(name: str, detail: str, *, extra: str) -> MissingError:
    return MissingError(f"the module {name}", detail=detail, fix=f"Run: {install_command(extra)}")
