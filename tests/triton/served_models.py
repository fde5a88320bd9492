"""Tiny ONNX models for the server tests, each with the plain numpy form of what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jettison.core import dtypes
from jettison.core.tensors import Dimension, TensorSpec
from jettison.triton.config import ModelConfig
from jettison.triton.publish import Release, publish
from jettison.triton.server import TritonServer
from jettison.triton.serving import Serving, config_of

TABLE = np.arange(20, dtype=np.float32).reshape(10, 2)

CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Served:
    server: TritonServer
    repository: Path
    configs: dict[str, ModelConfig]


def spec(name: str, dtype: str, *shape: Dimension) -> TensorSpec:
    row = dtypes.of_name(dtype)
    assert row is not None
    return TensorSpec(name=name, dtype=row, shape=shape)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    def info(s: TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(s.name, s.dtype.onnx, list(s.shape))

    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes), "tiny", [info(s) for s in inputs], [info(s) for s in outputs], initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


Tiny = tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]]


def affine(factor: float = 2.0, batch: Dimension = "batch") -> Tiny:
    """y = factor x, rows of three."""
    inputs, outputs = [spec("x", "float32", batch, 3)], [spec("y", "float32", batch, 3)]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    return model_of(nodes, inputs, outputs, constants={"factor": np.float32([factor])}), inputs, outputs


def total() -> Tiny:
    """A scalar from four numbers, without a batch."""
    inputs, outputs = [spec("x", "float32", 4)], [spec("y", "float32")]
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    return model_of(nodes, inputs, outputs), inputs, outputs


def row_totals() -> Tiny:
    """One number for each row: in a batch the scalar has the shape (batch,)."""
    inputs, outputs = [spec("x", "float32", "batch", 4)], [spec("y", "float32", "batch")]
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    return model_of(nodes, inputs, outputs, constants={"axes": np.int64([1])}), inputs, outputs


def embedding() -> Tiny:
    """TABLE[ids] for ids of any length; an id over 9 fails at run time."""
    inputs = [spec("ids", "int64", "batch", "length")]
    outputs = [spec("y", "float32", "batch", "length", 2)]
    return (
        model_of(
            [helper.make_node("Gather", ["table", "ids"], ["y"])], inputs, outputs, constants={"table": TABLE}
        ),
        inputs,
        outputs,
    )


PASSED = (
    "bool",
    "float16",
    "float64",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "uint64",
)


def passer() -> Tiny:
    """Every element type that Triton carries but text, passed through."""
    inputs = [spec(f"x_{name}", name, "batch", 2) for name in PASSED]
    outputs = [spec(f"y_{name}", name, "batch", 2) for name in PASSED]
    nodes = [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in PASSED]
    return model_of(nodes, inputs, outputs), inputs, outputs


def pair() -> Tiny:
    """Two outputs: first = x, second = 2 x."""
    inputs = [spec("x", "float32", "batch", 2)]
    outputs = [spec("first", "float32", "batch", 2), spec("second", "float32", "batch", 2)]
    nodes = [helper.make_node("Identity", ["x"], ["first"]), helper.make_node("Add", ["x", "x"], ["second"])]
    return model_of(nodes, inputs, outputs), inputs, outputs


def words() -> Tiny:
    """Text, passed through."""
    inputs, outputs = [spec("x", "string", "batch", 2)], [spec("y", "string", "batch", 2)]
    return model_of([helper.make_node("Identity", ["x"], ["y"])], inputs, outputs), inputs, outputs


def defaulted() -> Tiny:
    """y = x scale, where scale is an optional input that is 5 if not given."""
    inputs = [spec("x", "float32", "batch", 2), spec("scale", "float32", "batch", 1)]
    outputs = [spec("y", "float32", "batch", 2)]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    return model_of(nodes, inputs, outputs, constants={"scale": np.float32([[5.0]])}), inputs, outputs


def external(folder: Path) -> tuple[dict[str, Path], list[TensorSpec], list[TensorSpec]]:
    """y = x weight, its weight in a file of its own."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    inputs, outputs = [spec("x", "float32", "batch", 3)], [spec("y", "float32", "batch", 3)]
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    model = model_of([node], inputs, outputs, constants={"weight": weight})
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
        convert_attribute=False,
    )
    return {name: folder / name for name in ("model.onnx", "model.data")}, inputs, outputs


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def published(root: Path, work: Path, name: str, tiny: Tiny, **serving: object) -> ModelConfig:
    model, inputs, outputs = tiny
    config = config_of(name, inputs, outputs, serving=Serving.model_validate(serving))
    path = save(model, work / f"{name}.onnx")
    publish(Release(config, {"model.onnx": path}, CREATED), root)
    return config
