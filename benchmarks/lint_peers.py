"""What other tools make of a model, each file made once, by a process of its own.

As a program it makes one file: `python benchmarks/lint_peers.py TOOL MODEL SAMPLES OUTPUT`, run by the Python
that has the tool. It imports nothing of Jettison.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 32
"""Samples for calibration: the form of the files is the question here, not their accuracy."""
Arrays = dict[str, np.ndarray[Any, Any]]


def make(python: Path, tool: str, model: Path, samples: Path, output: Path) -> str | None:
    """Let a child process write that file, which is whole or not there; its last words where it failed."""
    if output.is_file():
        return None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent) as stage:
        made = Path(stage) / output.name
        command = [str(python), __file__, tool, str(model), str(samples), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=stage)
        if done.returncode != 0 or not made.is_file():
            return (done.stderr.strip().splitlines() or ["it wrote no file"])[-1]
        made.rename(output)
    return None


def rows(model: Path, samples: Path) -> Arrays:
    """The first samples of a file, or of the first file of a folder, by the model's inputs."""
    import onnx

    names = [value.name for value in onnx.load(model, load_external_data=False).graph.input]
    path = samples if samples.is_file() else sorted(samples.glob("*.npz"))[0]
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name][:COUNT] for name in names}


class Reader:
    """Batches of eight, for the interface of ONNX Runtime's CalibrationDataReader that both tools use."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._batches: Iterator[Arrays] = iter(())
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first batch."""
        starts = range(0, len(next(iter(self._arrays.values()))), 8)
        self._batches = iter(
            [{name: rows[start : start + 8] for name, rows in self._arrays.items()} for start in starts]
        )

    def get_first(self) -> Arrays:
        """The first batch, for a trial run."""
        return {name: rows[:8] for name, rows in self._arrays.items()}

    def get_next(self) -> Arrays | None:
        """The next batch, or None behind the last one."""
        return next(self._batches, None)


def ort_static(
    activation: str, weight: str, *, per_channel: bool = False
) -> Callable[[Path, Path, Path], None]:
    """ONNX Runtime's static quantizer with these types."""

    def made(model: Path, samples: Path, output: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Given(Reader, CalibrationDataReader):  # type: ignore[misc]
            pass

        types_ = {"activation_type": QuantType[activation], "weight_type": QuantType[weight]}
        quantize_static(model, output, Given(rows(model, samples)), per_channel=per_channel, **types_)

    return made


def ort_dynamic(model: Path, samples: Path, output: Path) -> None:
    """ONNX Runtime's dynamic quantizer."""
    del samples
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, output, weight_type=QuantType.QUInt8)


def modelopt(mode: str) -> Callable[[Path, Path, Path], None]:
    """ModelOpt's file in that format. FP8 needs torch in its environment, INT8 only the name."""

    def made(model: Path, samples: Path, output: Path) -> None:
        importlib.import_module("onnxruntime.quantization")
        if mode == "int8" and importlib.util.find_spec("torch") is None:
            sys.modules["torch"] = types.ModuleType("torch")
        quantization = importlib.import_module("modelopt.onnx.quantization")
        quantization.quantize(
            str(model),
            quantize_mode=mode,
            calibration_method="max",
            calibration_data_reader=Reader(rows(model, samples)),
            calibration_eps=["cpu"],
            output_path=str(output),
            log_level="ERROR",
            high_precision_dtype="fp32",
        )

    return made


def nncf(model: Path, samples: Path, output: Path) -> None:
    """NNCF's post-training quantization with its defaults."""
    import nncf as tool
    import onnx

    arrays = rows(model, samples)
    items = [{name: value[place : place + 1] for name, value in arrays.items()} for place in range(COUNT)]
    onnx.save(tool.quantize(onnx.load(model), tool.Dataset(items), subset_size=COUNT), output)


TOOLS: dict[str, Callable[[Path, Path, Path], None]] = {
    "ort-u8s8": ort_static("QUInt8", "QInt8"),
    "ort-s8s8": ort_static("QInt8", "QInt8"),
    "ort-u8u8": ort_static("QUInt8", "QUInt8"),
    "ort-u8s8-per-channel": ort_static("QUInt8", "QInt8", per_channel=True),
    "ort-dynamic": ort_dynamic,
    "modelopt-int8": modelopt("int8"),
    "modelopt-fp8": modelopt("fp8"),
    "nncf": nncf,
}


def main() -> None:
    """Make one file."""
    tool, model, samples, output = sys.argv[1:]
    TOOLS[tool](Path(model), Path(samples), Path(output))


if __name__ == "__main__":
    main()
