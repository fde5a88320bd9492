"""Versions that a router asks by their number: they are served for as long as it names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jettison.core.errors import RepositoryError
from jettison.triton.config import ModelConfig
from jettison.triton.repository import CONFIG_NAME, ModelFolder

ROUTER = "jettison_router"
NEWEST = -1
"""What a router's configuration says where it asks the newest version that is served."""
SIDES = ("baseline", "candidate")


def pinned_versions(root: Path, model: str) -> set[int]:
    """The versions of a model that routers of the repository ask by their number."""
    return {version for config in _routers(root) for name, version in pins_of(config) if name == model}


def pins_of(router: ModelConfig) -> Iterator[tuple[str, int]]:
    """Name and version of each model that a router asks by the number."""
    values = {key: entry.string_value for key, entry in router.parameters.items()}
    for side in SIDES:
        version = values.get(f"{side}_version", "")
        if version.isdecimal():
            yield values.get(side, ""), int(version)


def _routers(root: Path) -> Iterator[ModelConfig]:
    for path in sorted(root.glob(f"*/{CONFIG_NAME}")):
        if (config := _config(path)) is not None and config.backend == ROUTER:
            yield config


def _config(path: Path) -> ModelConfig | None:
    """The configuration; None where it is broken, of which Triton loads no model, or clearly no router's."""
    try:
        return ModelFolder(path.parent).config() if ROUTER in path.read_text() else None
    except (RepositoryError, OSError, ValueError):
        return None
