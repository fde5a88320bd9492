"""What identifies the weights of a module that a function made, wherever the function has them from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jettison.sources.doors import load_torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def module_digest(module: nn.Module) -> str:
    """SHA-256 in hexadecimal over names, element types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(module), key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Its state dict, and the buffers that no state dict holds."""
    torch = load_torch()
    held: dict[str, Any] = {**dict(module.named_buffers()), **module.state_dict()}
    for name, value in held.items():
        if isinstance(value, torch.Tensor):
            yield name, value


def _bytes(value: Tensor) -> bytes:
    torch = load_torch()
    whole = value.detach().cpu()
    whole = whole if whole.layout == torch.strided else whole.to_dense()
    return bytes(whole.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
