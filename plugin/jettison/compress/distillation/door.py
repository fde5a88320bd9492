"""The one door to torch: asked for before anything that imports it."""

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
