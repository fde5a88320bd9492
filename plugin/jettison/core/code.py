"""What identifies the code of a function that a recipe names, so that an edited one is not taken for done.

The module of the function and all modules that it imports are followed, as far as they are the user's own:
installed packages are known by their versions. Nothing is imported or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from modulefinder import ModuleFinder
from pathlib import Path

from jettison.core.files import sha256_of


def code_digest(function: str) -> str:
    """SHA-256 in hexadecimal over the user's own modules behind `package.module:function`; empty for none."""
    module = function.partition(":")[0]
    finder = ModuleFinder(path=[str(folder) for folder in _own_folders()])
    with contextlib.suppress(ImportError, SyntaxError):  # told in words when it is really imported
        finder.import_hook(module)
    paths = {name: getattr(found, "__file__", None) for name, found in finder.modules.items()}
    files = {name: sha256_of(Path(path)) for name, path in paths.items() if path and Path(path).is_file()}
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest() if files else ""


def _own_folders() -> Iterator[Path]:
    """Folders on the search path without those of Python and of installed packages."""
    installed = {
        Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    for entry in sys.path:
        folder = Path(entry).resolve()
        if folder.is_dir() and not any(place == folder or place in folder.parents for place in installed):
            yield folder
