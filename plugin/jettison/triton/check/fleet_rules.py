"""G and S: whether the machines that serve it can, and who can change it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from jettison.triton.check.finding import Objection
from jettison.triton.check.look import Look, ModelLook
from jettison.triton.repository import CONFIG_NAME

CVE_FLOOR = (25, 7)
"""The first image of Triton in which the known holes of severity 9.8 are closed (25.07)."""
_TAG = re.compile(r"(?:^|:)(\d\d)\.(\d\d)(?:-|$)")
_CODE = frozenset({".py", ".pyc", ".so"})
_CODE_BACKENDS = frozenset({"python", "pytorch", ""})
"""Backends whose models are code, and those that are not known."""
MIB = 1 << 20


def memory(look: Look) -> Iterator[Objection]:
    """Targets that cannot hold the old and the new version at once."""
    largest = {model.name: _largest_bytes(model) for model in look.models}
    needed = sum(largest.values()) + max(largest.values(), default=0)
    for target in look.fleet.targets:
        if target.memory_mib is not None and needed > target.memory_mib * MIB:
            text = (
                f"expected memory for all models and one of them twice, {needed / MIB:.0f} MiB of files "
                f"alone, found {target.memory_mib} MiB"
            )
            yield Objection(f"fleet target {target.name}", text)


def old_images(look: Look) -> Iterator[Objection]:
    """Images with known holes."""
    tags = {f"fleet target {target.name}": target.image for target in look.fleet.targets if target.image}
    tags |= {f"image {tag}": tag for tag in look.images}
    for where, tag in tags.items():
        found = _TAG.search(tag)
        if found is None:
            yield Objection(where, f"expected a tag such as 25.08-py3, found {tag!r}")
        elif (int(found.group(1)), int(found.group(2))) < CVE_FLOOR:
            floor = ".".join(f"{part:02d}" for part in CVE_FLOOR)
            yield Objection(where, f"expected {floor} or newer, found {found.group(1)}.{found.group(2)}")


def writable(look: Look) -> Iterator[Objection]:
    """What every user of the machine can change: who can write here, runs code in the server."""
    for path in (look.root, *(model.path for model in look.models), *_config_files(look)):
        if path.stat().st_mode & stat.S_IWOTH:
            where = "." if path == look.root else str(path.relative_to(look.root))
            yield Objection(where, "expected no right to write for all users, found it")


def code(look: Look) -> Iterator[Objection]:
    """Programs where a model's backend runs none."""
    for model in look.models:
        if model.config is None or model.backend in _CODE_BACKENDS:
            continue
        for version in model.versions:
            for path in sorted((model.path / str(version)).rglob("*")):
                if path.suffix in _CODE and path.is_file():
                    where = str(path.relative_to(look.root))
                    yield Objection(
                        where, f"expected no programs beside a model of {model.backend!r}, found one"
                    )


def _largest_bytes(model: ModelLook) -> int:
    """Bytes of the largest served version."""
    sizes = [_bytes(model.path / str(version)) for version in model.served]
    return max(sizes, default=0)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _config_files(look: Look) -> Iterator[Path]:
    for model in look.models:
        if (model.path / CONFIG_NAME).is_file():
            yield model.path / CONFIG_NAME
