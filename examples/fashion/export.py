"""The trained network as one ONNX file, checked against PyTorch in ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import nn

OPSET = 20
# The newest IR version that every serving ONNX Runtime since 1.18 reads.
IR_VERSION = 10
# Float32 sums in another order: far above what was seen (about 2e-6), far below a logit's scale.
TOLERANCE = 1e-3


def export(network: nn.Module, path: Path) -> None:
    """Write `network` to `path`: input `image`, output `logits`, dynamic dimension `batch`."""
    example = torch.zeros(2, 1, 28, 28)
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError(
            f"Exporting to {path} failed: expected a program from torch.onnx.export, found None. "
            "Check that the installed PyTorch is 2.9 or newer."
        )
    model = program.model_proto
    model.ir_version = IR_VERSION
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its origin: stack traces with source paths among it."""
    for part in _parts(model):
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)


def _parts(
    model: onnx.ModelProto,
) -> Iterator[onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto]:
    """Every part of a model without subgraphs and functions that may carry metadata."""
    graph = model.graph
    yield model
    yield graph
    yield from graph.node
    yield from graph.initializer
    yield from (*graph.input, *graph.output, *graph.value_info)


def onnx_logits(path: Path, images: npt.NDArray[np.float32], batch: int) -> npt.NDArray[np.float32]:
    """What ONNX Runtime computes for `images`, `batch` of them at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    starts = range(0, len(images), batch)
    outputs = [session.run(["logits"], {"image": images[at : at + batch]})[0] for at in starts]
    return np.concatenate(outputs)


def check_equal(network: nn.Module, path: Path, images: npt.NDArray[np.float32]) -> float:
    """The largest difference between the ONNX file and PyTorch, at batch sizes 1 and 32.

    Raises:
        RuntimeError: the difference is larger than `TOLERANCE`.
    """
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    differences = [np.abs(onnx_logits(path, images, batch) - expected).max() for batch in (1, 32)]
    largest = float(max(differences))
    if largest > TOLERANCE:
        raise RuntimeError(
            f"{path} does not compute what PyTorch computes: expected logits within "
            f"{TOLERANCE!r}, found a difference of {largest!r}. "
            "Compare the versions of torch and onnxruntime with those in README.md."
        )
    return largest
