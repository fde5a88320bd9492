"""Batches as tensors, cut to what a module takes at once, and a module's outputs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jettison.core.errors import ModelError
from jettison.core.samples import Batch
from jettison.core.tensors import Arrays

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class TensorBatch:
    """Some samples as tensors, and the arrays that they were made from."""

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    source: Batch

    def __len__(self) -> int:
        return len(self.source)


Loss = Callable[[Outputs, TensorBatch], Tensor]
"""From a module's outputs by name, and the batch, to the mean loss of its samples."""


def cut(batch: Batch, size: int | None, *, is_fixed: bool = False) -> Iterator[Batch]:
    """The batch in pieces of so many samples; where the size is fixed, without a rest that is too short."""
    step = size or len(batch)
    for start in range(0, len(batch), step):
        piece = rows_of(batch, slice(start, start + step))
        if not is_fixed or len(piece) == step:
            yield piece


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Those samples of the batch."""
    labels = None if batch.labels is None else batch.labels[rows]
    return Batch({name: array[rows] for name, array in batch.inputs.items()}, labels)


def as_tensors(batch: Batch, device: torch.device) -> TensorBatch:
    """The batch on a device; labels that are whole numbers become int64, as torch's losses take them."""
    labels = batch.labels
    if labels is not None and labels.dtype.kind in "iub":
        labels = labels.astype(np.int64)
    return TensorBatch(
        {name: _tensor(array, device) for name, array in batch.inputs.items()},
        None if labels is None else _tensor(labels, device),
        batch,
    )


def tensors_of(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Arrays by name as tensors on a device."""
    return {name: _tensor(array, device) for name, array in arrays.items()}


def _tensor(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape)).to(device)


def answers_of(
    module: nn.Module, batch: TensorBatch, inputs: Sequence[str], outputs: Sequence[str]
) -> Outputs:
    """What the module answers to the batch, by name.

    The module is called with the inputs in order and gives a tensor, several in order, or several by name.

    Raises:
        ModelError: It gives another number of outputs than there are names.
    """
    found = module(*(batch.inputs[name] for name in inputs))
    if isinstance(found, Mapping):
        return found
    given = tuple(found) if isinstance(found, tuple | list) else (found,)
    if len(given) != len(outputs):
        raise ModelError(
            f"module {type(module).__name__}",
            detail=f"expected {len(outputs)} outputs, {', '.join(outputs)}, found {len(given)}",
            fix="Let its forward return a tensor for each of them, in this order, or a dict by name",
        )
    return dict(zip(outputs, given, strict=True))
