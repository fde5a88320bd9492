"""One method of benchmarks/compress.py in a process of its own; prints the seconds of its work as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """METHOD MODEL_FOLDER SAMPLES OUTPUT."""
    method, folder, count, output = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    model, samples = folder / "efficientnet-lite0.onnx", folder / f"calibration-{count}"
    print(json.dumps({"work_s": METHODS[method](model, samples, output)}))


def forward(model: Path, samples: Path, output: Path) -> float:
    """The floor: a plain float pass over the samples, in the batches that it likes best here."""
    del output
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(model), _quiet(onnxruntime), providers=["CPUExecutionProvider"]
    )
    started = time.perf_counter()
    for batch in batches(samples, 8):
        session.run(None, {"image": batch})
    return time.perf_counter() - started


def jettison(model: Path, samples: Path, output: Path) -> float:
    """Calibration and quantization with our defaults, for the CPU."""
    from jettison.compress.passes import Workpiece
    from jettison.compress.quantization.quantize import QuantizeFull
    from jettison.core.samples import open_samples
    from jettison.core.targets import parse_target
    from jettison.graph.clean import clean
    from jettison.graph.model import input_specs, open_model
    from jettison.graph.save import save_model

    opened = open_model(model)
    found = open_samples(samples, input_specs(opened))
    cleaned = clean(opened)
    started = time.perf_counter()
    result = QuantizeFull()(Workpiece(cleaned, parse_target("cpu")), found)
    seconds = time.perf_counter() - started
    save_model(result.model, output)
    return seconds


def ort_static(model: Path, samples: Path, output: Path, **settings: Any) -> float:
    """ONNX Runtime's static quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = batches(samples, 8)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    started = time.perf_counter()
    quantize_static(model, output, Reader(), **settings)
    return time.perf_counter() - started


def ort_minmax(model: Path, samples: Path, output: Path) -> float:
    """MinMax with unsigned activations, as ONNX Runtime's documentation advises for x86."""
    from onnxruntime.quantization import QuantType

    return ort_static(model, samples, output, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def ort_per_channel(model: Path, samples: Path, output: Path) -> float:
    """MinMax with unsigned activations and one weight scale per channel: ONNX Runtime at its best here."""
    from onnxruntime.quantization import QuantType

    return ort_static(model, samples, output, activation_type=QuantType.QUInt8, per_channel=True)


def ort_entropy(model: Path, samples: Path, output: Path) -> float:
    """The same with Entropy calibration."""
    from onnxruntime.quantization import CalibrationMethod, QuantType

    return ort_static(
        model, samples, output, activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod.Entropy
    )


def ort_dynamic(model: Path, samples: Path, output: Path) -> float:
    """ONNX Runtime's dynamic quantizer, which needs no samples; unsigned weights, which ConvInteger needs."""
    del samples
    from onnxruntime.quantization import QuantType, quantize_dynamic

    started = time.perf_counter()
    quantize_dynamic(model, output, weight_type=QuantType.QUInt8)
    return time.perf_counter() - started


def batches(folder: Path, size: int) -> Iterator[np.ndarray[Any, Any]]:
    """The images of a folder of shards, one shard in memory at a time."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as shard:
            images = shard["image"]
        for start in range(0, len(images), size):
            yield images[start : start + size]


def _quiet(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


METHODS: dict[str, Callable[[Path, Path, Path], float]] = {
    "forward": forward,
    "jettison": jettison,
    "ort-minmax": ort_minmax,
    "ort-default": ort_static,
    "ort-per-channel": ort_per_channel,
    "ort-entropy": ort_entropy,
    "ort-dynamic": ort_dynamic,
}

if __name__ == "__main__":
    main()
