"""The channel groups of a graph, as Torch-Pruning follows them through the graph's module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jettison.compress.distillation.door import load_torch_pruning
from jettison.compress.distillation.graph_module import GraphModule, Origin
from jettison.compress.distillation.layers import FrozenBatchNorm
from jettison.compress.pruning.channel_groups import ChannelGroup, Place, Role
from jettison.core.tensors import Arrays
from jettison.graph.edit import is_constant

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_DOORS = {2: nn.Linear, 4: nn.Conv2d, 5: nn.Conv3d}
_STATISTICS = (3, 4)
"""Inputs of a BatchNormalization that hold its mean and variance."""


def channel_groups(model: ir.Model, module: GraphModule, inputs: Arrays) -> list[ChannelGroup]:
    """All groups of channels that some layer makes, in the order in which they are found.

    Args:
        model: The model that the module was made from.
        module: Its module; it is run once.
        inputs: One batch, by the names of the module's inputs.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in module.input_names]
    pruning, marked = load_torch_pruning(), _Marked(module, tensors)
    graph = pruning.DependencyGraph().build_dependency(marked, tuple(tensors), verbose=False)
    layers = {layer: f"layers.{key}" for key, layer in module.layers.items()}
    doors = frozenset(marked.doors.values())
    finder = _Finder(model.graph, {origin.path: origin for origin in module.origins}, layers, doors, module)
    groups = [found for found in graph.get_all_groups() if found[0].dep.target.module not in doors]
    return [finder.group(graph, found) for found in groups]


class _Marked(nn.Module):  # type: ignore[misc]
    """The module between marks that Torch-Pruning sees, since it knows neither inputs nor outputs by itself.

    An input goes through a layer of as many channels, or what is concatenated with it would be taken for all
    that there is. An output goes through one more operation.
    """

    def __init__(self, module: GraphModule, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.module = module
        with torch.random.fork_rng(devices=[]):
            doors = {str(index): _door(tensor) for index, tensor in enumerate(inputs)}
        self.doors = nn.ModuleDict({key: door for key, door in doors.items() if door is not None})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs; their numbers do not matter."""
        entered = [
            self.doors[str(index)](tensor) if str(index) in self.doors else tensor
            for index, tensor in enumerate(inputs)
        ]
        return tuple(found * 1 if found.is_floating_point() else found for found in self.module(*entered))


def _door(tensor: Tensor) -> nn.Module | None:
    """A layer that keeps the input's shape, None where its channels lie nowhere in particular."""
    kind = _DOORS.get(tensor.ndim)
    if kind is None or not tensor.is_floating_point():
        return None
    sizes = (tensor.shape[1], tensor.shape[1])
    return nn.Linear(*sizes) if kind is nn.Linear else kind(*sizes, 1)


class _UnfitError(Exception):
    """Why no channel of a group may go, and the weight in the way, where it is one."""

    def __init__(self, reason: str, weight: str = "") -> None:
        super().__init__(reason)
        self.weight = weight


@dataclass(frozen=True)
class _Finder:
    """What a group that Torch-Pruning found means in the graph."""

    graph: ir.Graph
    origins: Mapping[str, Origin]
    layers: Mapping[nn.Module, str]
    doors: Collection[nn.Module]
    module: GraphModule

    def group(self, graph: Any, found: Any) -> ChannelGroup:
        """The group; `found` has entries of what is touched, how, and by which channels."""
        places: list[Place] = []
        refusal, blocked = None, []
        channels = 1 + max(found[0].root_idxs)
        for entry in found:
            target, is_made = entry.dep.target, graph.is_out_channel_pruning_fn(entry.dep.handler)
            try:
                places += self._places(target.module, entry, is_made=is_made)
            except _UnfitError as error:
                refusal = refusal or str(error)
                blocked.append(error.weight)
        if refusal is None and not any(place.role == "reads" for place in places):
            refusal = "no layer reads its channels, or none that can be told"
        return ChannelGroup(channels, tuple(places), refusal, tuple(filter(None, blocked)))

    def _places(self, touched: Any, entry: Any, *, is_made: bool) -> Iterator[Place]:
        if isinstance(touched, nn.Parameter):
            yield self._vector(touched, entry)
        elif touched in self.layers:
            yield from self._of_layer(touched, entry, is_made=is_made)
        elif touched in self.doors:
            raise _UnfitError("its channels are joined with an input of the model")
        elif type(touched).__name__ == "_OutputOp":
            raise _UnfitError("its channels are an output of the model")

    def _of_layer(self, layer: nn.Module, entry: Any, *, is_made: bool) -> Iterator[Place]:
        path = self.layers[layer]
        if isinstance(layer, FrozenBatchNorm):
            yield from self._normalization(path, entry)
        elif isinstance(layer, nn.Linear):
            yield from self._weights(path, entry, 0 if is_made else 1, "makes" if is_made else "reads")
        elif isinstance(layer, _CONVOLUTIONS):
            yield from self._convolution(layer, path, entry, is_made=is_made)
        else:
            raise _UnfitError(f"{type(layer).__name__} {self._node(path).name!r} mixes its channels")

    def _convolution(self, layer: Any, path: str, entry: Any, *, is_made: bool) -> Iterator[Place]:
        is_turned = isinstance(layer, _TRANSPOSED)
        if layer.groups == 1:
            axis = int(is_turned) if is_made else 1 - int(is_turned)
            yield from self._weights(path, entry, axis, "makes" if is_made else "reads")
        elif layer.groups == layer.in_channels == layer.out_channels and not is_turned:
            yield from self._weights(path, entry, 0, "carries")
        else:
            node = self._node(path)
            reason = f"the grouped {node.op_type} {node.name!r} has its channels by place"
            raise _UnfitError(reason, self.origins[f"{path}.weight"].name)

    def _weights(self, path: str, entry: Any, axis: int, role: Role) -> Iterator[Place]:
        """A weight along that axis of the module's, and the bias of what it makes."""
        origin = self.origins[f"{path}.weight"]
        yield self._place(origin.name, (1 - axis) if origin.is_turned else axis, role, entry)
        bias = self.origins.get(f"{path}.bias")
        if bias is not None and role != "reads":
            yield self._place(bias.name, len(self._shape(bias.name)) - 1, role, entry)

    def _normalization(self, path: str, entry: Any) -> Iterator[Place]:
        node = self._node(path)
        yield from self._weights(path, entry, 0, "carries")
        for index in _STATISTICS:
            value = node.inputs[index]
            if value is None or not is_constant(value) or len(value.uses()) > 1:
                raise _UnfitError(f"{node.op_type} {node.name!r} shares its statistics")
            yield self._place(value.name or "", 0, "carries", entry)

    def _vector(self, parameter: nn.Parameter, entry: Any) -> Place:
        """A parameter outside of layers: a number for each channel, along the one axis that is no 1."""
        found = next(
            origin
            for origin in self.module.origins
            if self.module.get_parameter_or_buffer(origin.path) is parameter
        )
        sizes = self._shape(found.name)
        axes = [axis for axis, size in enumerate(sizes) if size > 1]
        if found.is_matrix or len(axes) != 1:
            raise _UnfitError(f"{found.name!r} is no number for each channel, or read by several nodes")
        return self._place(found.name, axes[0], "carries", entry)

    def _place(self, name: str, axis: int, role: Role, entry: Any) -> Place:
        size = self._shape(name)[axis]
        channels = np.full(size, -1, np.int64)
        if max(entry.idxs, default=0) >= size or len(entry.idxs) != len(entry.root_idxs):
            raise _UnfitError(f"its channels cannot be followed to {name!r}")
        channels[np.asarray(entry.idxs, np.int64)] = entry.root_idxs
        return Place(name, axis, role, channels)

    def _shape(self, name: str) -> tuple[int, ...]:
        value = self.graph.initializers[name]
        return () if value.shape is None else tuple(value.shape.numpy())

    def _node(self, path: str) -> ir.Node:
        value = self.graph.initializers[self.origins[f"{path}.weight"].name]
        return next(iter(value.uses())).node
