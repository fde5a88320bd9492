"""The trained values of a module, written into a copy of the graph that it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from jettison.compress.distillation.graph_module import GraphModule, Origin


def trained_model(model: ir.Model, module: GraphModule) -> ir.Model:
    """A copy of the model with the module's weights, integers and scales; zero points stay.

    Integers are those that the module computed with, so the copy computes what was trained.
    """
    copy = model.clone()
    with torch.no_grad():
        for origin in module.origins:
            _write(copy.graph.initializers[origin.name], module, origin)
        for name, array in module.scales.changed().items():
            _set(copy.graph.initializers[name], array)
    return copy


def _write(value: ir.Value, module: GraphModule, origin: Origin) -> None:
    if origin.path.startswith("stored."):
        key = origin.path.split(".")[1]
        found = module.stored[key].integers(module.scales.value(module.stored_scales[key]))
    else:
        found = module.get_parameter_or_buffer(origin.path)
    array = found.detach().cpu().numpy()
    _set(value, array.T if origin.is_turned else array)


def _set(value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    """Let the initializer hold the array, in its own element type and, where that fits, its own shape."""
    if value.const_value is None:
        raise ValueError(f"{value.name!r} is no constant")
    before = value.const_value.numpy()
    shaped = array.reshape(before.shape) if array.size == before.size else array
    typed = np.ascontiguousarray(shaped).astype(before.dtype).reshape(shaped.shape)
    value.const_value = ir.tensor(typed, dtype=value.const_value.dtype, name=value.name)
    value.shape = ir.Shape(typed.shape)
