"""What serving costs: our onnxruntime backend in a real tritonserver against bare ONNX Runtime, same run.

    python benchmarks/serve.py [--json] [--seconds 20]

Bare and served calls take turns in one process on one machine, with the same threads and without
spinning. Times are percentiles (p50, p10) over all calls of one kind; what the server says of its own
stages is the median over blocks of five calls; rates and shares are medians over rounds. The client is the
one that ships: `jettison.triton.client.TritonRunner`, which hands large inputs to a server on the same
machine through shared memory; `in the request` shows what they cost through the socket. The floor is a
Python model in the same server that takes the same input and keeps one core busy for the time of a bare
run: what tritonserver, its Python backend and the protocol cost on this machine, whatever the backend does.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from jettison.core import dtypes
from jettison.core.environments import cache_folder
from jettison.core.tensors import Arrays, TensorSpec
from jettison.triton.client import Protocol, TritonRunner
from jettison.triton.publish import Release, publish
from jettison.triton.region import LEAST_BYTES
from jettison.triton.runtime import Installation
from jettison.triton.server import TritonServer, find_server
from jettison.triton.serving import Serving, config_of
from serve_load import (
    CLIENTS,
    Client,
    answer_of,
    prepared_client,
    rate,
    served_rate,
    shipped_client,
)

CORES = len(os.sched_getaffinity(0))
BLOCK = 5
"""Calls of one kind in a row: few, so that all kinds see the same noise."""
WAITING = Path(__file__).parent / "models" / "waiting_backend.py"
TARGETS_MS = {("large", "http"): 1.2, ("large", "grpc"): 2.0, ("small", "http"): 0.7, ("small", "grpc"): 0.7}
SERVER_TARGET_MS = 0.4
THROUGHPUT_TARGET = 0.85
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Case:
    """One model: its name and the size of its square image."""

    name: str
    side: int
    channels: int

    @property
    def inputs(self) -> Arrays:
        """One image."""
        return {"x": np.random.default_rng(0).random((1, 3, self.side, self.side), np.float32)}


CASES = (Case("large", 224, 80), Case("small", 26, 80))
"""602 KB and 8 KB of float32."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = measure(Path(work), arguments.seconds)
    print(json.dumps(result, indent=1) if arguments.json else text_of(result))


def measure(work: Path, seconds: float) -> dict[str, object]:
    """All figures, by model."""
    root = work / "repository"
    busy_ms = {}
    for case in CASES:
        write_model(case, work / f"{case.name}.onnx")
        release(case, work, root)
        busy_ms[case.name] = release_floor(case, work, root)
    release_split(CASES[0], work, root)
    installation = local_server()
    with TritonServer(root, installation, environment=os.environ, log=work / "server.log") as server:
        latency = {
            case.name: latency_of(case, work, server, seconds, busy_ms=busy_ms[case.name]) for case in CASES
        }
        throughput = throughput_of(CASES[0], work, server, seconds)
        where = machine() | versions(server, installation)
    return {"machine": where, "latency": latency, "throughput": throughput}


def local_server() -> Installation:
    """The server of this machine, made where there is none yet."""
    return find_server(
        None, which=shutil.which, cache=cache_folder(os.environ, Path.home()), python=Path(sys.executable),
        progress=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip


def write_model(case: Case, path: Path) -> None:
    """A convolutional network of a few milliseconds."""
    generator = np.random.default_rng(0)
    widths = (3, case.channels, case.channels, 2 * case.channels)
    nodes, weights, last = [], [], "x"
    for i, (before, after) in enumerate(pairwise(widths)):
        weight = generator.normal(0, (2 / (9 * before)) ** 0.5, (after, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["y"]))
    graph = helper.make_graph(
        nodes, case.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, case.side, case.side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", widths[-1]])],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def release(case: Case, work: Path, root: Path) -> None:
    """Publish the model as a user would."""
    publish_as(case, case.name, Serving(max_batch_size=CLIENTS), work / f"{case.name}.onnx", root)


def release_split(case: Case, work: Path, root: Path) -> None:
    """The model once more, with a one-thread instance for each core: for throughput, not for latency.

    Batches are as large as the clients of one instance: of larger ones, one instance takes all that waits
    and the other finds nothing.
    """
    parameters = {"intra_op_thread_count": "1"}
    serving = Serving(max_batch_size=max(1, CLIENTS // CORES), instances=CORES, parameters=parameters)
    publish_as(case, f"{case.name}-split", serving, work / f"{case.name}.onnx", root)


def release_floor(case: Case, work: Path, root: Path) -> float:
    """The model that only waits, as long as a bare run takes: that time in milliseconds."""
    session = bare_session(case, work)
    bare_ms = statistics.median(timed(lambda: session.run(None, case.inputs)) for _ in range(50))
    parameters = {"busy_ms": f"{bare_ms:.3f}", "width": str(2 * case.channels)}
    serving = Serving(max_batch_size=CLIENTS, backend="python", filename="model.py", parameters=parameters)
    publish_as(case, f"{case.name}-floor", serving, WAITING, root)
    return bare_ms


def publish_as(case: Case, name: str, serving: Serving, file: Path, root: Path) -> None:
    """That file as a model of the case's signature."""
    element = dtypes.of_name("float32")
    if element is None:
        raise ValueError("the table of types lacks float32")
    x = TensorSpec(name="x", dtype=element, shape=("batch", 3, case.side, case.side))
    y = TensorSpec(name="y", dtype=element, shape=("batch", 2 * case.channels))
    config = config_of(name, [x], [y], serving=serving)
    publish(Release(config, {serving.filename: file}, "2026-01-01T00:00:00Z"), root)


def bare_session(case: Case, work: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime with the threads that the backend takes, not spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(work / f"{case.name}.onnx"), options, providers=["CPUExecutionProvider"]
    )


def latency_of(
    case: Case, work: Path, server: TritonServer, seconds: float, *, busy_ms: float
) -> dict[str, object]:
    """p50 of bare and served calls in turns, and where the difference goes."""
    session, inputs = bare_session(case, work), case.inputs
    with contextlib.ExitStack() as stack:
        runners = {name: stack.enter_context(runner) for name, runner in runners_of(case, server)}
        answers = [runner.run(inputs)["y"] for name, runner in runners.items() if "floor" not in name]
        check(session.run(None, inputs)[0], answers)
        calls: dict[str, Callable[[], object]] = {"bare": lambda: session.run(None, inputs)}
        calls |= {name: lambda runner=runner: runner.run(inputs) for name, runner in runners.items()}  # type: ignore[misc]
        blocks: dict[str, list[list[float]]] = {name: [] for name in calls}
        stages: dict[str, list[dict[str, float]]] = {name: [] for name in runners}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, call in calls.items():
                model = f"{case.name}-floor" if "floor" in name else case.name
                before = server_totals(server, model)
                blocks[name].append([timed(call) for _ in range(BLOCK)])
                if name in stages:
                    stages[name].append(difference(before, server_totals(server, model)))
    served = {
        name: budget(blocks[name], stages[name], [[busy_ms]] if "floor" in name else blocks["bare"])
        for name in runners
    }
    for protocol in ("http", "grpc"):
        served[protocol]["target_ms"] = TARGETS_MS[case.name, protocol]
        served[protocol]["inside_target_ms"] = SERVER_TARGET_MS
    return {
        "input_bytes": inputs["x"].nbytes,
        "bare_p50_ms": percentile_ms(blocks["bare"], 50),
        "bare_p10_ms": percentile_ms(blocks["bare"], 10),
        "served": served,
    }


def runners_of(case: Case, server: TritonServer) -> Iterator[tuple[str, TritonRunner]]:
    """The ways to ask: as the client does by itself, all bytes in the request, and the floors of both."""
    for protocol, url in doors_of(server):
        yield protocol, TritonRunner(url, case.name, protocol=protocol)
        yield f"{protocol} floor", TritonRunner(url, f"{case.name}-floor", protocol=protocol)
        if case.inputs["x"].nbytes >= LEAST_BYTES:
            yield (
                f"{protocol} in the request",
                TritonRunner(url, case.name, protocol=protocol, shared_memory=False),
            )
            yield (
                f"{protocol} floor in the request",
                TritonRunner(url, f"{case.name}-floor", protocol=protocol, shared_memory=False),
            )


def doors_of(server: TritonServer) -> tuple[tuple[Protocol, str], ...]:
    """The server's two protocols and where each is spoken."""
    return ("http", server.http_url), ("grpc", server.grpc_url)


def budget(
    blocks: list[list[float]], stages: list[dict[str, float]], bare: list[list[float]]
) -> dict[str, object]:
    """The parts of one served call, in milliseconds.

    On a machine with other work p50 misleads either way (a scheduler favours those who wait): there the
    tenth percentile is nearer to the cost.
    """
    p50, p10 = percentile_ms(blocks, 50), percentile_ms(blocks, 10)
    parts = {stage: statistics.median(block[stage] for block in stages) for stage in STAGES}
    quick = sorted(sum(block.values()) for block in stages)[len(stages) // 10]
    inside = sum(parts.values())
    return {
        "p50_ms": p50,
        "overhead_ms": round(p50 - percentile_ms(bare, 50), 3),
        "overhead_p10_ms": round(p10 - percentile_ms(bare, 10), 3),
        "inside_server_above_bare_ms": round(inside - percentile_ms(bare, 50), 3),
        "inside_server_above_bare_p10_ms": round(quick - percentile_ms(bare, 10), 3),
        "parts_ms": {
            **{k: round(v, 3) for k, v in parts.items()},
            "client_and_transport": round(p50 - inside, 3),
        },
    }


def throughput_of(case: Case, work: Path, server: TritonServer, seconds: float) -> dict[str, object]:
    """Images in a second: bare at its best batch size, and eight clients of the server, in turns.

    A share compares each served run with the bare run just before it, so that a machine whose speed
    drifts does not lend one side its good minute.
    """
    session = bare_session(case, work)
    batches = {size: {"x": np.repeat(case.inputs["x"], size, axis=0)} for size in (1, 2, 4, 8)}
    rounds = max(5, round(seconds / 4))
    bare = {
        size: statistics.median(bare_rate(session, inputs, 0.5) for _ in range(rounds))
        for size, inputs in batches.items()
    }
    best = batches[max(bare, key=lambda size: bare[size])]
    served = dict(clients_of(case, server))
    check(session.run(None, case.inputs)[0], [answer_of(client) for client in served.values()])
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in served}
    for _ in range(rounds):
        for name, client in served.items():
            before = bare_rate(session, best, 1.0)
            pairs[name].append((before, served_rate(client)))
    return {
        "bare_per_second_by_batch": {size: round(value, 1) for size, value in bare.items()},
        "served_per_second": {
            name: round(statistics.median(after for _, after in rows), 1) for name, rows in pairs.items()
        },
        "share_of_bare": {
            name: round(statistics.median(after / before for before, after in rows), 3)
            for name, rows in pairs.items()
        },
        "target_share": THROUGHPUT_TARGET,
        "clients": CLIENTS,
    }


def clients_of(case: Case, server: TritonServer) -> Iterator[tuple[str, Client]]:
    """The ways to load it: one instance or one for each core; shipped clients or prepared requests."""
    for model in (case.name, f"{case.name}-split"):
        for protocol, url in doors_of(server):
            yield f"{model} {protocol}", partial(shipped_client, url, model, protocol, case.inputs)
        yield f"{model} prepared", partial(prepared_client, server.http_url, model, case.inputs)


def bare_rate(session: onnxruntime.InferenceSession, inputs: Arrays, seconds: float) -> float:
    """Images in a second without a server."""
    return len(inputs["x"]) * rate(lambda: session.run(None, inputs), seconds)


def check(expected: np.ndarray, found: list[np.ndarray]) -> None:
    """Served answers are the bare answers."""
    for array in found:
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


def server_totals(server: TritonServer, model: str) -> dict[str, tuple[int, int]]:
    """Nanoseconds and counts so far, by stage, from the server's own statistics."""
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/{model}/stats") as answer:
        stats = json.load(answer)["model_stats"][0]["inference_stats"]
    return {stage: (stats[stage]["ns"], stats[stage]["count"]) for stage in STAGES}


def difference(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Milliseconds for each call between two readings."""
    return {k: (after[k][0] - before[k][0]) / max(1, after[k][1] - before[k][1]) / 1e6 for k in before}


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def percentile_ms(blocks: list[list[float]], percent: float) -> float:
    """That percentile over all calls of one kind."""
    return round(float(np.percentile([time for block in blocks for time in block], percent)), 3)


def machine() -> dict[str, object]:
    """Where this was measured."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": CORES,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def versions(server: TritonServer, installation: Installation) -> dict[str, object]:
    """Bare ONNX Runtime's version, the server's as it says itself, and what lies in its runtime environment.

    A server of somebody else's has its libraries where only it knows: of those nothing is said.
    """
    with urllib.request.urlopen(f"http://{server.http_url}/v2") as answer:
        found = {"onnxruntime": onnxruntime.__version__, "tritonserver": json.load(answer)["version"]}
    if installation.backends is not None:
        folder = installation.environment["PYTHONPATH"]
        for distribution in importlib.metadata.distributions(path=[folder]):
            if (name := distribution.metadata["Name"]) in ("onnxruntime", "nvidia-pytriton", "numpy"):
                found[f"the server's {name}"] = distribution.version
    return found


def text_of(result: dict[str, object]) -> str:
    """The figures as indented lines."""
    return json.dumps(result, indent=1).translate(str.maketrans("", "", '{}",'))


if __name__ == "__main__":
    main()
