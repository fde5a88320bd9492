"""Publish a model into a repository, so that a death at any instruction leaves the old version servable.

A version is staged beside the root on the same file system, made durable, and renamed to a number that
was never used. `config.pbtxt` is replaced last, and lists its versions one by one: a version folder
that it does not name is not there for Triton. A new model is renamed as a whole, config and all.
Publishers of one root wait for each other, where its file system knows locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jettison._version import __version__
from jettison.core.artifacts import Lineage
from jettison.core.engine import EngineRecord
from jettison.core.errors import RepositoryError
from jettison.core.files import fsync_folder, fsync_tree, write_bytes
from jettison.core.signing import Signer
from jettison.triton.config import ModelConfig, Specific, VersionPolicy, check_name
from jettison.triton.manifest import MANIFEST_NAME, Evidence, Golden, Manifest, record_of, signature_of
from jettison.triton.pbtxt import read_message, write
from jettison.triton.pins import pinned_versions
from jettison.triton.repository import CONFIG_NAME, ModelFolder, configured, headed, model_folder
from jettison.triton.seal import config_digest, is_sealed, seal

_BEFORE = ".before-"
"""Between config.pbtxt and the version whose publish replaced it; Triton reads no file of such a name."""

_WHY = {
    errno.ENOSPC: ("the disk is full", "Free some space, or publish elsewhere"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or publish elsewhere"),
    errno.EROFS: ("the file system is read-only", "Mount it writable, or publish elsewhere"),
    errno.EACCES: ("permission denied", "Give this user the right to write there"),
    errno.EPERM: ("the operation is not permitted", "Give this user the right to write there"),
    errno.ENOTDIR: ("a part of the path is a file", "Give a folder"),
    errno.ENOTEMPTY: ("another publish took the same version", "Run it again"),
    errno.EEXIST: ("another publish took the same version", "Run it again"),
    errno.EXDEV: (
        "the repository and the folder beside it are on different file systems",
        "Use a folder below it",
    ),
}


@dataclass(frozen=True)
class Release:
    """What is to be published: files by their name in the version folder, and what is known of them.

    A model with external data names all its files. `created` is the time in ISO 8601. `signer` signs the
    version, where there is one. `engines` are the records of plans among the files.
    """

    config: ModelConfig
    files: Mapping[str, Path]
    created: str
    lineage: Lineage | None = None
    golden: Golden | None = None
    evidence: Evidence | None = None
    signer: Signer | None = None
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """Where the new version stands, which older ones were deleted, and what whoever publishes must know.

    `proven_by` is what a server showed of it; empty where none was asked, or none loads over its API.
    """

    model: str
    version: int
    path: Path
    retired: tuple[int, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    proven_by: tuple[str, ...] = field(default=())


def publish(release: Release, root: Path, *, keep_versions: int = 2) -> Published:
    """Publish the next version of the model and delete all but the newest `keep_versions`.

    Versions that Jettison did not write stay on disk, and so does a copy of an edited config.pbtxt.

    Raises:
        RepositoryError: The root is a file, read-only or full; a file is missing or badly named; the
            inputs or outputs differ from those of the published versions.
    """
    folder = model_folder(root, release.config.name)
    _check(release, folder, keep_versions)
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
    with changing(root) as stage:
        _check_signature(release.config, folder)
        version = folder.highest_version() + 1
        kept = kept_versions(folder, [*folder.listed_versions(), version], keep_versions)
        config = listing(release.config, kept)
        manifest = _fill(stage / folder.name / str(version), release, version)
        (stage / folder.name / CONFIG_NAME).write_text(configured(config, kept))
        notes = (
            *_foreign_note(folder),
            *_save_edited(stage / folder.name, folder, release.config, version),
            *_twin_note(folder, manifest),
            *_unsigned_note(folder, release),
        )
        _move_in(stage / folder.name, folder, manifest.version)
        retired, left = _retired(folder, kept, stage)
    return Published(folder.name, version, folder.path / str(version), retired, (*notes, *left))


def _check(release: Release, folder: ModelFolder, keep_versions: int) -> None:
    if keep_versions < 1:
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"expected to keep 1 version or more, found {keep_versions}",
            fix="Set keep_versions to 1 or more",
        )
    for name, path in release.files.items():
        check_name(name, what="file name")
        if not path.is_file():
            raise RepositoryError(f"file {path}", detail="there is no such file", fix="Build the model first")
    wanted = {release.config.default_model_filename, *release.config.cc_model_filenames.values()} - {""}
    if MANIFEST_NAME in release.files or not release.files or wanted - set(release.files):
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"the configuration names {sorted(wanted)}, found files {sorted(release.files)}",
            fix=f"Give every file that the configuration names, and none called {MANIFEST_NAME}",
        )


def _check_signature(config: ModelConfig, folder: ModelFolder) -> None:
    published, new = folder.signature(), signature_of(config)
    if published is not None and published != new:
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"its published versions have {', '.join(sorted(set(published) - set(new))) or 'less'}, "
            f"the new one has {', '.join(sorted(set(new) - set(published))) or 'less'}",
            fix="Publish it under another name: clients of one name rely on one signature",
        )


def kept_versions(folder: ModelFolder, listed: list[int], keep_versions: int) -> list[int]:
    """Of the versions that are served those that go on: the newest, and what a router asks by its number."""
    pinned = pinned_versions(folder.path.parent, folder.name)
    return [version for version in listed if version in {*listed[-keep_versions:], *pinned}]


def listing(config: ModelConfig, versions: list[int]) -> ModelConfig:
    """The configuration with exactly these versions to serve."""
    policy = VersionPolicy(specific=Specific(versions=tuple(versions)))
    return config.model_copy(update={"version_policy": policy})


def _fill(folder: Path, release: Release, version: int) -> Manifest:
    folder.mkdir(parents=True)
    for name, source in release.files.items():
        shutil.copyfile(source, folder / name)
    manifest = Manifest(
        model=release.config.name,
        version=version,
        created=release.created,
        jettison=__version__,
        signature=signature_of(release.config),
        files=tuple(record_of(folder / name) for name in sorted(release.files)),
        lineage=release.lineage,
        golden=release.golden,
        evidence=release.evidence,
        config_sha256=None
        if release.signer is None
        else config_digest(read_message(write(release.config), "config")),
        engines=dict(release.engines) or None,
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
    if release.signer is not None:
        seal(folder, release.signer)
    return manifest


def _foreign_note(folder: ModelFolder) -> Iterator[str]:
    *others, last = ["", *map(str, folder.foreign_versions())]
    if len(others) > 1:
        yield f"versions {', '.join(others[1:])} and {last} were not written by Jettison: kept"
    elif last:
        yield f"version {last} was not written by Jettison: kept"


def _save_edited(staged: Path, folder: ModelFolder, config: ModelConfig, version: int) -> Iterator[str]:
    """Stage a copy of a configuration that someone wrote or edited, and tell where it will stand."""
    listed = folder.listed_versions()
    if folder.is_edited(headed(write(listing(config, listed)), listed) if listed else ""):
        name = f"{CONFIG_NAME}{_BEFORE}{version}"
        shutil.copyfile(folder.config_path, staged / name)
        yield f"{CONFIG_NAME} differed from what Jettison writes; the old one is in {folder.path / name}"


def _twin_note(folder: ModelFolder, manifest: Manifest) -> Iterator[str]:
    for version in reversed(folder.versions()):
        with contextlib.suppress(RepositoryError):  # a torn manifest of an old version is no reason to stop
            older = folder.manifest(version)
            if older is not None and older.files == manifest.files:
                yield f"version {manifest.version} holds the same files as version {version}"
                return


def _unsigned_note(folder: ModelFolder, release: Release) -> Iterator[str]:
    signed = [version for version in folder.versions() if is_sealed(folder.path / str(version))]
    if signed and release.signer is None:
        yield f"version {signed[-1]} is signed, and this one is not: publish it with --sign KEY"


def _move_in(staged: Path, folder: ModelFolder, version: int) -> None:
    fsync_tree(staged)
    if not folder.path.exists():
        staged.rename(folder.path)
        fsync_folder(folder.path.parent)
        return
    target = folder.path / str(version)
    (staged / str(version)).rename(target)
    for backup in staged.glob(f"{CONFIG_NAME}{_BEFORE}*"):
        backup.rename(folder.path / backup.name)
    fsync_folder(folder.path)
    # Staged elsewhere, since a stray file in the model folder makes Triton reload all versions.
    (staged / CONFIG_NAME).rename(folder.config_path)
    fsync_folder(folder.path)


def _retired(
    folder: ModelFolder, kept: Sequence[int], stage: Path
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The versions that went; a note where they would not: the new one is published all the same."""
    try:
        return set_aside(folder, kept, stage), ()
    except OSError as error:
        why = f"{error.strerror} ({error.filename})"
        return (), (f"older versions could not be removed: {why}; the next publish removes them",)


def put_config(folder: ModelFolder, text: str, stage: Path) -> None:
    """Replace config.pbtxt as a whole, from the stage: a torn publish leaves no stray in the model folder.

    Triton takes any stray there for a change of all versions, and loads them all again.
    """
    write_bytes(stage / CONFIG_NAME, text.encode())
    (stage / CONFIG_NAME).rename(folder.config_path)
    fsync_folder(folder.path)


def set_aside(folder: ModelFolder, kept: Sequence[int], stage: Path) -> tuple[int, ...]:
    """Move the versions that Jettison wrote and that are not kept into the stage, which goes with them."""
    stays = {*kept, *folder.foreign_versions()}
    retired = tuple(version for version in folder.versions() if version not in stays)
    for version in retired:
        (folder.path / str(version)).rename(stage / f"retired-{version}")
    return retired


@contextlib.contextmanager
def changing(root: Path) -> Iterator[Path]:
    """Alone with the repository, with a stage beside it; what the file system refuses is told in words.

    Raises:
        RepositoryError: Such as that the disk is full, or read-only.
    """
    with explained(root), _alone(root) as is_alone, _staging(root, alone=is_alone) as stage:
        yield stage


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Alone among publishers, so that none retires what another lists; the lock ends with the process.

    False where the file system, such as a network's, does not lock a folder.
    """
    handle, is_alone = os.open(root, os.O_RDONLY), False
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
            is_alone = True
        yield is_alone
    finally:
        os.close(handle)


@contextlib.contextmanager
def _staging(root: Path, *, alone: bool) -> Iterator[Path]:
    """A folder beside the root; what killed publishers left there goes, where no other is at work."""
    parent = root.absolute().parent / f".{root.absolute().name}.staging"
    parent.mkdir(exist_ok=True)
    if os.stat(parent).st_dev != os.stat(root).st_dev:  # noqa: PTH116 (st_dev of both, side by side)
        parent.rmdir()
        raise OSError(errno.EXDEV, "different file systems")
    for left in parent.iterdir() if alone else ():
        shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns what the file system refuses into an error that names the repository and what to do.

    Raises:
        RepositoryError: Such as that the disk is full, or read-only.
    """
    try:
        yield
    except OSError as error:
        why, fix = _WHY.get(error.errno or 0, (str(error), "Look at that path"))
        where = f" ({error.filename})" if error.filename else ""
        raise RepositoryError(f"repository {root}", detail=f"{why}{where}", fix=fix) from error
