"""A torch module whose inner layers are looked at as it runs: the same values as `graph_taps`, by hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from jettison.compress.distillation.graph_taps import Tap, unknown_layer
from jettison.compress.passes import BoundModule
from jettison.core.errors import ModelError
from jettison.core.tensors import Arrays

_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
_CHANNELS_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)
"""Modules whose values of three axes are (batch, channels, places); others give (batch, places, channels)."""
_TOKENS_RANK = 3


class WatchedModule(nn.Module):  # type: ignore[misc]
    """A module called with its inputs in order; gives outputs by name, and by their name the taps.

    Args:
        bound: The module and how it takes its inputs.
        outputs: What its outputs are called, in order, unless it names them itself.
        taps: Names of submodules.
    """

    def __init__(self, bound: BoundModule, outputs: Sequence[str], taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.inner: nn.Module = bound.module
        self._bound, self._outputs = bound, tuple(outputs)
        self._caught: dict[str, Tensor] = {}
        self._hooks = [
            self.inner.get_submodule(name).register_forward_hook(self._catching(name)) for name in taps
        ]

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Outputs and taps by name."""
        self._caught.clear()
        args, kwargs = self._bound.arguments(inputs)
        found = leaves_of(self.inner(*args, **kwargs), self._outputs, self._bound.what)
        return {**found, **self._caught}

    def release(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def _catching(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._caught[name] = output

        return hook


def leaves_of(found: Any, names: Sequence[str], what: str) -> dict[str, Tensor]:
    """The tensors in what a module returned, by these names: by its own keys where they are the same.

    Raises:
        ModelError: It returned another number of tensors, or something else.
    """
    pairs = [(path, leaf) for path, leaf in _pytree.tree_flatten_with_path(found)[0] if leaf is not None]
    if len(pairs) != len(names) or not all(isinstance(leaf, Tensor) for _, leaf in pairs):
        kinds = ", ".join(type(leaf).__name__ for _, leaf in pairs)
        raise ModelError(
            what,
            detail=f"expected {len(names)} tensors from its forward, for {', '.join(names)}, found {kinds}",
            fix="Return a tensor for each of these outputs, in this order, or a dict by name",
        )
    keys = [str(getattr(path[-1], "key", "")) if path else "" for path, _ in pairs]
    chosen = keys if set(keys) == set(names) else names
    return dict(zip(chosen, (leaf for _, leaf in pairs), strict=True))


def module_taps(bound: BoundModule, example: Arrays) -> list[Tap]:
    """What its layers give on these samples, in the order in which they run; without the last layer.

    Behind a layer's normalization and activation, where these are submodules that run once.
    """
    ran = _ran(bound, example)
    layers = [index for index, (_, module, _) in enumerate(ran) if isinstance(module, _LAYERS)]
    return [_tap(ran, index) for index in layers[:-1] if ran[index][2].ndim > 1]


def named_module_tap(bound: BoundModule, name: str, example: Arrays) -> Tap:
    """The submodule of that name.

    Raises:
        ModelError: There is none, or it does not run on the samples.
    """
    ran = _ran(bound, example, leaves=False)
    found = next((entry for entry in ran if entry[0] == name), None)
    if found is None:
        raise unknown_layer(bound.what, name, [entry[0] for entry in ran])
    return Tap(name, found[2].ndim, _axis(found[1], found[2]))


_Ran = list[tuple[str, nn.Module, Tensor]]


def _ran(bound: BoundModule, example: Arrays, *, leaves: bool = True) -> _Ran:
    """Submodules that gave a tensor, with it, in the order in which they were done; each at its last run."""
    found: _Ran = []
    names = {module: name for name, module in bound.module.named_modules() if name}
    chosen = [module for module in names if not leaves or not any(module.children())]

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found.append((names[module], module, output))

    hooks = [module.register_forward_hook(hook) for module in chosen]
    try:
        answer(bound, example)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def answer(bound: BoundModule, arrays: Arrays) -> Any:
    """What the module returns for these arrays, in evaluation mode and without gradients."""
    was_training = bound.module.training
    bound.module.eval()
    device = next((value.device for value in bound.module.parameters()), torch.device("cpu"))
    inputs = [torch.from_numpy(arrays[name].copy()).to(device) for name in bound.inputs]
    args, kwargs = bound.arguments(inputs)
    with torch.no_grad():
        found = bound.module(*args, **kwargs)
    bound.module.train(was_training)
    return found


def _tap(ran: _Ran, index: int) -> Tap:
    """The layer of that number, or what follows it at once: its normalization, its activation."""
    names = [name for name, _, _ in ran]
    end = index
    while end + 1 < len(ran) and end < index + 2 and _follows(ran, end, names):
        end += 1
    name, _, output = ran[end]
    return Tap(name, output.ndim, _axis(ran[index][1], output))


def _follows(ran: _Ran, index: int, names: Sequence[str]) -> bool:
    name, module, output = ran[index + 1]
    is_other = isinstance(module, (*_LAYERS, nn.Dropout, nn.Flatten, nn.Identity))
    return names.count(name) == 1 and not is_other and output.shape == ran[index][2].shape


def _axis(module: nn.Module, output: Tensor) -> int:
    is_rows = output.ndim == _TOKENS_RANK and not isinstance(module, _CHANNELS_FIRST)
    return output.ndim - 1 if is_rows else 1
