"""How long each operator takes in ONNX Runtime, by its own profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import session_of
from jettison.graph.save import save_model

_KERNEL = "_kernel_time"
_WARM_UP = 3


@dataclass(frozen=True)
class OperatorTime:
    """Median time of one operator of the optimized graph in microseconds, in the order of execution.

    `name` is the optimized graph's: fusions name a node after one of its parts, with a suffix.
    """

    name: str
    operator: str
    time_us: float


def operator_times(
    model: ir.Model, inputs: Arrays, *, threads: int = 0, runs: int = 12
) -> list[OperatorTime]:
    """The time of each operator on these inputs, the first runs not counted.

    Raises:
        ModelError: ONNX Runtime refuses the model or the inputs.
    """
    with tempfile.TemporaryDirectory(prefix="jettison-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        session = session_of(path, threads=threads, profile_prefix=Path(folder) / "profile")
        for _ in range(runs + _WARM_UP):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            key = (event["name"].removesuffix(_KERNEL), event["args"]["op_name"])
            spent.setdefault(key, []).append(float(event["dur"]))
    return [
        OperatorTime(name, operator, statistics.median(times[_WARM_UP:] or times))
        for (name, operator), times in spent.items()
    ]
