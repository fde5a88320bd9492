"""The one door to TensorRT: which of its Python modules is installed, and the module itself.

The compiler's native code can crash and prints to the terminal, so it is only ever loaded in a child
process. Whether it is installed is told here without importing it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

from jettison.core.errors import MissingError
from jettison.core.extras import install_command

ModuleName = Literal["tensorrt_rtx", "tensorrt"]

COMPILERS: tuple[ModuleName, ...] = ("tensorrt_rtx",)
"""Modules that compile for a named GPU on a machine that has none."""

_EXTRAS: dict[ModuleName, str] = {"tensorrt_rtx": "rtx", "tensorrt": "tensorrt"}


def find_module(names: Sequence[ModuleName] = COMPILERS) -> ModuleName | None:
    """The first of these modules that is installed, found without importing it into this process."""
    return next((name for name in names if importlib.util.find_spec(name) is not None), None)


def load_module(name: ModuleName) -> ModuleType:
    """The module, imported.

    Raises:
        MissingError: It is not installed, or its native libraries do not load here.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise MissingError(f"the module {name}", detail=str(error), fix=how_to_install(name)) from error


def how_to_install(name: ModuleName) -> str:
    """The sentence that names the extra which brings the module."""
    return f"Run: {install_command(_EXTRAS[name])}"
