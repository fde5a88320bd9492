"""A Triton model repository on disk: what stands in it, and which version number comes next.

Triton reads version folders by their numeric prefix (`3.tmp` is version 3 and hangs the model) and
takes hidden folders for models, so nothing of ours is ever staged inside the root.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.core.errors import RepositoryError
from jettison.triton.config import ModelConfig, check_name
from jettison.triton.manifest import MANIFEST_NAME, Manifest, Signature, read_manifest, signature_of
from jettison.triton.pbtxt import parse, write

CONFIG_NAME = "config.pbtxt"
_HEADER = "# Written by Jettison. Serves versions {listed}; the highest so far is {highest}.\n"
_HEADER_PATTERN = re.compile(
    r"^# Written by Jettison\. Serves versions ([\d, ]+); the highest so far is (\d+)\.$", re.MULTILINE
)
_DIGEST = "# SHA-256 of this file without this line: {digest}\n"
_DIGEST_PATTERN = re.compile(r"^# SHA-256 of this file without this line: ([0-9a-f]{64})\n", re.MULTILINE)


@dataclass(frozen=True)
class ModelFolder:
    """One model of a repository, as it stands on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The model's name, which Triton wants equal to the folder's."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """Where its config.pbtxt stands."""
        return self.path / CONFIG_NAME

    def versions(self) -> list[int]:
        """The version numbers on disk, lowest first.

        Raises:
            RepositoryError: An entry begins with a digit and is no version: Triton would read it as one.
        """
        if not self.path.is_dir():
            return []
        digits = sorted(entry.name for entry in self.path.iterdir() if entry.name[:1].isdigit())
        strays = [
            name for name in digits if not re.fullmatch(r"[1-9]\d*", name) or not (self.path / name).is_dir()
        ]
        if strays:
            raise RepositoryError(
                f"model folder {self.path}",
                detail=f"{strays[0]!r} is no version folder, but its digits make Triton read it as one",
                fix="Move it out of the model folder",
            )
        return sorted(int(name) for name in digits)

    def highest_version(self) -> int:
        """The highest version that ever was, 0 at first: a retired number is never used again.

        A server's response cache keys on the number, so one used twice would give stale answers.
        """
        remembered = _HEADER_PATTERN.search(self.config_text())
        return max([0, *self.versions(), *([int(remembered.group(2))] if remembered else [])])

    def listed_versions(self) -> list[int]:
        """The versions on disk that the configuration lists: all but what a publish that died left behind."""
        header = _HEADER_PATTERN.search(self.config_text())
        listed = {int(number) for number in header.group(1).split(",")} if header else None
        return [version for version in self.versions() if listed is None or version in listed]

    def foreign_versions(self) -> list[int]:
        """The versions on disk that Jettison did not write: those without a manifest."""
        return [
            version for version in self.versions() if not (self.path / str(version) / MANIFEST_NAME).is_file()
        ]

    def is_edited(self, unmarked: str) -> bool:
        """Whether config.pbtxt is there and is not as Jettison wrote it.

        Args:
            unmarked: What stands in it if an earlier Jettison wrote it, which left no digest.
        """
        text = self.config_text()
        mark = _DIGEST_PATTERN.search(text)
        if mark is None:
            return self.config_path.is_file() and text != unmarked
        return mark.group(1) != _digest(text.replace(mark.group(), "", 1))

    def config_text(self) -> str:
        """The text of config.pbtxt, empty where there is none."""
        return self.config_path.read_text() if self.config_path.is_file() else ""

    def config(self) -> ModelConfig:
        """The configuration on disk.

        Raises:
            RepositoryError: There is none, or it is broken.
        """
        if not self.config_path.is_file():
            raise RepositoryError(
                f"model {self.name!r}",
                detail=f"{self.config_path} does not exist",
                fix="Publish the model again",
            )
        return parse(self.config_text(), source=str(self.config_path))

    def manifest(self, version: int) -> Manifest | None:
        """The manifest of a version, or None where it was not published by Jettison."""
        return read_manifest(self.path / str(version))

    def signature(self) -> Signature | None:
        """What clients see of the published versions, or None where nothing is published."""
        for version in reversed(self.versions()):
            if (manifest := self.manifest(version)) is not None:
                return manifest.signature
        return signature_of(self.config()) if self.config_path.is_file() else None


def headed(config_text: str, versions: Sequence[int], *, highest: int | None = None) -> str:
    """The text under a header that remembers the versions, to be read without protobuf.

    `highest` is the highest that ever was, where that is not among the versions.
    """
    most = max(versions) if highest is None else highest
    return _HEADER.format(listed=", ".join(map(str, versions)), highest=most) + config_text


def configured(config: ModelConfig, versions: Sequence[int], *, highest: int | None = None) -> str:
    """The text of config.pbtxt as Jettison writes it, to serve these versions."""
    return marked(headed(write(config), versions, highest=highest))


def remembering(text: str, *, highest: int) -> str:
    """A configuration as it was, that knows of a higher number which was used in vain.

    One that someone wrote or edited stays without a digest, so that it is still known for that.
    """
    mark, header = _DIGEST_PATTERN.search(text), _HEADER_PATTERN.search(text)
    if header is None:
        return text
    is_ours = mark is not None and mark.group(1) == _digest(text.replace(mark.group(), "", 1))
    bare = text if mark is None else text.replace(mark.group(), "", 1)
    line = _HEADER.format(listed=header.group(1), highest=max(highest, int(header.group(2)))).rstrip("\n")
    changed = bare.replace(header.group(), line, 1)
    return marked(changed) if is_ours else changed


def marked(text: str) -> str:
    """The text under a comment with its digest, by which a later edit is seen."""
    return _DIGEST.format(digest=_digest(text)) + text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_root(root: Path) -> Path:
    """The absolute root, which may not exist yet.

    Raises:
        RepositoryError: It is a file.
    """
    if root.exists() and not root.is_dir():
        raise RepositoryError(
            f"repository {root}",
            detail="expected a folder, found a file",
            fix="Give a folder, or a path to create",
        )
    return root.absolute()


def model_folder(root: Path, name: str) -> ModelFolder:
    """The folder of that model, which may not exist yet.

    Raises:
        RepositoryError: The root is a file, or the name cannot be a folder.
    """
    return ModelFolder(check_root(root) / check_name(name))


def model_folders(root: Path) -> list[ModelFolder]:
    """All models of the repository, by name.

    Raises:
        RepositoryError: There is no such folder.
    """
    folder = check_root(root)
    if not folder.is_dir():
        raise RepositoryError(
            f"repository {root}",
            detail="there is no such folder",
            fix="Publish a model into it: jettison publish",
        )
    return [ModelFolder(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
