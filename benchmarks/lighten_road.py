"""A chain of passes by one recipe, served; and a training killed and started again: parts of `lighten.py`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.cli.surroundings import cache_folder
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.triton.client import TritonRunner
from jettison.triton.server import TritonServer, find_server
from lighten_checks import Check, check, points
from lighten_data import CACHE, TEACHER, fashion

WORK = CACHE / "lighten" / "road"
LEAST_SMALLER, LEAST_FASTER, MOST_LOST = 8.0, 3.0, 0.015
COUNT, EPOCHS = 15_000, 9
ASKED = 200
_KILL_WITHIN_S = 240.0

RECIPE = """
model: {{name: fashion, path: {model}}}
samples: {{calibration: {calibration}, evaluation: {evaluation}, training: {training}}}
metric: top1
variants:
  - name: light
    passes:
      - distill: {{shrink: {{width: 0.63}}}}
        epochs: {epochs}
        learning_rate: 0.002
        temperature: 1
        seed: {seed}
      - quantize: full
gate: {{tolerance: {tolerance}, min_speedup: {faster}}}
publish: {{repository: {repository}}}
threads: 1
explain: false
"""


def combined(*, seed: int, quick: bool) -> dict[str, Any]:
    """Six tenths of the channels by distillation, then INT8, by `jettison run`; asked in tritonserver."""
    folder = WORK / f"combined-{seed}{'-quick' if quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(folder, seed=seed, quick=quick)
    document = _jettison("run", str(recipe), "-o", str(folder / "out"), "--json")
    (variant,) = document["variants"]
    baseline = document["baseline"]
    return {
        "smaller": baseline["size_bytes"] / variant["size_bytes"],
        "faster": variant["speedup"],
        "teacher": baseline["score"],
        "right": variant["score"],
        "lost": -variant["score_delta"],
        "lost_at_most": -variant["score_delta_low"],
        "accepted": variant["accepted"],
        "chosen": document["chosen"],
        "served_agrees": _served(folder, document, fashion(1)[1].image[:ASKED]),
        "notes": variant["notes"],
    }


def combined_checks(found: Sequence[dict[str, Any]]) -> list[Check]:
    """What must hold for each seed."""
    checks = []
    for each in found:
        lost, served = each["lost"], each["served_agrees"]
        checks += [
            check("times smaller than the float teacher", f"at least {LEAST_SMALLER:g}",
                  f"{each['smaller']:.1f}", held=each["smaller"] >= LEAST_SMALLER),
            check("times faster than the float teacher", f"at least {LEAST_FASTER:g}",
                  f"{each['faster']:.1f}", held=each["faster"] >= LEAST_FASTER),
            check("points lost (proven bound)", f"at most {points(MOST_LOST)}",
                  f"{points(lost)} ({points(each['lost_at_most'])})", held=lost <= MOST_LOST),
            check("tritonserver answers as the file does", "all", str(served), held=served == 1.0),
        ]  # fmt: skip
    return checks


def resume(*, seed: int, quick: bool) -> dict[str, Any]:
    """SHA-256 of the model that a training makes, uninterrupted, and killed and started again."""
    del quick
    with tempfile.TemporaryDirectory(prefix="lighten-") as name:
        folder = Path(name)
        training, test = fashion(2_000, seed=seed)
        paths = [training.save(folder / "training.npz"), training.first(64).save(folder / "calibration.npz")]
        paths.append(test.first(200).save(folder / "evaluation.npz"))
        whole, _ = _trained(folder, folder / "whole", paths, seed=seed, kills=False)
        again, at = _trained(folder, folder / "again", paths, seed=seed, kills=True)
    return {"uninterrupted": whole, "killed": again, "killed_at_s": at, "equal": whole == again}


def resume_checks(found: Sequence[dict[str, Any]]) -> list[Check]:
    """What must hold for each seed."""
    return [
        check("killed with SIGKILL in training and started again: the same file", "equal SHA-256",
              each["killed"][:12], held=each["equal"] and each["killed_at_s"] is not None)
        for each in found
    ]  # fmt: skip


def _recipe(folder: Path, *, seed: int, quick: bool) -> Path:
    training, test = fashion(300 if quick else COUNT, seed=seed)
    path = folder / "recipe.yaml"
    path.write_text(
        RECIPE.format(
            model=TEACHER,
            calibration=training.first(256).save(folder / "calibration.npz"),
            evaluation=test.first(300 if quick else len(test.labels)).save(folder / "evaluation.npz"),
            training=training.save(folder / "training.npz"),
            epochs=1 if quick else EPOCHS,
            seed=seed,
            tolerance=1.0 if quick else MOST_LOST,
            faster=1.0 if quick else LEAST_FASTER,
            repository=folder / "repository",
        )
    )
    return path


def _jettison(*words: str) -> dict[str, Any]:
    """What a verb of the command line answers."""
    done = subprocess.run(_command(words), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"jettison {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}"
        )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "jettison", *words]


def _served(folder: Path, document: dict[str, Any], images: np.ndarray[Any, Any]) -> float:
    """The share of images that the published model decides in tritonserver as its file does here."""
    name = f"fashion-{document['chosen']}"
    published = next((found for found in document["published"] if found["model"] == name), None)
    if published is None:
        return 0.0
    installation = find_server(
        None, which=shutil.which, cache=cache_folder(), python=Path(sys.executable), progress=lambda _: None
    )
    local = OnnxRuntimeRunner(Path(published["path"]) / "model.onnx", threads=1)
    with (
        TritonServer(folder / "repository", installation, environment=os.environ) as server,
        TritonRunner(server.grpc_url, name, version=published["version"], protocol="grpc") as live,
    ):
        pairs = [
            (live.run({"image": part})["logits"].argmax(1), local.run({"image": part})["logits"].argmax(1))
            for part in np.split(images, len(images) // 8)
        ]
    return float(np.mean([(one == other).mean() for one, other in pairs]))


def _trained(
    folder: Path, output: Path, paths: Sequence[str], *, seed: int, kills: bool
) -> tuple[str, float | None]:
    """The digest of the trained model, and when its first process was killed, in seconds."""
    words = [
        "compress", str(TEACHER), "--training", paths[0], "--calibration", paths[1], "--evaluation", paths[2],
        "--target", "cpu", "--tolerance", "1", "--threads", "1", "-o", str(output), "--json", "--variant",
        f"narrow=[{{distill: {{shrink: {{width: 0.25}}}}, epochs: 3, batch_size: 16, seed: {seed}}}]",
    ]  # fmt: skip
    killed = _killed(words, output) if kills else None
    _jettison(*words)
    del folder
    return hashlib.sha256((output / "cpu" / "narrow" / "model.onnx").read_bytes()).hexdigest(), killed


def _killed(words: Sequence[str], output: Path) -> float | None:
    """Start the command and kill it between checkpoints; when that was, None where it was done before."""
    started = time.monotonic()
    process = subprocess.Popen(_command(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = set[int]()
    while process.poll() is None and time.monotonic() - started < _KILL_WITHIN_S:
        seen.update(path.stat().st_mtime_ns for path in _checkpoints(output))
        if len(seen) > 1:  # the first is written before the first step
            process.send_signal(signal.SIGKILL)
            process.wait()
            return round(time.monotonic() - started, 1)
        time.sleep(0.05)
    process.kill()
    process.wait()
    return None


def _checkpoints(output: Path) -> Iterator[Path]:
    return (output / "steps").glob("checkpoints-*/0/checkpoint.pt")
