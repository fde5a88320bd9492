"""Where the command line looks at the world: time, processor, cache folder, environment variables."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jettison.cli.clock import now
from jettison.core.concurrency import available_cores
from jettison.core.environments import cache_folder as cache_folder_of
from jettison.core.errors import InputError
from jettison.core.progress import Reporter
from jettison.pipeline.run import Surroundings

__all__ = ["cache_folder", "clock", "command_line", "machine", "now", "processor", "surroundings"]

_CPU_INFO = Path("/proc/cpuinfo")


def surroundings(output: Path, reporter: Reporter) -> Surroundings:
    """This machine and moment.

    Raises:
        InputError: The output is a file.
    """
    if output.is_file():
        raise InputError(
            f"-o {output}", detail="expected a folder, found a file", fix="Give the path of a folder"
        )
    return Surroundings(output=output, reporter=reporter, clock=clock(), machine=machine())


def clock() -> Callable[[], float]:
    """A monotonic clock in seconds."""
    return time.perf_counter


def machine() -> str:
    """The processor's name and how many cores this process may use."""
    return f"{processor()}, {available_cores()} cores"


def processor() -> str:
    """The processor's name as the kernel tells it, or its architecture."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command_line() -> tuple[str, ...]:
    """What was typed, the program by its name alone."""
    return ("jettison", *sys.argv[1:])


def cache_folder() -> Path:
    """Where environments and downloads are kept: JETTISON_CACHE, else XDG_CACHE_HOME/jettison."""
    return cache_folder_of(os.environ, Path.home())
