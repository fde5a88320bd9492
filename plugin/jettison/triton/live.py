"""Publish to a running server, and roll back: nothing is believed but what the server shows.

A version is published beside the old ones, which stay servable; loaded over them, which is hitless; and
proven by index, readiness, configuration and golden answers. Only then older versions go. What is not
proven is taken back, so that the server goes on with what it had.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jettison.core.errors import ExternalError, JettisonError, RepositoryError
from jettison.core.files import append_lines, fsync_folder
from jettison.core.validation import nearest
from jettison.triton.config import ModelConfig
from jettison.triton.golden import served_differences
from jettison.triton.loading import listed as named
from jettison.triton.loading import load, load_exactly, meet, unload
from jettison.triton.publish import (
    Published,
    Release,
    changing,
    explained,
    kept_versions,
    listing,
    publish,
    put_config,
    set_aside,
)
from jettison.triton.repository import ModelFolder, configured, model_folder, model_folders, remembering

JOURNAL = "journal"
_FAILED = "failed"


@dataclass(frozen=True)
class Live:
    """A server that serves the repository.

    Args:
        url: Host and port of its HTTP service.
        deadline_s: Until a version must be loaded and proven.
    """

    url: str
    deadline_s: float


@dataclass(frozen=True)
class RolledBack:
    """Which version is served again, and which one no longer.

    `proven_by` is what a server showed of it; empty where none was asked, or it loads nothing over its API.
    """

    model: str
    version: int
    before: tuple[int, ...]
    proven_by: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


SHOWN = ("index", "readiness", "configuration")
"""What proves a loaded version without its manifest."""
GOLDEN = "golden answers"
NOT_EXPLICIT = (
    "the server runs in mode none, which loads nothing over its API: restart it to serve {} "
    "(jettison serve --explicit starts one that loads)"
)


def publish_live(release: Release, root: Path, live: Live, *, keep_versions: int = 2) -> Published:
    """Publish the next version, load it over the old one, prove it, and only then retire older ones.

    Raises:
        RepositoryError: As `publish`.
        InputError: The address is none.
        ExternalError: The server is not there or reads another repository: then nothing is done. Or it does
            not serve the new version as it should: the old one is listed again and loaded; a new model is
            taken out, and kept beside the repository.
    """
    meet(live.url, root, release.config.name)
    folder = model_folder(root, release.config.name)
    before = folder.config_text()
    done = publish(release, root, keep_versions=len(folder.listed_versions()) + keep_versions)
    try:
        record(root, done.model, "published", done.version, release.created)
        proofs = prove(folder, done.version, live)
    except JettisonError as error:
        kept = _take_back(folder, before, done)
        record(root, done.model, "FAILED", done.version, release.created, detail=error.detail)
        raise _reloaded(folder, before, done, live, error, kept) from error
    if not proofs:
        note = NOT_EXPLICIT.format(f"version {done.version}")
        return replace(done, notes=(*done.notes, note))
    record(root, done.model, "proven", done.version, release.created)
    return replace(done, retired=retire(folder, keep_versions, live), proven_by=proofs)


def prove(folder: ModelFolder, version: int, live: Live) -> tuple[str, ...]:
    """Load what the configuration lists, and prove that version; by what, or nothing where it loads none.

    Raises:
        ExternalError: It is not served by the deadline, or answers otherwise than when it was published.
    """
    config = folder.config()
    if not load(live.url, config, version=version, deadline_s=live.deadline_s):
        return ()
    manifest = folder.manifest(version)
    golden = None if manifest is None else manifest.golden
    if golden is None:
        return SHOWN
    if problems := served_differences(live.url, config.name, version, golden):
        raise ExternalError(
            f"model {config.name!r} version {version} at {live.url}",
            detail=f"its golden answers are others than when it was published: {'; '.join(problems)}",
            fix="Compare the server's ONNX Runtime with this machine's, and the files with their manifest",
        )
    return (*SHOWN, GOLDEN)


def retire(folder: ModelFolder, keep_versions: int, live: Live) -> tuple[int, ...]:
    """Serve only the newest versions, and then remove the folders of older ones that Jettison wrote.

    Raises:
        ExternalError: The server does not take the shorter list; then nothing is removed.
    """
    listed = folder.listed_versions()
    kept = kept_versions(folder, listed, keep_versions)
    if kept == listed:
        return ()
    root = folder.path.parent
    with changing(root) as stage:
        put_config(folder, _listing_only(folder, kept), stage)
        load_exactly(live.url, folder.name, kept, deadline_s=live.deadline_s)
        gone = set_aside(folder, kept, stage)
        fsync_folder(folder.path)
    return gone


def roll_back(
    root: Path, name: str, *, now: str, to: int | None = None, live: Live | None = None
) -> RolledBack:
    """Serve an older version again, and no newer one; folders stay as they are.

    Args:
        root: The repository.
        name: The model.
        now: The time in ISO 8601, for the journal.
        to: The version; the one before the newest that is served if None.
        live: The server that serves the repository; without one it has to be restarted.

    Raises:
        RepositoryError: There is no such version, or none to roll back to.
        ExternalError: The server does not serve it as it should; the list of versions is as before.
    """
    folder = model_folder(root, name)
    listed = folder.listed_versions()
    version = _older(folder, listed, to)
    if live is not None:
        meet(live.url, root, name)
    with changing(root) as stage:
        before = folder.config_text()
        _touch(folder.path / str(version))  # first: a server that reads the new list must see new times
        put_config(folder, _listing_only(folder, [version]), stage)
    record(root, name, "rolled back", version, now)
    if live is None:
        note = f"restart the server, or give its --url, to serve version {version}"
        return RolledBack(name, version, tuple(listed), notes=(note,))
    try:
        proofs = prove(folder, version, live)
    except JettisonError as error:
        with changing(root) as stage:
            put_config(folder, before, stage)
        record(root, name, "FAILED", version, now, detail=error.detail)
        load(live.url, folder.config(), version=listed[-1], deadline_s=live.deadline_s)
        raise
    notes = () if proofs else (NOT_EXPLICIT.format(f"version {version}"),)
    return RolledBack(name, version, tuple(listed), proven_by=proofs, notes=notes)


def record(root: Path, model: str, event: str, version: int, now: str, *, detail: str = "") -> None:
    """Add a line to the model's journal, beside the repository: one JSON document each, durable when back."""
    path = beside(root, JOURNAL) / f"{model}.jsonl"
    line = {"time": now, "model": model, "version": version, "event": event}
    if detail:
        line["detail"] = detail
    with explained(root):
        path.parent.mkdir(exist_ok=True)
        append_lines(path, json.dumps(line) + "\n")


def beside(root: Path, what: str) -> Path:
    """A folder of ours beside the repository: inside, it would be a model to Triton."""
    return root.absolute().parent / f".{root.absolute().name}.{what}"


def _older(folder: ModelFolder, listed: Sequence[int], to: int | None) -> int:
    on_disk = folder.versions()
    if not folder.path.is_dir():
        names = sorted(other.name for other in model_folders(folder.path.parent))
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"expected a model of {folder.path.parent}, found no such one: it has {named(names)}",
            fix=nearest(folder.name, names) if names else "Correct --repository, or publish the model first",
        )
    older = [version for version in on_disk if listed and version < listed[-1]]
    version = to if to is not None else (older[-1] if older else None)
    if version is None and listed:
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"expected an older version to roll back to, found none: version {listed[-1]}, which is "
            f"served, is the oldest of {on_disk}",
            fix="Give a newer one with --to, or publish the older model again",
        )
    if version is None or version not in on_disk:
        wanted = "an older version" if version is None else f"version {version}"
        raise RepositoryError(
            f"model {folder.name!r}",
            detail=f"expected {wanted} to roll back to, found versions {on_disk or 'none'}",
            fix="Give one of these with --to, or publish the older model again",
        )
    return version


def _listing_only(folder: ModelFolder, versions: Sequence[int]) -> str:
    """The text of config.pbtxt that lists these versions."""
    config: ModelConfig = listing(folder.config(), list(versions))
    return configured(config, versions, highest=folder.highest_version())


def _touch(version: Path) -> None:
    """Give the files new times: Triton loads a version again only where the newest of them has grown."""
    for path in version.iterdir():
        if path.is_file():
            os.utime(path)
    fsync_folder(version)


def _served_again(folder: ModelFolder, live: Live) -> str:
    """Load what was listed before; a server that fails twice must not hide why it failed first."""
    last = folder.listed_versions()[-1]
    try:
        load(live.url, folder.config(), version=last, deadline_s=live.deadline_s)
    except ExternalError as error:
        return f"version {last} is listed as before, and the server does not show it: {error.detail}"
    return f"version {last} is served as before"


def _take_back(folder: ModelFolder, before: str, done: Published) -> Path:
    """Put back on disk what was served before; where the failed version is kept, beside the repository."""
    root = folder.path.parent
    kept = beside(root, _FAILED) / f"{done.model}-{done.version}"
    with changing(root) as stage:
        if before:
            put_config(folder, remembering(before, highest=done.version), stage)
        kept.parent.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        (folder.path / str(done.version) if before else folder.path).rename(kept)
        fsync_folder(folder.path if before else root)
    return kept


def _reloaded(
    folder: ModelFolder, before: str, done: Published, live: Live, error: JettisonError, kept: Path
) -> ExternalError:
    """Let the server load what was served before; the error that tells all of it."""
    restored = "the new model was taken out again"
    if not before:
        unload(live.url, done.model)
    if before and folder.listed_versions():
        restored = _served_again(folder, live)
    return ExternalError(
        f"publishing {done.model} version {done.version} to {live.url}",
        detail=f"{error.detail}; {restored}",
        fix=f"Look at the server's log; the version is kept in {kept}",
    )
