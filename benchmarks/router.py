"""What the router costs in a real tritonserver, and whether its split keeps its word; all in one run.

    python benchmarks/router.py [--json] [--seconds 12]

Added latency: calls of a model and of the router before it take turns, in blocks of five, over both
protocols; percentiles are over all calls of one kind. Shadow: requests at fixed random times (a Poisson
stream), at half the rate at which the router answers two clients in mode `shadow`; segments without shadow,
with shadows that stand back, and with shadows whose latency is limited, and which therefore do not, take
turns. Each model has one thread, since a shadow that shares its baseline's core is bound to delay it. Split:
as many units as requests, then a ramp of weights over fewer units while requests come.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as triton

from jettison.triton.client import TritonRunner
from jettison.triton.repository import ModelFolder
from jettison.triton.router import RouterOptions, RouterState, publish_router, router_config, write_state
from jettison.triton.server import TritonServer
from jettison.triton.serving import Serving
from serve import (
    BLOCK,
    Case,
    doors_of,
    local_server,
    machine,
    percentile_ms,
    publish_as,
    text_of,
    timed,
    versions,
    write_model,
)

CASES = (Case("small", 26, 8), Case("large", 224, 8))
"""8 KB and 602 KB of float32, with little to compute, so that the router's part is seen."""
ADDED_TARGETS_MS = {"small": 0.9, "large": 1.0}
SHADOW_TARGET = 0.05
SHARE_TARGET = 0.01
SPLIT_WEIGHT = 2500
SPLIT_REQUESTS = 20_000
RAMP = (0, 100, 1000, 2500, 5000, 10_000)
RAMP_UNITS = 250
RAMP_STEP_S = 2.0
DIFFERENCE = 0.005
"""By so much the candidate's answers differ: within the router's tolerance, and enough to tell them apart."""
SEGMENT_S = 4.0
CREATED = "2026-01-01T00:00:00Z"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each measurement of latency")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = measure(Path(work), arguments.seconds)
    print(json.dumps(result, indent=1) if arguments.json else text_of(result))


def measure(work: Path, seconds: float) -> dict[str, object]:
    """All figures."""
    root = work / "repository"
    for case in CASES:
        release(case, work, root)
    installation = local_server()
    with TritonServer(root, installation, environment=os.environ, log=work / "server.log") as server:
        added = {case.name: added_of(case, work, server, seconds) for case in CASES}
        shadow = shadow_of(CASES[0], work, server, seconds)
        split = split_of(CASES[0], work, server)
        ramp = ramp_of(CASES[0], work, server)
        where = machine() | versions(server, installation)
    return {"machine": where, "added": added, "shadow": shadow, "split": split, "ramp": ramp}


def release(case: Case, work: Path, root: Path) -> None:
    """Two models and the router before them; the candidate gives other numbers, to be told apart."""
    pair = []
    for role in ("baseline", "candidate"):
        name = f"{case.name}-{role}"
        write_model(case, work / f"{name}.onnx")
        if role == "candidate":
            scale(work / f"{name}.onnx")
        serving = Serving(parameters={"intra_op_thread_count": "1"})
        publish_as(case, name, serving, work / f"{name}.onnx", root)
        pair.append(ModelFolder(root / name).config())
    for name, limit_ms in ((case.name, 50.0), (f"{case.name}-back", 0.0)):
        options = RouterOptions(
            state_path=work / f"{name}.json", counter_folder=work / f"{name}-counters", node="bench",
            unit_max_requests=1, latency_limit_ms=limit_ms,
        )  # fmt: skip
        publish_router(router_config(name, *pair, options=options), root, created=CREATED)


def scale(path: Path) -> None:
    """Make a model's answers larger by `DIFFERENCE`: it has no bias, so its first weights do it."""
    model = onnx.load(path)
    first = model.graph.initializer[0]
    scaled = (onnx.numpy_helper.to_array(first) * (1 + DIFFERENCE)).astype(np.float32)
    first.CopyFrom(onnx.numpy_helper.from_array(scaled, first.name))
    onnx.save(model, path)


def set_state(case: Case, work: Path, **state: object) -> None:
    """Replace the router's state."""
    write_state(work / f"{case.name}.json", RouterState.model_validate({"salt": "bench", **state}))


def added_of(case: Case, work: Path, server: TritonServer, seconds: float) -> dict[str, object]:
    """How much longer a request takes through the router, by protocol and mode."""
    found: dict[str, object] = {
        "input_bytes": case.inputs["x"].nbytes,
        "target_ms": ADDED_TARGETS_MS[case.name],
    }
    modes = {"off": {"mode": "off"}, "split": {"mode": "split", "weight": 5000, "experiment": "cost"}}
    for protocol, url in doors_of(server):
        with (
            TritonRunner(url, f"{case.name}-baseline", protocol=protocol) as direct,
            TritonRunner(url, case.name, protocol=protocol) as routed,
        ):
            blocks: dict[str, list[list[float]]] = {name: [] for name in ("direct", *modes)}
            for runner in (direct, routed):
                [runner.run(case.inputs) for _ in range(50)]
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                blocks["direct"].append([timed(lambda: direct.run(case.inputs)) for _ in range(BLOCK)])
                for name, state in modes.items():
                    set_state(case, work, **state)
                    routed.run(case.inputs)
                    blocks[name].append([timed(lambda: routed.run(case.inputs)) for _ in range(BLOCK)])
        found[protocol] = {
            "direct_p50_ms": percentile_ms(blocks["direct"], 50),
            **{f"{name}_added_p50_ms": added_ms(blocks, name, 50) for name in modes},
            **{f"{name}_added_p10_ms": added_ms(blocks, name, 10) for name in modes},
        }
    return found


def added_ms(blocks: dict[str, list[list[float]]], name: str, percentile: int) -> float:
    """The difference of two percentiles."""
    return round(percentile_ms(blocks[name], percentile) - percentile_ms(blocks["direct"], percentile), 3)


class Asker:
    """A gRPC connection that asks the router for one unit after another."""

    def __init__(self, case: Case, server: TritonServer) -> None:
        self._client, self._model = triton.InferenceServerClient(server.grpc_url), case.name
        x = case.inputs["x"]
        self._input = triton.InferInput("x", list(x.shape), "FP32")
        self._input.set_data_from_numpy(x)

    def ask(self, unit: str) -> np.ndarray:
        """The answer."""
        found: np.ndarray = self._client.infer(
            self._model, [self._input], parameters={"unit": unit}
        ).as_numpy("y")
        return found


SHADOWS = ("off", "background", "equal", "equal", "background", "off")
"""In turns, there and back, so that all see the same noise."""


def shadow_of(case: Case, work: Path, server: TritonServer, seconds: float) -> dict[str, object]:
    """p99 of the answers with and without shadow, at half load."""
    back = replace(case, name=f"{case.name}-back")
    routers = {"off": case, "equal": case, "background": back}
    set_state(case, work, mode="shadow", experiment="load")
    full = closed_rate(case, server, seconds=3.0)
    times: dict[str, list[list[float]]] = {name: [] for name in routers}
    for i in range(max(6, 6 * round(seconds / SEGMENT_S))):
        name = SHADOWS[i % 6]
        mode = "off" if name == "off" else "shadow"
        set_state(routers[name], work, mode=mode, experiment="load")
        times[name].append(open_times(routers[name], server, rate=full / 2, seed=i // 3))
        set_state(routers[name], work, mode="off")
    p99, p50 = ({name: percentile_ms(rows, q) for name, rows in times.items()} for q in (99, 50))
    by_segment = {name: [percentile_ms([row], 99) for row in rows] for name, rows in times.items()}
    return {
        "full_rate_per_second": round(full, 1), "rate_per_second": round(full / 2, 1),
        "requests": {name: sum(map(len, rows)) for name, rows in times.items()},
        "p50_ms": p50, "p99_ms": p99,
        "p99_added_share": {name: round(p99[name] / p99["off"] - 1, 3) for name in ("background", "equal")},
        "p99_ms_median_of_segments": {name: statistics.median(rows) for name, rows in by_segment.items()},
        "p99_ms_by_segment": by_segment,
        "dropped": {one.name: metric(server, "dropped_shadows", one.name) for one in (case, back)},
        "target_share": SHADOW_TARGET,
    }  # fmt: skip


def closed_rate(case: Case, server: TritonServer, *, seconds: float) -> float:
    """Answers in a second to two clients."""
    end = time.monotonic() + seconds

    def load(name: str) -> int:
        asker, count = Asker(case, server), 0
        while time.monotonic() < end:
            asker.ask(f"{name}-{count}")
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(load, "ab")) / seconds


def open_times(case: Case, server: TritonServer, *, rate: float, seed: int) -> list[float]:
    """Milliseconds from when a request was due to its answer, over one segment of a Poisson stream."""
    chance, due, found = random.Random(seed), [time.monotonic() + 0.3], []
    while due[-1] - due[0] < SEGMENT_S:
        due.append(due[-1] + chance.expovariate(rate))
    places, lock = iter(enumerate(due)), threading.Lock()

    def work(_: int) -> None:
        asker = Asker(case, server)
        asker.ask("warm")
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            time.sleep(max(0.0, place[1] - time.monotonic()))
            asker.ask(f"{seed}-{place[0]}")
            found.append((time.monotonic() - place[1]) * 1e3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    return found


def split_of(case: Case, work: Path, server: TritonServer) -> dict[str, object]:
    """The candidate's share of many units, by what the router says in its own counters."""
    set_state(case, work, mode="split", weight=SPLIT_WEIGHT, experiment="split")
    ask_all(case, server, [f"u{i}" for i in range(SPLIT_REQUESTS)])
    set_state(case, work, mode="off")
    arm = arms(case, work, "split", expected=SPLIT_REQUESTS)[str(SPLIT_WEIGHT)]
    share = arm["candidate_units"] / SPLIT_REQUESTS
    return {
        "requests": SPLIT_REQUESTS, "weight": SPLIT_WEIGHT, "share": share, "counted": arm,
        "off_by": round(abs(share - SPLIT_WEIGHT / 10_000), 5), "target_off_by": SHARE_TARGET,
    }  # fmt: skip


def ask_all(case: Case, server: TritonServer, units: list[str]) -> None:
    """One request for each unit, from two clients."""

    def part(start: int) -> None:
        asker = Asker(case, server)
        for unit in units[start::2]:
            asker.ask(unit)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(part, range(2)))


def ramp_of(case: Case, work: Path, server: TritonServer) -> dict[str, object]:
    """Whether a unit that the candidate had ever went back, while weights grew under load."""
    set_state(case, work, mode="off")
    plain = Asker(case, server).ask("plain")
    set_state(case, work, mode="split", weight=RAMP[0], experiment="ramp")
    ended = threading.Event()
    counts = {"requests": 0, "flips": 0, "moves": 0}

    def part(start: int) -> tuple[int, int, int]:
        asker, has, requests, flips, moves = Asker(case, server), dict[int, bool](), 0, 0, 0
        while not ended.is_set() or requests % RAMP_UNITS:
            unit = requests % RAMP_UNITS
            is_candidates = not np.allclose(asker.ask(f"{start}-{unit}"), plain, rtol=DIFFERENCE / 2)
            flips += has.get(unit, False) and not is_candidates
            moves += is_candidates and has.get(unit) is False
            has[unit], requests = is_candidates, requests + 1
        return requests, flips, moves

    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(part, start) for start in range(2)]
        for weight in RAMP[1:]:
            time.sleep(RAMP_STEP_S)
            set_state(case, work, mode="split", weight=weight, experiment="ramp")
        time.sleep(RAMP_STEP_S)
        ended.set()
        for found in parts:
            for name, count in zip(counts, found.result(), strict=True):
                counts[name] += count
    return {"weights": RAMP, "units": 2 * RAMP_UNITS, **counts, "target_flips": 0}


def metric(server: TritonServer, name: str, model: str) -> int:
    """A counter of the router's, over its instances."""
    with urllib.request.urlopen(server.metrics_url) as answer:  # noqa: S310 (our own server)
        lines = answer.read().decode().splitlines()
    mine = (line for line in lines if line.startswith(f"jettison_router_{name}_total{{"))
    return sum(int(line.split()[-1]) for line in mine if f'model="{model}"' in line)


def arms(case: Case, work: Path, experiment: str, *, expected: int) -> dict[str, dict[str, int]]:
    """The arms in the counter file, once all are counted."""
    path, end = work / f"{case.name}-counters" / f"{experiment}.bench.json", time.monotonic() + 20
    while True:
        found = (
            json.loads(path.read_text())["nodes"][0]["slices"]["all"].get("arms", {})
            if path.is_file()
            else {}
        )
        units = sum(arm["baseline_units"] + arm["candidate_units"] for arm in found.values())
        if units >= expected or time.monotonic() > end:
            return found
        time.sleep(0.2)


if __name__ == "__main__":
    main()
