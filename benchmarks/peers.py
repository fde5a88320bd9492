"""What other quantizers make of EfficientNet-Lite0: files to compare ours with, each made once.

Every quantizer runs in a process of its own, since some patch classes of the others. As a program it makes
one file: `python benchmarks/peers.py NAME MODEL CALIBRATION OUTPUT`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np

from compress_methods import METHODS, batches, ort_static
from jettison.compress.quantization.modelopt import Method, Order, run_modelopt, write_batches
from jettison.compress.quantization.modelopt_environment import find_python
from jettison.core.errors import MissingError

INPUT = "image"
FEW = 32
"""Samples for ONNX Runtime's histogram calibrators, which keep every activation: 128 took 8.4 GB."""
_MODELOPT = "modelopt-"


def peers(model: Path, calibration: Path, folder: Path) -> dict[str, Path]:
    """The quantized files by the name of who made them; a file that is in `folder` already stands.

    `calibration` is a folder of shards with the array `image`. Of ONNX Runtime's files `ort-minmax` has
    one weight scale a tensor, as is its default, the others one a channel. Its Entropy and Percentile see the
    first 32 samples only, which is enough to tell how accurate their files are, but their time and memory
    are then no figures for 128. ModelOpt comes with both its calibrators, `max` and its default `entropy`;
    it is left out, with a word on stderr, where its environment is not made.

    Raises:
        RuntimeError: A quantizer failed; the message has its last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in _available():
        path = folder / f"{name}.onnx"
        if not path.is_file():
            _make(name, model, calibration, path)
        found[name] = path
    return found


def _available() -> list[str]:
    try:
        find_python()
    except MissingError as error:
        print(f"peers: {error}", file=sys.stderr)
        return [name for name in PEERS if not name.startswith(_MODELOPT)]
    return list(PEERS)


def _make(name: str, model: Path, calibration: Path, path: Path) -> None:
    """Let a child process write that file, which is whole or not there."""
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as stage:
        output = Path(stage) / path.name
        command = [sys.executable, __file__, name, str(model), str(calibration), str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {' / '.join(done.stderr.splitlines()[-3:])}")
        output.rename(path)


def by_histogram(calibrator: str) -> Callable[[Path, Path, Path], object]:
    """ONNX Runtime's static quantizer with that calibrator, on the first 32 samples."""

    def made(model: Path, samples: Path, output: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantType

        with tempfile.TemporaryDirectory(prefix="few-") as folder:
            rows = np.concatenate(list(islice(batches(samples, 1), FEW)))
            np.savez(Path(folder) / "0000.npz", **{INPUT: rows})
            method = CalibrationMethod[calibrator]
            settings = {"activation_type": QuantType.QUInt8, "per_channel": True, "calibrate_method": method}
            ort_static(model, Path(folder), output, **settings)

    return made


def by_modelopt(method: Method) -> Callable[[Path, Path, Path], object]:
    """ModelOpt's own file, as its user gets it: weights in float with a QuantizeLinear behind each."""

    def made(model: Path, samples: Path, output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
            order = Order(model.absolute(), (INPUT,), Path(folder), method, output.absolute())
            write_batches(({INPUT: batch} for batch in batches(samples, 1)), order)
            run_modelopt(order)

    return made


PEERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "ort-minmax": METHODS["ort-minmax"],
    "ort-per-channel": METHODS["ort-per-channel"],
    "ort-entropy": by_histogram("Entropy"),
    "ort-percentile": by_histogram("Percentile"),
    "ort-dynamic": METHODS["ort-dynamic"],
    **{f"{_MODELOPT}{method}": by_modelopt(method) for method in get_args(Method)},
}


def main() -> None:
    """Make one file."""
    name, model, calibration, output = sys.argv[1:]
    PEERS[name](Path(model), Path(calibration), Path(output))


if __name__ == "__main__":
    main()
