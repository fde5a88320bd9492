"""Settings and fixtures of the whole test suite."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from jettison.core.environments import cache_folder
from jettison.triton.interpreters import Interpreter, find_interpreter
from jettison.triton.runtime import Installation, make_runtime

settings.register_profile("jettison", deadline=None)  # a shared machine may stop for longer than any example
settings.load_profile("jettison")


def pytest_configure():
    """Signals as a terminal gives them: under nohup, or behind a script, children would ignore two."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write goldens anew instead of comparing")


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """The Python that the server embeds: the one that runs the tests, or $JETTISON_SERVER_PYTHON."""
    python = Path(os.environ.get("JETTISON_SERVER_PYTHON", sys.executable))
    return find_interpreter(python, which=shutil.which)


@pytest.fixture(scope="session")
def installation(interpreter: Interpreter) -> Installation:
    """The runtime, made in the cache on first use."""
    return make_runtime(cache_folder(os.environ, Path.home()), interpreter, progress=lambda _: None)
