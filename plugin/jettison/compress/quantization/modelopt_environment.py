"""The environment in which ModelOpt runs: of its own, since its pins and its patches do not go with ours.

It wants an older onnx and onnxruntime than we may have, installs a second onnxruntime over the first, and
patches its classes, after which a plain `quantize_static` fails in the same process. Made by
`python -m jettison.compress.quantization.modelopt_environment`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jettison.core.environments import Blueprint, cache_folder, is_ready, make_environment, python_of
from jettison.core.errors import JettisonError, MissingError

MODELOPT = "nvidia-modelopt==0.47.0"
COMMAND = "python -m jettison.compress.quantization.modelopt_environment"
SIZE = "370 MB"

_LIBRARIES = (
    "onnx==1.21.0",
    "onnx-graphsurgeon==0.6.1",
    "onnxscript==0.7.2",
    "onnxslim==0.1.98",
    "lief==1.0.0",
    "nvidia-ml-py==13.615.71",
    "tqdm==4.70.1",
)
"""All that its INT8 quantizer of ONNX files imports, tested together. Its own list adds torch, cupy and
onnxruntime-gpu: 1.4 GB with a CPU build of torch, more with CUDA. The files come out equal, byte for byte."""

_NUMERIC: dict[str, tuple[str, ...]] = {
    "3.10": ("numpy==2.2.6", "onnxruntime==1.23.2"),
    "3.11": ("numpy==2.4.6", "onnxruntime==1.24.4"),
    "3.12": ("numpy==2.4.6", "onnxruntime==1.24.4"),
    "3.13": ("numpy==2.4.6", "onnxruntime==1.24.4"),
}
"""By Python's version: ModelOpt 0.47 asks for onnxruntime 1.24, whose last for Python 3.10 is 1.23."""


def blueprint() -> Blueprint:
    """What the environment is made of for the Python that is running.

    Raises:
        MissingError: Its versions are not known for this Python.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    numeric = _NUMERIC.get(version)
    if numeric is None:
        raise MissingError(
            "ModelOpt",
            detail=f"expected Python {', '.join(_NUMERIC)}, found {version}",
            fix="Run Jettison with one of those, or leave backend: modelopt out",
        )
    return Blueprint(
        name="modelopt",
        python=Path(sys.executable),
        version=version,
        installs=((*numeric, *_LIBRARIES), ("--no-deps", MODELOPT)),
        size=SIZE,
    )


def find_python() -> Path:
    """The interpreter of the environment.

    Raises:
        MissingError: The environment is not made; the message names the command that makes it.
    """
    folder = blueprint().folder(_cache())
    if not is_ready(folder):
        raise MissingError(
            "ModelOpt",
            detail=f"expected its environment in {folder}, found none that is whole",
            fix=f"Run: {COMMAND} (about {SIZE} in the cache, needs the package index once)",
        )
    return python_of(folder)


def _cache() -> Path:
    return cache_folder(os.environ, Path.home())


def main() -> int:
    """Make the environment, saying what is done; the exit code of Jettison's errors where that fails."""
    try:
        folder = make_environment(_cache(), blueprint(), progress=_say)
    except JettisonError as error:
        _say(str(error))
        return error.exit_code
    _say(f"ModelOpt's environment is ready in {folder}")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
