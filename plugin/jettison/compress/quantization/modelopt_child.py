"""The child process that holds ModelOpt; run by the Python of its own environment, with nothing of ours.

Started as `python -I modelopt_child.py REQUEST.json`. The request holds `model` and `output` (files),
`batches` (a folder of .npz files, arrays in the order of `inputs`), `method` and `external` (whether the
weights lie beside the model). Lines on stdout that begin with `batch ` count the batches that were read.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Batches:
    """What ModelOpt calibrates with: one batch in memory at a time.

    Its interface is the one that ModelOpt uses of onnxruntime's CalibrationDataReader.
    """

    def __init__(self, folder: Path, inputs: list[str]) -> None:
        self._paths = sorted(folder.glob("*.npz"))
        self._inputs = inputs
        self._left: Iterator[Path] = iter(self._paths)
        self._read = 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None behind the last one."""
        path = next(self._left, None)
        if path is None:
            return None
        self._read += 1
        sys.stdout.write(f"batch {self._read}\n")
        sys.stdout.flush()
        return self._batch(path)

    def get_first(self) -> dict[str, Any]:
        """The first batch, for a trial run."""
        return self._batch(self._paths[0])

    def rewind(self) -> None:
        """Begin again with the first batch."""
        self._left = iter(self._paths)

    def _batch(self, path: Path) -> dict[str, Any]:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[f"arr_{place}"] for place, name in enumerate(self._inputs)}


def stand_in_for_torch() -> None:
    """Let `import torch` succeed where torch is not installed.

    ModelOpt's module for Q/DQ nodes imports torch at its head and uses it for FP8 weights only. onnxruntime's
    tools look for torch too, so they come first. Ends with a ModelOpt that imports it where it uses it.
    """
    importlib.import_module("onnxruntime.quantization")
    if importlib.util.find_spec("torch") is None:
        sys.modules["torch"] = types.ModuleType("torch")


def main(request: Path) -> None:
    """Quantize what the request names."""
    asked = json.loads(request.read_text())
    stand_in_for_torch()
    quantization = importlib.import_module("modelopt.onnx.quantization")
    quantization.quantize(
        asked["model"],
        quantize_mode="int8",
        calibration_method=asked["method"],
        calibration_data_reader=Batches(Path(asked["batches"]), asked["inputs"]),
        calibration_eps=["cpu"],
        use_external_data_format=asked["external"],
        output_path=asked["output"],
        log_level="ERROR",
        high_precision_dtype="fp32",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
