"""What pruning keeps, and what it saves: single weights, 2:4 and whole channels. Parts of `lighten.py`.

    python benchmarks/lighten_prune.py [--json] [--parts mnist_sparsity,two_to_four,channels] [--quick]

Every part is a recipe that `jettison run` walks, in a folder of its own below benchmarks/.cache/lighten: a
run that was broken off goes on there. One thread. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jettison.compress.quantization.layers import find_layers
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.graph.edit import float_constant
from jettison.graph.model import open_model
from jettison.graph.two_to_four import valid_groups
from lighten_data import CACHE, TEACHER, Images, fashion
from lighten_mnist import mnist

FOLDER = CACHE / "lighten"
CALIBRATION = 256
MOST_LOST = {"mnist_sparsity": 0.003, "two_to_four": 0.005, "channels": 0.01}
"""Of the accuracy on 10,000 test images."""
LEAST_COMPRESSED, LEAST_SPEEDUP, LEAST_MACS_CUT = 5.0, 1.6, 0.5
Figures = dict[str, Any]
Check = dict[str, Any]


def mnist_sparsity(*, seed: int, quick: bool) -> Figures:
    """The brief's CNN on MNIST without 90 % of its weights: by global magnitude, and by two thresholds.

    `global` removes them while it learns from the dense network's answers; at the thresholds, which are such
    that they remove about 90 % of this network too, it is cut once and trained by labels.
    """
    folder, count = _folder("mnist_sparsity", seed, quick=quick), 1_500 if quick else 30_000
    training, test = mnist(count, seed=seed)
    sets = _sets(folder, training, test, quick=quick)
    dense = _mnist_network(folder, training, seed=seed, epochs=1 if quick else 6)
    rest = {"learning_rate": 0.002, "seed": seed}
    ramp = {"train": "baseline", "sparsity": 0.9, **rest, "epochs": 1 if quick else 10}
    after = {"train": "labels", **rest, "epochs": 1 if quick else 2}
    fixed = {"prune": {"threshold": "fixed", "value": 0.125}}
    dynamic = {"prune": {"threshold": "dynamic", "deviations": 1.63}}
    variants = [
        {"name": "global", "passes": [ramp]},
        {"name": "global-untrained", "passes": [{"prune": {"sparsity": 0.9, "scope": "global"}}]},
        {"name": "fixed", "passes": [fixed, after]},
        {"name": "dynamic", "passes": [dynamic, after]},
    ]
    found = _run(folder, dense, sets, variants, targets=["cpu"], seed=seed)
    rows = {variant["name"]: _sparse_row(found, variant) for variant in found["variants"]}
    best = rows["global"]
    checks = [
        _check("weights removed", "at least 90 %", best["removed"], held=best["removed"] >= 0.9 - 1e-4),
        _lost(found, "global", "mnist_sparsity"),
        _check(
            "the file, compressed, is smaller by",
            f"at least {LEAST_COMPRESSED} times",
            best["compressed_times"],
            held=best["compressed_times"] >= LEAST_COMPRESSED,
        ),
    ]
    return {"dense": found["baseline"]["score"], "rows": rows, "checks": checks}


def two_to_four(*, seed: int, quick: bool) -> Figures:
    """The Fashion network in the pattern 2:4, trained, quantized, and compiled by TensorRT as sparse.

    The trained file is quantized by a second recipe, so that nothing is trained twice.
    """
    folder = _folder("two_to_four", seed, quick=quick)
    training, test = fashion(600 if quick else 10_000, seed=seed)
    sets = _sets(folder, training, test, quick=quick)
    prune = {"prune": "two-to-four"}
    train = {"train": "baseline", "epochs": 1 if quick else 2, "learning_rate": 0.0005, "seed": seed}
    variants = [{"name": "cut-only", "passes": [prune]}, {"name": "sparse", "passes": [prune, train]}]
    found = _run(folder, TEACHER, sets, variants, targets=["sm89"], seed=seed)
    integers = [{"name": "sparse-int8", "passes": [{"quantize": "full"}]}]
    trained_path = Path(found["variants"][1]["path"])
    sets.pop("training")
    found["variants"] += _run(folder / "int8", trained_path, sets, integers, targets=["sm89"], seed=seed)[
        "variants"
    ]
    rows = {variant["name"]: _grouped_row(folder, variant) for variant in found["variants"]}
    trained = [rows["sparse"], rows["sparse-int8"]]
    groups = [f"{row['valid_groups']} of {row['groups']}" for row in trained]
    checks = [
        _lost(found, "sparse", "two_to_four"),
        _lost(found, "sparse-int8", "two_to_four"),
        _check(
            "valid groups after training, and after INT8",
            "100 %",
            ", ".join(groups),
            held=all(row["valid_groups"] == row["groups"] > 0 for row in trained),
        ),
        _check(
            "compiled with sparse weights",
            "yes",
            [row["sparse_weights"] for row in trained],
            held=all(row["compiles"] and row["sparse_weights"] for row in trained),
        ),
    ]
    return {"dense": found["baseline"]["score"], "rows": rows, "checks": checks}


def channels(*, seed: int, quick: bool) -> Figures:
    """The Fashion network without half of its multiply-accumulates, trained: accuracy and speed."""
    folder = _folder("channels", seed, quick=quick)
    training, test = fashion(600 if quick else 20_000, seed=seed)
    sets = _sets(folder, training, test, quick=quick)
    prune = {"prune": {"channels": {"macs": LEAST_MACS_CUT}, "round_to": 16, "criterion": "taylor"}}
    train = {"train": "baseline", "epochs": 1 if quick else 3, "learning_rate": 0.001, "seed": seed}
    variants = [
        {"name": "cut-only", "passes": [prune]},
        {"name": "thin", "passes": [prune, train]},
    ]
    source = TEACHER
    found = _run(folder, source, sets, variants, targets=["cpu"], seed=seed)
    thin = next(variant for variant in found["variants"] if variant["name"] == "thin")
    before, after = (sum(layer[key] for layer in thin["pruned"]) for key in ("macs", "macs_left"))
    cut = 1 - after / before
    speedups = _speedups(Path(found["baseline"]["path"]), Path(thin["path"]), quick=quick)
    rows = {variant["name"]: {"score": variant["score"]} for variant in found["variants"]}
    rows["thin"] |= {"macs_cut": cut, "size_times": found["baseline"]["size_bytes"] / thin["size_bytes"]}
    checks = [
        _check("multiply-accumulates removed", "at least half", cut, held=cut >= LEAST_MACS_CUT),
        _lost(found, "thin", "channels"),
        _check(
            "faster in ONNX Runtime, one thread, batches of " + " and ".join(speedups),
            f"at least {LEAST_SPEEDUP} times",
            list(speedups.values()),
            held=min(speedups.values()) >= LEAST_SPEEDUP,
        ),
    ]
    return {"dense": found["baseline"]["score"], "rows": rows, "speedups": speedups, "checks": checks}


PARTS: dict[str, Callable[..., Figures]] = {
    "mnist_sparsity": mnist_sparsity,
    "two_to_four": two_to_four,
    "channels": channels,
}


def _folder(part: str, seed: int, *, quick: bool) -> Path:
    return FOLDER / f"{part}-{seed}{'-quick' if quick else ''}-run"


def _sets(folder: Path, training: Images, test: Images, *, quick: bool) -> dict[str, str]:
    """The sample sets of a recipe: 256 training images calibrate, the test images decide."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "calibration": training.first(CALIBRATION),
        "training": training,
        "evaluation": test.first(500) if quick else test,
    }
    return {name: part.save(folder / f"{name}.npz") for name, part in parts.items()}


def _run(
    folder: Path,
    model: Path,
    sets: dict[str, str],
    variants: list[dict[str, Any]],
    *,
    targets: list[str],
    seed: int,
) -> Figures:
    """What `jettison run` reports of these variants.

    Raises:
        RuntimeError: It ended with an error.
    """
    recipe = {
        "model": {"name": "benchmark", "path": str(model)},
        "samples": sets,
        "targets": targets,
        "variants": variants,
        "threads": 1,
        "seed": seed,
        "explain": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "jettison", "run", str(path), "-o", str(folder / "run"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"jettison run ended with {done.returncode}: {' '.join(command)}")
    document: Figures = json.loads(done.stdout)
    return document


def _sparse_row(found: Figures, variant: Figures) -> Figures:
    """Zeros counted in the weights of the finished file, and how small that is when compressed."""
    layers = [float_constant(layer.weight) for layer in find_layers(open_model(Path(variant["path"])).graph)]
    dense, sparse = (_deflated(Path(entry["path"])) for entry in (found["baseline"], variant))
    return {
        "score": variant["score"],
        "removed": sum(int((weight == 0).sum()) for weight in layers) / sum(weight.size for weight in layers),
        "compressed_times": dense / sparse,
    }


def _grouped_row(folder: Path, variant: Figures) -> Figures:
    """Groups counted in the finished file itself, and TensorRT's answer."""
    groups = valid_groups(open_model(Path(variant["path"])))
    layers = [found for found in groups.values() if found.refusal is None]
    report = _preflight(Path(variant["path"]), folder)
    return {
        "score": variant["score"],
        "groups": sum(found.eligible for found in layers),
        "valid_groups": sum(found.valid for found in layers),
        "compiles": report["compiles"],
        "sparse_layers": report["sparse_layers"],
        "sparse_weights": report["sparse_weights"],
    }


def _preflight(path: Path, folder: Path) -> Figures:
    command = [sys.executable, "-m", "jettison", "preflight", str(path), "--target", "sm89", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=folder)
    document: Figures = json.loads(done.stdout)
    return document


def _deflated(path: Path) -> int:
    """The bytes of the whole file as zip and gzip pack it."""
    return len(zlib.compress(path.read_bytes(), 6))


def _speedups(dense: Path, thin: Path, *, quick: bool) -> dict[str, float]:
    """How many times as fast the thinner file is, by the batch, both measured in turns."""
    found = {}
    for batch in (1, 8):
        runners = {
            name: OnnxRuntimeRunner(path, threads=1) for name, path in (("dense", dense), ("thin", thin))
        }
        name = runners["dense"].inputs[0].name
        inputs = {name: np.random.default_rng(0).random((batch, 1, 28, 28), np.float32)}
        plan = LatencyPlan(max_seconds=2 if quick else 20)
        report = compare_latency(runners, inputs, baseline="dense", plan=plan)
        found[str(batch)] = report.latencies["thin"].speedup
    return found


def _mnist_network(folder: Path, training: Images, *, seed: int, epochs: int) -> Path:
    """The brief's network (Conv 32, pool, Conv 64, pool, Dense 10), trained, as an ONNX file."""
    path = folder / "mnist.onnx"
    if path.is_file():
        return path
    import torch
    from torch import nn

    from jettison.compress.distillation.feed import hold_out
    from jettison.compress.distillation.losses import class_loss
    from jettison.compress.distillation.train import Lesson, Plan, train
    from jettison.core.samples import samples_of
    from jettison.core.tensors import TensorSpec
    from models.exporting import Signature, export_once

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 10),
    )  # fmt: skip
    specs = (TensorSpec(name="image", dtype="float32", shape=("batch", 1, 28, 28)),)
    samples = samples_of({"image": training.image}, labels=training.labels, specs=specs)
    learned, held_out = hold_out(samples, seed=seed)
    lesson = Lesson(learned, held_out, ("image",), ("logits",), class_loss())
    plan = Plan(epochs=epochs, batch_size=64, learning_rate=0.002, seed=seed)
    train(network, lesson, plan, checkpoints=folder / "dense")
    signature = Signature({"image": {0: "batch"}}, ["logits"])
    checks = [{"image": training.image[:count]} for count in (2, 5)]
    with contextlib.redirect_stdout(sys.stderr):
        export_once(path, network.eval(), signature, checks=checks)
    return path


def _lost(found: Figures, name: str, part: str) -> Check:
    """Whether a variant lost no more than the part allows."""
    score = next(variant["score"] for variant in found["variants"] if variant["name"] == name)
    lost, most = found["baseline"]["score"] - score, MOST_LOST[part]
    what = f"{name}: points lost on the test images"
    return _check(what, f"at most {100 * most:.1f}", 100 * lost, held=lost <= most + 1e-9)


def _check(what: str, asked: str, found: Any, *, held: bool) -> Check:
    shown = round(found, 3) if isinstance(found, float) else found
    if isinstance(found, list):
        shown = ", ".join(f"{part:.2f}" if isinstance(part, float) else str(part) for part in found)
    return {"what": what, "asked": asked, "found": shown, "held": bool(held)}


def main() -> int:
    """Measure the parts, print all; 1 where a target is missed."""
    given = _arguments()
    document = {name: PARTS[name](seed=given.seed, quick=given.quick) for name in given.parts}
    print(json.dumps(document, indent=1) if given.json else "\n".join(_lines(document)))
    return 0 if all(check["held"] for part in document.values() for check in part["checks"]) else 1


def _lines(document: dict[str, Figures]) -> Sequence[str]:
    lines = []
    for name, part in document.items():
        lines += [f"### {name}", "", f"dense: {part['dense']:.4f}", ""]
        lines += [f"- {row}: {json.dumps(figures)}" for row, figures in part["rows"].items()]
        lines += ["", "| target | asked | found | held |", "|---|---|---|---|"]
        for check in part["checks"]:
            held = "yes" if check["held"] else "NO"
            lines.append(f"| {check['what']} | {check['asked']} | {check['found']} | {held} |")
        lines.append("")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--parts", default=",".join(PARTS), type=lambda text: text.split(","))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="few images and epochs: that it runs, no figures"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
