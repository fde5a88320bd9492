"""Artifacts and where they come from: who made a file from what, with which settings and versions.

A step whose lineage digest is already on disk is skipped, so a broken run resumes and a changed
setting redoes only what depends on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from jettison._version import __version__
from jettison.core.files import sha256_of, staged_folder, sweep_stages
from jettison.core.tensors import Arrays

_LOG = logging.getLogger(__name__)

LINEAGE_FILE = "lineage.json"
"""Beside each artifact: who made it from what."""
DIGESTS_FILE = "digests.json"
"""Beside each artifact: the SHA-256 of every file of its folder, by its path there."""


_STAGES = f".*-{'?' * 16}.{'?' * 8}"
"""Names of results in the making: of a step, sixteen digits of its lineage, and what `mkdtemp` appends."""


class Lineage(BaseModel):
    """Who made an artifact from what: the step, its settings as JSON, its parents and the versions."""

    model_config = ConfigDict(frozen=True)

    step: str
    settings: str
    parents: tuple[str, ...]
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, in hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def lineage_of(
    step: str, settings: BaseModel | str, *, parents: tuple[str, ...], libraries: tuple[str, ...]
) -> Lineage:
    """The lineage of a step; `libraries` are the distributions whose versions can change the result."""
    text = settings if isinstance(settings, str) else settings.model_dump_json()
    versions = {name: version_of(name) or "absent" for name in sorted(libraries)}
    return Lineage(step=step, settings=text, parents=parents, versions={"jettison": __version__, **versions})


def version_of(library: str) -> str | None:
    """The installed version of a distribution, or of those that bring its module under another name.

    `onnxruntime-gpu` and NVIDIA's own builds of TensorRT are such; None where nothing of the kind is known.
    """
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        bringing = sorted(set(metadata.packages_distributions().get(library.replace("-", "_"), ())))
        return ", ".join(f"{name} {metadata.version(name)}" for name in bringing) or None


class Store:
    """A folder of step results, each in a folder named by its step and lineage digest.

    A result that stands on disk is believed only as it was written: one whose files have changed since is
    made again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[Path] = set()

    def folder_of(self, lineage: Lineage) -> Path:
        """Where the result of that lineage stands or would stand."""
        return self.root / f"{lineage.step}-{lineage.digest[:16]}"

    def sweep(self) -> None:
        """Remove what processes that were killed left half made; what others are making stays."""
        sweep_stages(self.root.glob(_STAGES))

    def forget(self, lineage: Lineage) -> None:
        """Remove the result of that lineage, where there is one."""
        shutil.rmtree(self.folder_of(lineage), ignore_errors=True)
        self._verified.discard(self.folder_of(lineage))

    def once(self, lineage: Lineage, build: Callable[[Path], None]) -> Path:
        """The folder that `build` fills, from disk where the same lineage was built before.

        `build` gets a stage folder, which is renamed into place only if it returns. Where another process
        was faster, its result stands: equal lineages make equal results.
        """
        folder = self.folder_of(lineage)
        if folder.is_dir() and folder not in self._verified and not _is_whole(folder):
            _LOG.warning("%s was damaged on disk: made again", folder)
            shutil.rmtree(folder)
        if not folder.is_dir():
            try:
                with staged_folder(folder) as stage:
                    build(stage)
                    (stage / LINEAGE_FILE).write_text(lineage.model_dump_json(indent=1))
                    (stage / DIGESTS_FILE).write_text(json.dumps(_digests_of(stage), indent=1))
            except OSError:
                if not folder.is_dir():
                    raise
        self._verified.add(folder)
        return folder


def _digests_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS_FILE)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds the files that were written, and no others."""
    try:
        written: object = json.loads((folder / DIGESTS_FILE).read_text())
    except (OSError, ValueError):
        return False
    return written == _digests_of(folder)


def arrays_digest(arrays: Arrays) -> str:
    """One SHA-256 in hexadecimal over names, element types, shapes and values of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
        digest.update(f"{name} {array.dtype} {array.shape} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
