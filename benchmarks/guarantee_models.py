"""The guarantee beyond EfficientNet on the CPU: TensorRT's form of it, a sentence encoder, the example."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from guarantee_checks import Check, Part, scored
from jettison.compress.passes import Workpiece
from jettison.compress.quantization.material import Material, gather
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.search import Point, Search
from jettison.core.batching import fitting_batches
from jettison.core.runner import Runner
from jettison.core.samples import Samples, open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of, shapes_of
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.shares import int8_mac_share
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.reference import reference_of
from jettison.graph.clean import clean
from jettison.graph.macs import macs_by_node
from jettison.graph.model import input_specs, open_model
from jettison.graph.save import save_model
from peers import peers

GPU = "sm89"
LEAST_AGREEMENT = 0.96
LEAST_INT8_SHARE = 0.75
SPARE_SHARE = 0.02
"""What a choice of layers has more than is asked: the compiler leaves narrow layers in float."""
LEAST_COSINE = 0.99
LEAST_MATMUL_SHARE = 0.8
MOST_ACCURACY_LOST = 0.002


def for_tensorrt(folder: Path) -> Part:
    """EfficientNet-Lite0 for a GPU: the least damage with that share of its convolutions in INT8."""
    model = clean(open_model(folder / "efficientnet-lite0.onnx"))
    calibration = open_samples(folder / "calibration-128", input_specs(model))
    evaluation = open_samples(folder / "evaluation", input_specs(model))
    material = gather(Workpiece(model, parse_target(GPU)), calibration, "measure", frozenset())
    macs = _macs(model, "Conv", {"batch": 1})
    point = _least_damage(material, macs, LEAST_INT8_SHARE + SPARE_SHARE)
    reference = reference_of(OnnxRuntimeRunner(folder / "efficientnet-lite0.onnx"), evaluation)
    with tempfile.TemporaryDirectory(prefix="guarantee-") as work:
        files = {"ours": Path(work) / "ours.onnx", "ours, all INT8": Path(work) / "all.onnx"}
        save_model(material.quantize(point.layers), files["ours"])
        save_model(material.quantize(frozenset(material.order)), files["ours, all INT8"])
        others = peers(folder / "efficientnet-lite0.onnx", folder / "calibration-128", folder / "peers")
        files |= {name: path for name, path in others.items() if "dynamic" not in name}
        rows = []
        for name, path in files.items():
            report = preflight(path, parse_target(GPU))
            decibels, agreement = scored(OnnxRuntimeRunner(path, optimize=False), evaluation, reference)
            share = int8_mac_share(report.layers, macs) if report.compiles else None
            rows.append(
                {
                    "model": name, "exact_db": decibels, "agreement": agreement,
                    "compiles": "yes" if report.compiles else "no", "INT8_share_of_convolutions": share,
                }
            )  # fmt: skip
    ours = rows[0]
    checks = [
        Check(f"agreement at least {LEAST_AGREEMENT}", f"{ours['agreement']:.3f}",
              ours["agreement"] >= LEAST_AGREEMENT),
        Check("compiles", ours["compiles"], ours["compiles"] == "yes"),
        Check(f"at least {LEAST_INT8_SHARE} of the convolutions' MACs in INT8, by the compiler's list",
              f"{ours['INT8_share_of_convolutions'] or 0:.3f}",
              (ours["INT8_share_of_convolutions"] or 0) >= LEAST_INT8_SHARE),
    ]  # fmt: skip
    return Part(f"EfficientNet-Lite0 for TensorRT ({GPU}), 512 unseen crops", rows, checks, material.notes)


def encoder(folder: Path) -> Part:
    """all-MiniLM-L6-v2 on the CPU: cosine to the float embeddings on unseen sentences."""
    path = folder / "all-minilm-l6-v2.onnx"
    model = clean(open_model(path))
    calibration = open_samples(folder / "calibration-128", input_specs(model))
    evaluation = open_samples(folder / "evaluation", input_specs(model))
    material = gather(Workpiece(model, parse_target("cpu")), calibration, "measure", frozenset())
    macs = _macs(model, "MatMul", {"batch": 1, "length": 64})
    point = _least_damage(material, macs, LEAST_MATMUL_SHARE)
    everything = frozenset(material.order)
    baseline = OnnxRuntimeRunner(path)
    with tempfile.TemporaryDirectory(prefix="guarantee-") as work:
        runners: dict[str, Runner] = {
            "float": baseline,
            "ours, all INT8": runner_of(material.quantize(everything)),
            "ours, least damage": runner_of(material.quantize(point.layers)),
            **_onnxruntimes_own(path, calibration, Path(work)),
        }
    shares = {
        "ours, all INT8": _share(macs, everything),
        "ours, least damage": _share(macs, point.layers),
    }
    speeds = compare_latency(
        runners, next(evaluation.batches(1)).inputs, baseline="float", plan=LatencyPlan(max_seconds=60)
    ).latencies
    expected = _embeddings(baseline, evaluation)
    rows = []
    for name, runner in runners.items():
        cosines = (_embeddings(runner, evaluation) * expected).sum(axis=1)
        rows.append(
            {
                "model": name, "cosine_mean": float(cosines.mean()), "cosine_least": float(cosines.min()),
                "INT8_share_of_products": shares.get(name), "speedup": speeds[name].speedup,
            }
        )  # fmt: skip
    ours = next(row for row in rows if row["model"] == "ours, all INT8")
    checks = [
        Check(f"mean cosine at least {LEAST_COSINE} on {evaluation.count} sentences",
              f"{ours['cosine_mean']:.4f}", ours["cosine_mean"] >= LEAST_COSINE),
        Check(f"at least {LEAST_MATMUL_SHARE} of the MatMuls' MACs in INT8",
              f"{ours['INT8_share_of_products']:.3f}",
              ours["INT8_share_of_products"] >= LEAST_MATMUL_SHARE),
    ]  # fmt: skip
    notes = ("sentences: questions of the ChatterBot corpus and paragraphs of library documentation",)
    return Part("all-MiniLM-L6-v2 on the CPU", rows, checks, (*material.notes, *notes))


def example(folder: Path) -> Part:
    """The Fashion-MNIST network of the example, every layer in INT8."""
    path = folder / "fashion.onnx"
    model = clean(open_model(path))
    calibration = open_samples(folder / "calibration.npz", input_specs(model))
    evaluation = open_samples(folder / "evaluation.npz", input_specs(model))
    reference = reference_of(OnnxRuntimeRunner(path), evaluation)
    _, accuracy = scored(OnnxRuntimeRunner(path), evaluation, reference, metric="top1")
    rows = [{"model": "float", "top1": accuracy, "sqnr_db": None}]
    for target in ("cpu", GPU):
        made = QuantizeFull()(Workpiece(model, parse_target(target)), calibration).model
        runner = runner_of(made, optimize=target == "cpu")
        decibels, found = scored(runner, evaluation, reference, metric="top1")
        rows.append({"model": f"INT8, {target}", "top1": found, "sqnr_db": decibels})
    lost = max(accuracy - row["top1"] for row in rows)
    check = Check(f"accuracy within {MOST_ACCURACY_LOST} of float at full INT8", f"{lost:+.4f} lost",
                  lost <= MOST_ACCURACY_LOST)  # fmt: skip
    return Part(f"Fashion-MNIST network, {evaluation.count} test images", rows, [check])


def _least_damage(material: Material, macs: dict[str, int], share: float) -> Point:
    """The point of the front with the least predicted damage and at least that share of MACs in INT8."""
    found = Search(material.order, material.damages, material.cost).front()
    wide = [point for point in found if _share(macs, point.layers) >= share]
    return min(wide, key=lambda point: point.damage)


def _share(macs: dict[str, int], layers: frozenset[str]) -> float:
    return sum(count for name, count in macs.items() if name in layers) / sum(macs.values())


def _macs(model: ir.Model, operator: str, sizes: dict[str, int]) -> dict[str, int]:
    kinds = {node.name: node.op_type for node in model.graph}
    counts = macs_by_node(model, shapes_of(model, sizes=sizes))
    return {name: count for name, count in counts.items() if kinds.get(name) == operator}


def _embeddings(runner: Runner, samples: Samples) -> np.ndarray[Any, Any]:
    """Unit vectors, one a sentence: float32, (sentences, width)."""
    rows = [runner.run(batch.inputs)["embedding"] for batch in samples.batches(8)]
    found = np.concatenate(rows)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _onnxruntimes_own(path: Path, samples: Samples, folder: Path) -> dict[str, Runner]:
    """ONNX Runtime's dynamic and static quantizers on the same model."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[Any] = fitting_batches(samples, input_specs(open_model(path)), size=8)

        def get_next(self) -> Any:
            return next(self._batches, None)

    files: Sequence[Path] = [folder / f"{name}.onnx" for name in ("dynamic", "static", "static-7-bit")]
    logging.disable(logging.WARNING)  # it advises a pre-processing and counts what it leaves out
    quantize_dynamic(path, files[0], per_channel=True, weight_type=QuantType.QInt8)
    for file, reduce_range in ((files[1], False), (files[2], True)):
        quantize_static(
            path, file, Reader(), per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, reduce_range=reduce_range,
        )  # fmt: skip
    logging.disable(logging.NOTSET)
    return {f"ort-{file.stem}": OnnxRuntimeRunner(file) for file in files}
