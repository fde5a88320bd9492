"""Whether the router in mode `shadow` stays sound for long: errors, memory of its processes, shared memory.

    python benchmarks/soak.py [--json] [--minutes 30] [--clients 16]

Clients ask for inputs of 8 KB, 600 KB and 4 MB in turns, over gRPC and HTTP, as fast as they are answered.
Every answer is checked. Memory is looked at twice a second; the means over the first and the last quarter of
what follows the warm-up are compared.
Router memory is what its processes have for themselves (`Anonymous` of /proc/PID/smaps_rollup); /dev/shm is
all that the server's regions hold there.

Triton's regions grow by what finds no room and never shrink, so that they hold the most that ever was under
way at one time; heaps keep what is left between blocks that are in use. Under the three sizes in turns that
is a record which rarer and rarer meetings of large requests break, for half an hour and more. So while it
warms up, all clients ask for one size at a time, the largest first, each until nothing has grown for a while;
what grows after that is no such record. A leak first fills what the records left free, so that a short soak
finds those of some MB a second only; a long one finds slower ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper, numpy_helper, save

from jettison.core import dtypes
from jettison.core.tensors import TensorSpec
from jettison.triton.publish import Release, publish
from jettison.triton.repository import ModelFolder
from jettison.triton.router import RouterOptions, RouterState, publish_router, router_config, write_state
from jettison.triton.server import TritonServer
from jettison.triton.serving import Serving, config_of
from jettison.triton.shared_memory import SHARED_MEMORY
from serve import local_server, machine, text_of, versions

SIZES = {"8 KB": 2_048, "600 KB": 150_528, "4 MB": 1_048_576}
"""Numbers of float32 in one input, and as many in its answer."""
MOST_GROWTH = 0.05
MOST_WARM_UP_SHARE = 0.5
CALM_S, CALM_GROWTH = 10.0, 0.01
"""Warm: for so long, neither kind of memory was above its peak of as long before by more than that share."""
LOOK_S = 0.5
CREATED = "2026-01-01T00:00:00Z"


@dataclass
class Look:
    """What was seen at one moment."""

    time_s: float
    router_bytes: int
    processes: int
    shared_bytes: int


@dataclass
class Load:
    """What clients got, added up by all of them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIZES, 0))
    errors: list[str] = field(default_factory=list)
    sizes: tuple[str, ...] = tuple(SIZES)

    def add(self, size: str, error: str = "") -> None:
        """One request."""
        with self.lock:
            self.answers[size] += not error
            self.errors += [error] if error else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long, warm-up included")
    parser.add_argument("--clients", type=int, default=16, help="how many ask at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = soak(Path(work), minutes=arguments.minutes, clients=arguments.clients)
    print(json.dumps(result, indent=1) if arguments.json else text_of(result))


def soak(work: Path, *, minutes: float, clients: int) -> dict[str, object]:
    """All figures; `is_good` where there was no error and memory stayed within 5 %."""
    root = work / "repository"
    pair = [release(name, factor, work, root) for name, factor in (("old", 2.0), ("new", 2.0))]
    options = RouterOptions(
        state_path=work / "state.json", counter_folder=work / "counters", node="soak", latency_limit_ms=200,
        deadline_ms=5000, unit_idle_s=2, most_open_units=64,  # its memory of counted units is soon full
    )  # fmt: skip
    publish_router(router_config("r", *pair, options=options), root, created=CREATED)
    write_state(work / "state.json", RouterState(mode="shadow", experiment="soak", salt="soak"))
    installation = local_server()
    with TritonServer(root, installation, environment=os.environ, log=work / "server.log") as server:
        load, before, looks = under_load(server, minutes=minutes, clients=clients)
        shown = {name: metric(server, name) for name in ("shadows", "dropped_shadows", "lost_events")}
        where = machine() | versions(server, installation)
    counted = json.loads((work / "counters" / "soak.soak.json").read_text())["nodes"][0]["slices"]["all"]
    return report(load, before, looks, minutes) | {"router": shown, "counted": counted, "machine": where}


def release(name: str, factor: float, work: Path, root: Path) -> object:
    """A model that gives x times the factor, for inputs of any length."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length"]) for n in "xy"]
    weights = [numpy_helper.from_array(np.float32([factor]), "factor")]
    graph = helper.make_graph(nodes, name, infos[:1], infos[1:], weights)
    path = work / f"{name}.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    element = dtypes.of_name("float32")
    assert element is not None
    specs = [TensorSpec(name=n, dtype=element, shape=("batch", "length")) for n in "xy"]
    serving = Serving(parameters={"intra_op_thread_count": "1"})
    publish(
        Release(config_of(name, specs[:1], specs[1:], serving=serving), {"model.onnx": path}, CREATED), root
    )
    return ModelFolder(root / name).config()


def under_load(server: TritonServer, *, minutes: float, clients: int) -> tuple[Load, list[Look], list[Look]]:
    """What clients got, and what was seen while it warmed up and after that."""
    load, begin = Load(), time.monotonic()
    end = begin + 60 * minutes
    threads = [
        threading.Thread(target=client, args=(i, server, load, end), name=f"client {i}")
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    before = []
    for count, size in enumerate(reversed(SIZES), 1):
        load.sizes = (size,)
        latest = begin + 60 * minutes * MOST_WARM_UP_SHARE * count / len(SIZES)
        before += calmed(watched(server, begin, latest))
    load.sizes = tuple(SIZES)
    looks = list(watched(server, begin, end))
    for thread in threads:
        thread.join()
    return load, before, looks


def calmed(looks: Iterator[Look]) -> list[Look]:
    """Those until nothing grows, or all."""
    found: list[Look] = []
    for look in looks:
        found.append(look)
        if is_calm(found):
            break
    return found


def is_calm(looks: list[Look]) -> bool:
    """Whether nothing has grown for a while."""
    since_s = looks[-1].time_s - CALM_S
    earlier, late = ([o for o in looks if (o.time_s >= since_s) is is_late] for is_late in (False, True))
    if looks[0].time_s > since_s - CALM_S:
        return False
    peaks = [(max(map(held, earlier)), max(map(held, late))) for held in (router_bytes, shared_bytes)]
    return all(after <= (1 + CALM_GROWTH) * before for before, after in peaks)


def router_bytes(look: Look) -> int:
    """What the router's processes have for themselves."""
    return look.router_bytes


def shared_bytes(look: Look) -> int:
    """What the regions hold."""
    return look.shared_bytes


def client(number: int, server: TritonServer, load: Load, end: float) -> None:
    """Ask until the end, one size after the other; each clip of some requests is a unit."""
    module = tritonclient.grpc if number % 2 else tritonclient.http
    with module.InferenceServerClient(server.grpc_url if number % 2 else server.http_url) as door:
        asked = 0
        while time.monotonic() < end:
            sizes = load.sizes
            size = sizes[(number + asked) % len(sizes)]
            value = np.float32(1 + (number * 100_003 + asked) % 8191)
            load.add(size, problem(module, door, size, value, unit=f"{number}-{asked // 5}"))
            asked += 1


def problem(module: object, door: object, size: str, value: np.float32, *, unit: str) -> str:
    """What was wrong with one answer, or nothing."""
    x = np.full((1, SIZES[size]), value, np.float32)
    tensor = module.InferInput("x", list(x.shape), "FP32")  # type: ignore[attr-defined]
    tensor.set_data_from_numpy(x)
    try:
        y = door.infer("r", [tensor], parameters={"unit": unit}).as_numpy("y")  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - whatever a client meets is what is counted here
        return f"{size}: {type(error).__name__}: {error}"[:200]
    return "" if y.shape == x.shape and bool((y == 2 * value).all()) else f"{size}: a wrong answer"


def watched(server: TritonServer, begin: float, end: float) -> Iterator[Look]:
    """What is seen until the end."""
    while time.monotonic() < end:
        yield seen(server, time.monotonic() - begin)
        time.sleep(LOOK_S)


def seen(server: TritonServer, time_s: float) -> Look:
    """The router's processes and the server's shared memory now."""
    stubs = [process for process in children(server.pid or 0) if "/r/" in command_of(process)]
    regions = SHARED_MEMORY.glob(f"{server.name}*")
    return Look(time_s, sum(map(own_bytes, stubs)), len(stubs), sum(map(held_bytes, regions)))


def children(process: int) -> list[int]:
    """Processes below one, at any depth."""
    found = [
        int(text) for task in Path(f"/proc/{process}/task").iterdir() for text in text_in(task / "children")
    ]
    return found + [below for child in found for below in children(child)]


def text_in(path: Path) -> list[str]:
    """The words of a file; none where its process has ended."""
    try:
        return path.read_text().split()
    except OSError:
        return []


def command_of(process: int) -> str:
    """Its command line; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def own_bytes(process: int) -> int:
    """What it alone has in memory; regions that it shares with the server are counted apart."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def held_bytes(path: Path) -> int:
    """What a region holds, which is less than its size."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def metric(server: TritonServer, name: str) -> int:
    """A counter of the router's, over its instances."""
    with urllib.request.urlopen(server.metrics_url) as answer:  # noqa: S310 (our own server)
        lines = answer.read().decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith(f"jettison_router_{name}_total{{"))


def report(load: Load, before: list[Look], looks: list[Look], minutes: float) -> dict[str, object]:
    """The figures of one soak."""
    router, shared = (growth([held(look) for look in looks]) for held in (router_bytes, shared_bytes))
    processes = sorted({look.processes for look in looks})
    is_flat = all(abs(float(one["growth"])) <= MOST_GROWTH for one in (router, shared))
    warm = {"seconds": round(looks[0].time_s, 1), "is_calm": is_calm(before)}
    return {
        "minutes": minutes, "warm_up": warm, "answers": load.answers, "errors": len(load.errors),
        "first_errors": load.errors[:5], "router_processes": processes, "router_memory": router,
        "shared_memory": shared, "target_growth": MOST_GROWTH,
        "is_good": is_flat and not load.errors and len(processes) == 1,
    }  # fmt: skip


def growth(values: list[int]) -> dict[str, float]:
    """The means over the first and the last quarter, and how much they differ."""
    quarter = max(1, len(values) // 4)
    first, last = statistics.fmean(values[:quarter]), statistics.fmean(values[-quarter:])
    return {
        "first_mb": round(first / 1e6, 2), "last_mb": round(last / 1e6, 2),
        "most_mb": round(max(values) / 1e6, 2),
        "growth": round(last / first - 1, 4) if first else float(last > 0),
    }  # fmt: skip


if __name__ == "__main__":
    main()
