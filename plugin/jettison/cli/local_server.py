"""The tritonserver that verbs start on this machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from jettison.cli.console import err
from jettison.cli.surroundings import cache_folder
from jettison.triton.runtime import Installation
from jettison.triton.server import find_server


def local_installation(program: Path | None) -> Installation:
    """The given program, else the one on PATH, else a runtime made once in the cache; progress on stderr.

    Raises:
        InputError: The given program does not exist, or cannot be run.
        ExternalError: The runtime could not be made.
        MissingError: No runtime can be made on this machine.
    """
    return find_server(
        program, which=shutil.which, cache=cache_folder(), python=Path(sys.executable), progress=err.print
    )
