"""How long a preflight of EfficientNet-Lite0 in INT8 takes: asked are 3 s on two cores.

The model is quantized by Jettison in TensorRT's dialect, all layers, on 128 crops; that is not timed. Each of
the rounds is a preflight as `jettison preflight` makes it, its child process and the shares included. Ends
with 1 where the median is over the limit.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.samples import open_samples
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.shapes import parse_shape_range
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model
from jettison.graph.save import save_model
from jettison.pipeline.steps import macs_of
from prepared import efficientnet, parser_of

LIMIT_S = 3.0
ROUNDS = 5
TARGET = parse_target("sm89")
SHAPES = "1x3x224x224,8x3x224x224,8x3x224x224"


def main() -> None:
    """Quantize once, then time."""
    arguments = parser_of(__doc__).parse_args()
    folder = efficientnet(arguments.cache)
    path = arguments.cache / "preflight" / "efficientnet-lite0-int8.onnx"
    if not path.is_file():
        quantize(folder, path)
    shapes = (parse_shape_range(f"{open_model(path).graph.inputs[0].name}={SHAPES}"),)
    macs = macs_of(path)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        report = preflight(path, TARGET, shapes=shapes, macs=macs)
        seconds.append(time.perf_counter() - started)
    told = {
        "model": "efficientnet-lite0",
        "target": TARGET.name,
        "outcome": report.outcome,
        "version": report.version,
        "int8_mac_share": report.int8_mac_share,
        "median_s": round(statistics.median(seconds), 2),
        "least_s": round(min(seconds), 2),
        "most_s": round(max(seconds), 2),
        "limit_s": LIMIT_S,
    }
    print(json.dumps(told, indent=1) if arguments.json else told)
    sys.exit(int(statistics.median(seconds) > LIMIT_S or report.outcome != "compiles"))


def quantize(folder: Path, path: Path) -> None:
    """Write the model in INT8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = clean(open_model(folder / "efficientnet-lite0.onnx"))
    samples = open_samples(folder / "calibration-128", input_specs(model))
    save_model(QuantizeFull()(Workpiece(model=model, target=TARGET), samples).model, path)


if __name__ == "__main__":
    main()
