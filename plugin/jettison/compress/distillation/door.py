"""The one door to torch and Torch-Pruning: asked for before anything that imports them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType

from jettison.core.errors import MissingError
from jettison.core.extras import install_command


def load_torch() -> ModuleType:
    """The torch module. Modules beside this one that import it at their head stand behind this door.

    Raises:
        MissingError: It is not installed, or its native libraries do not load here.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise MissingError(
            "training", detail=f"it needs torch: {error}", fix=f"Run: {install_command('train')}"
        ) from error
    return torch  # type: ignore[no-any-return]


def load_torch_pruning() -> ModuleType:
    """The module of Torch-Pruning, which follows channels through a torch module.

    Raises:
        MissingError: It is not installed, or torch is not.
    """
    load_torch()
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingError(
            "pruning of channels",
            detail=f"it needs torch-pruning: {error}",
            fix=f"Run: {install_command('train')}",
        ) from error
    return torch_pruning  # type: ignore[no-any-return]


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for torch, as before afterwards; 0 leaves them as they are."""
    torch = load_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
