"""Where each model of a run comes from, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.core.artifacts import Lineage
from jettison.report.run_file import Run, read_lineage

_LONGEST_SETTINGS = 2000


@dataclass(frozen=True)
class Made:
    """One model: its target and name, its digest, and who made it from what."""

    target: str
    name: str
    sha256: str | None
    lineage: Lineage | None

    @property
    def settings(self) -> str:
        """The settings of its step, cut where they are long."""
        text = "" if self.lineage is None else self.lineage.settings
        return (
            text if len(text) <= _LONGEST_SETTINGS else f"{text[:_LONGEST_SETTINGS]} [{len(text)} characters]"
        )


@dataclass(frozen=True)
class Reproduction:
    """All models, the versions that made them, and what to type."""

    made: tuple[Made, ...]
    versions: dict[str, str]
    install: str
    command: str
    publish: str
    at: str
    machine: str


def reproduction_of(run: Run, folder: Path) -> Reproduction:
    """What the lineage files in the run's folder tell, wherever it was moved to."""
    made = tuple(
        Made(target.target, one.name, one.sha256, _lineage(folder, target.target, one.name))
        for target in run.all_targets
        for one in target.everyone
    )
    versions = _versions(made)
    origin = run.origin
    return Reproduction(
        made,
        versions,
        _install(versions),
        shlex.join(origin.command) if origin is not None else "",
        shlex.join(
            ("jettison", "publish", str(folder), "--repository", "model_repository", "--name", run.model)
        ),
        "" if origin is None else origin.at,
        "" if origin is None else origin.machine,
    )


def _lineage(folder: Path, target: str, name: str) -> Lineage | None:
    """Of the model in its folder; of none whose name would lead elsewhere."""
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part for part in (target, name)):
        return None
    return read_lineage(folder / target / name)


def _versions(made: Sequence[Made]) -> dict[str, str]:
    """Versions by library; where models were made by different ones, all of them."""
    found: dict[str, set[str]] = {}
    for one in made:
        for library, version in (one.lineage.versions if one.lineage is not None else {}).items():
            found.setdefault(library, set()).add(version)
    return {library: ", ".join(sorted(versions)) for library, versions in sorted(found.items())}


def _install(versions: dict[str, str]) -> str:
    """The command that installs these very versions; those that differ or were absent are left out."""
    pinned = [f"{name}=={version}" for name, version in versions.items() if _is_one(version)]
    return shlex.join(["pip", "install", *pinned]) if pinned else ""


def _is_one(version: str) -> bool:
    return version[:1].isdigit() and "," not in version
