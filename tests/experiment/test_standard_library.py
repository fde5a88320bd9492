"""What the router imports inside Triton needs the standard library and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jettison

PLUGIN = Path(jettison.__file__).parents[1]
MODULES = (
    "eprocess",
    "mismatch",
    "intervals",
    "mcnemar",
    "tally",
    "counters",
    "counter_form",
    "counter_file",
)


@pytest.mark.parametrize("module", MODULES)
def test_it_imports_without_any_package_installed(module):
    code = (
        f"import sys; sys.path.insert(0, {str(PLUGIN)!r}); import jettison.experiment.{module}; "
        "known = {'__main__', 'jettison', *sys.stdlib_module_names}; "
        "print({name.partition('.')[0] for name in sys.modules} - known or 'nothing else')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "nothing else", "")
