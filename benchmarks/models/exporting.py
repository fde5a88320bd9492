"""ONNX files from torch modules: clean, at a fixed opset, and compared with torch before they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

OPSET = 20
IR_VERSION = 10  # the newest that ONNX Runtime reads since 1.18 and TensorRT 10 since 10.0
MAX_ERROR = 1e-4  # of the largest output; float32 sums in another order differ by about 1e-6

Inputs = dict[str, np.ndarray[Any, Any]]


class ExportError(RuntimeError):
    """The exported model does not compute what the torch module computes."""


@dataclass(frozen=True)
class Signature:
    """Names of inputs and outputs, and for each input the names of its dynamic axes."""

    inputs: dict[str, dict[int, str]]
    outputs: Sequence[str]


def export_once(
    path: Path, module: torch.nn.Module, signature: Signature, *, checks: Sequence[Inputs]
) -> None:
    """Writes the module as `path`, after ONNX Runtime agreed with torch on every one of `checks`.

    The first check is also the example that is traced; the others should differ in every dynamic axis,
    because an exporter may freeze a size without a warning.

    Raises:
        ExportError: An output differs by more than `MAX_ERROR` of the largest value.
    """
    model = _exported(module, signature, checks[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    onnx.save(model, partial)
    worst = max(_relative_error(partial, module, inputs) for inputs in checks)
    if worst > MAX_ERROR:
        raise ExportError(f"{path.name}: differs from torch by {worst:.2e} of the largest output")
    partial.rename(path)
    print(f"{path.name}: {len(checks)} shapes equal torch within {worst:.1e} of the largest output")


def without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes, which hold source paths of the machine it ran on."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _exported(module: torch.nn.Module, signature: Signature, example: Inputs) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        tuple(torch.from_numpy(example[name]) for name in signature.inputs),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(signature.inputs),
        output_names=list(signature.outputs),
        dynamic_shapes=tuple(signature.inputs.values()),
        verbose=False,
    )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    _free_output_names(program)
    model = without_metadata(program.model_proto)
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _free_output_names(program: torch.onnx.ONNXProgram) -> None:
    """Renames inner values called like an output: torch 2.13 names outputs without looking for twins.

    It happens as soon as an output is called like an operator, such as `embedding`.
    """
    outputs = program.model.graph.outputs
    taken = {value.name for value in outputs}
    for node in program.model.graph:
        for value in node.outputs:
            if value.name in taken and not any(value is output for output in outputs):
                value.name = f"inner_{value.name}"


def _relative_error(path: Path, module: torch.nn.Module, inputs: Inputs) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, inputs)[0]
    with torch.no_grad():
        expected = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    if found.shape != expected.shape:
        raise ExportError(f"{path.name}: output {found.shape}, but torch gives {expected.shape}")
    return float(np.abs(found - expected).max() / np.abs(expected).max())
