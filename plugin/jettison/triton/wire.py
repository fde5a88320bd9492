"""Tensors as requests and answers carry them: their sizes on the wire, and the way there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jettison.core import dtypes
from jettison.core.errors import ExternalError, InputError
from jettison.core.tensors import TensorSpec
from jettison.triton.config import Input, ModelConfig, Output
from jettison.triton.region import LEAST_BYTES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tensor:
    """An input or output: its sizes in the model (`seen`) and in requests (`wire`), -1 where open."""

    spec: TensorSpec
    seen: tuple[int, ...]
    wire: tuple[int, ...]
    datatype: str
    is_optional: bool


def is_worth_sharing(tensors: Sequence[Tensor], wires: Sequence[Array]) -> bool:
    """Whether the inputs are large, and numbers: text has no fixed place."""
    is_text = any(tensor.datatype == "BYTES" for tensor in tensors)
    return not is_text and sum(wire.nbytes for wire in wires) >= LEAST_BYTES


def tensor_of(item: Input | Output, config: ModelConfig) -> Tensor:
    """One input or output of the configuration.

    Raises:
        ExternalError: Its type is unknown here.
    """
    element = dtypes.of_triton(item.data_type)
    if element is None or element.triton is None:
        raise ExternalError(
            f"tensor {item.name!r}",
            detail=f"the type {item.data_type} is unknown here",
            fix="Upgrade Jettison",
        )
    seen = config.model_shape(item)
    spec = TensorSpec(
        name=item.name, dtype=element, shape=tuple(None if size == -1 else size for size in seen)
    )
    is_optional = isinstance(item, Input) and item.optional
    return Tensor(spec, seen, config.wire_shape(item), element.triton, is_optional)


def signature_of(config: dict[str, Any]) -> ModelConfig:
    """The part of a server's configuration that a client needs; the rest is the server's business."""
    inputs = [
        {key: item[key] for key in Input.model_fields if item.get(key) is not None}
        for item in config["input"]
    ]
    outputs = [
        {key: item[key] for key in Output.model_fields if item.get(key) is not None}
        for item in config["output"]
    ]
    fields = {"name": config["name"], "max_batch_size": config.get("max_batch_size", 0)}
    return ModelConfig.model_validate({**fields, "input": inputs, "output": outputs})


def check_array(spec: TensorSpec, array: Array) -> None:
    """Nothing where the array fits.

    Raises:
        InputError: It has another type or shape.
    """
    problem = spec.mismatch(array.shape)
    if problem is None and dtypes.of_numpy(array.dtype) is not spec.dtype:
        problem = f"expected {spec.dtype.name}, found {array.dtype}"
    if problem is not None:
        raise InputError(f"input {spec.name!r}", detail=problem, fix="Convert the array")


def reshaped(array: Array, source: tuple[int, ...], target: tuple[int, ...]) -> Array:
    """The array from one side of a `reshape` to the other; open sizes go over in order."""
    if source == target:
        return array
    open_sizes = iter(size for pattern, size in zip(source, array.shape, strict=True) if pattern == -1)
    return array.reshape([next(open_sizes) if size == -1 else size for size in target])


def sent(array: Array, tensor: Tensor) -> Array:
    """An input as it travels: in the shape of requests, and little-endian, as the protocol has it.

    Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
    """
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return reshaped(little, tensor.seen, tensor.wire)


def received(array: Array | None, tensor: Tensor) -> Array:
    """An output as the model gives it.

    Raises:
        ExternalError: The answer lacks it.
    """
    if array is None:
        raise ExternalError(
            f"output {tensor.spec.name!r}",
            detail="the server's answer lacks it",
            fix="Look at the server's log",
        )
    if tensor.datatype == "BYTES":
        text = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
        array = np.array(text, dtype=np.object_).reshape(array.shape)
    return reshaped(array, tensor.wire, tensor.seen)
