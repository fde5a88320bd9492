"""The pass `{quantize: full, backend: modelopt}`: NVIDIA's ModelOpt instead of our own quantizer.

ModelOpt runs in a child process with an environment of its own. What it takes and gives are files: the
float model, the samples as batches, the quantized model.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, computed_field

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.compress.quantization.modelopt_environment import COMMAND, MODELOPT, find_python
from jettison.compress.quantization.placement import LayerDecision
from jettison.compress.quantization.refusals import refuse_quantized, without_layers
from jettison.core.batching import fitting_batches
from jettison.core.errors import ExternalError, MissingError
from jettison.core.progress import Progress, silent
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.graph.clean import name_everything, remove_unused
from jettison.graph.model import input_specs, open_model
from jettison.graph.save import save_model
from jettison.graph.stored import store_integers

Method = Literal["max", "entropy"]
CHILD = Path(__file__).with_name("modelopt_child.py")
_COUNT = "batch "
"""What a line begins with that tells how many batches the child has read."""
_TOLD_LINES = 3
"""Of the child's last words, the end of a traceback, that an error quotes."""


@dataclass(frozen=True)
class Order:
    """What ModelOpt is asked for: a float model, its inputs' names in the order of the batches' arrays.

    `folder` is its working folder, with `batches/` in it; nothing else may lie there.
    """

    model: Path
    inputs: tuple[str, ...]
    folder: Path
    method: Method
    output: Path


class QuantizeModelopt(BaseModel):
    """Static INT8 by ModelOpt, which writes for TensorRT: symmetric, weights per channel, bias in float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["full"] = "full"
    backend: Literal["modelopt"] = "modelopt"
    calibration_method: Method = "max"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def version(self) -> str:
        """The distribution that computes the result, so that another one makes the step anew."""
        return MODELOPT

    def check(self, piece: Workpiece) -> Refusal | None:
        """Refuses the CPU, a model that is quantized already, and one without a float32 layer."""
        if not piece.target.is_gpu:
            return Refusal(
                reasons=(
                    "ModelOpt writes signed INT8 activations for TensorRT, which ONNX Runtime's CPU kernels "
                    "run slower than float",
                ),
                instead="Use {quantize: full} without a backend for target cpu",
            )
        if (refusal := refuse_quantized(piece.model.graph)) is not None:
            return refusal
        layers = list(find_layers(piece.model.graph))
        if any(layer.refusal is None for layer in layers):
            return None
        return without_layers(
            ((layer.kind, layer.refusal) for layer in layers),
            instead="Serve it in float, or try {quantize: float16}",
        )

    def __call__(self, piece: Workpiece, samples: Samples) -> PassResult:
        """The model as ModelOpt quantizes it, its weights stored as integers.

        Raises:
            MissingError: ModelOpt's environment is not made.
            ExternalError: ModelOpt failed; the message has its own words.
        """
        find_python()  # before the samples are written
        specs = input_specs(piece.model)
        with tempfile.TemporaryDirectory(prefix="jettison-modelopt-") as name:
            folder = Path(name)
            model, output = folder / "float.onnx", folder / "quantized.onnx"
            save_model(piece.model, model)
            order = Order(model, tuple(spec.name for spec in specs), folder, self.calibration_method, output)
            count = write_batches(fitting_batches(samples, specs, fill_last=False), order)
            run_modelopt(order, count=count, progress=piece.progress)
            found = opened(output)
        decisions = tuple(_decision(found, layer) for layer in find_layers(piece.model.graph))
        return PassResult(found, layers=decisions, notes=(f"quantized by {MODELOPT}",))


def write_batches(batches: Iterable[Arrays], order: Order) -> int:
    """Write each batch as a file into the working folder, and say how many there are."""
    folder = order.folder / "batches"
    folder.mkdir()
    count = 0
    for arrays in batches:
        # By place and not by name: savez takes an array named `file` for its own argument.
        np.savez(folder / f"{count:08d}.npz", *(arrays[name] for name in order.inputs))
        count += 1
    return count


def run_modelopt(order: Order, *, count: int = 0, progress: Progress | None = None) -> None:
    """Let ModelOpt write `order.output`; `progress` hears how many of `count` batches it has read.

    Raises:
        MissingError: ModelOpt's environment is not made, or its Python does not start.
        ExternalError: ModelOpt failed or wrote nothing.
    """
    heard = progress or silent("")
    request = order.folder / "request.json"
    request.write_text(json.dumps(_request(order)))
    with (order.folder / "errors.txt").open("w+b") as errors:
        status = _run(request, errors.fileno(), lambda done: heard(done, count))
        errors.seek(0)
        words = errors.read().decode(errors="replace").splitlines()
    if status != 0 or not order.output.is_file():
        told = [line.strip() for line in words if line.strip()][-_TOLD_LINES:]
        raise ExternalError(
            f"ModelOpt on {order.model.name}",
            detail=" / ".join(told) or f"it ended with status {status} and wrote no model",
            fix="Use {quantize: full} without a backend for this model",
        )


def _request(order: Order) -> dict[str, object]:
    return {
        "model": str(order.model),
        "batches": str(order.folder / "batches"),
        "inputs": order.inputs,
        "method": order.method,
        "external": order.model.with_name(f"{order.model.stem}.onnx.data").exists(),
        "output": str(order.output),
    }


def _run(request: Path, errors: int, heard: Callable[[int], object]) -> int:
    """The exit status of the child, which leaves nothing outside the request's folder."""
    command = [str(find_python()), "-I", str(CHILD), str(request)]
    try:
        child = subprocess.Popen(
            command,
            cwd=request.parent,
            env={**os.environ, "TMPDIR": str(request.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise MissingError(
            "ModelOpt",
            detail=f"its Python does not start: {error}",
            fix=f"Remove {command[0]} and run: {COMMAND}",
        ) from error
    with child:
        try:
            for line in child.stdout or ():
                number = line.removeprefix(_COUNT).strip()
                if line.startswith(_COUNT) and number.isdigit():
                    heard(int(number))
        except BaseException:
            child.kill()
            raise
    return child.returncode


def opened(path: Path) -> ir.Model:
    """ModelOpt's file with integers where it stores floats that each load would quantize.

    External weights are mapped, and a mapped file stays readable after it was removed.
    """
    model = open_model(path)
    store_integers(model)
    remove_unused(model)
    name_everything(model)
    return model


def _decision(found: ir.Model, layer: Layer) -> LayerDecision:
    node = next((node for node in found.graph if node.name == layer.name), None)
    inputs = () if node is None else node.inputs[:2]
    is_quantized = len(inputs) == 2 and all(_is_dequantized(value) for value in inputs)
    kept = layer.refusal or "ModelOpt leaves it in float"
    reason = "integers, placed by ModelOpt" if is_quantized else kept
    return LayerDecision(node=layer.name, kind=layer.kind, quantized=is_quantized, reason=reason)


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
