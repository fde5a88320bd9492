"""Begin an experiment: both models checked, the experiment entered, its folder made, the router published.

In that order, and each step finds what an earlier run left: whoever is interrupted begins again with the same
words.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jettison.core.errors import InputError, RepositoryError
from jettison.core.files import sha256_of
from jettison.core.locks import locked
from jettison.experiment.folder import (
    REGISTRY,
    SETTINGS,
    ExperimentFolder,
    Setup,
    Side,
    folders,
    make_folder,
)
from jettison.experiment.registry import Entry, begin
from jettison.experiment.settings import REQUEST, Settings
from jettison.triton.config import ModelConfig
from jettison.triton.manifest import MANIFEST_NAME
from jettison.triton.publish import Published
from jettison.triton.repository import ModelFolder
from jettison.triton.router import (
    BACKEND,
    RouterOptions,
    RouterState,
    publish_router,
    router_config,
    write_state,
)

_NO_PART = ("__pycache__", MANIFEST_NAME)
"""What stands in a version folder and is not served."""


@dataclass(frozen=True)
class Begun:
    """An experiment that runs.

    Args:
        folder: Its folder.
        config: The router's configuration, without its versions.
        version: The router's version that stands before the two models.
        is_resumed: Whether it ran already.
    """

    folder: ExperimentFolder
    config: ModelConfig
    version: int
    is_resumed: bool


def side_of(repository: Path, named: str) -> Side:
    """A version of a published model that is served: the newest by `NAME`, any by `NAME@VERSION`.

    Raises:
        RepositoryError: There is no such model, or it does not serve that version; a file was changed in
            place.
    """
    name, _, version = named.partition("@")
    model = ModelFolder(repository.absolute() / name)
    known = model.listed_versions() if name else []
    if not known:
        raise RepositoryError(
            f"model {named!r}",
            detail=f"there is no published model {name!r} in {repository}",
            fix="Publish it first: jettison publish",
        )
    if version and version not in map(str, known):
        raise RepositoryError(
            f"model {named!r}",
            detail=f"expected a version that is served, {', '.join(map(str, known))}, found {version!r}",
            fix="Name one of them, or leave @VERSION out for the newest",
        )
    number = int(version or known[-1])
    return Side(model=name, version=number, sha256=served_digest(model, number), is_pinned=bool(version))


def served_digest(model: ModelFolder, version: int) -> str:
    """The SHA-256 of what is served: of its one file, or of names and digests of several.

    Raises:
        RepositoryError: A file was changed in place, or there is none.
    """
    folder = model.path / str(version)
    manifest = model.manifest(version)
    if manifest is not None and (changed := manifest.changed_files(folder)):
        raise RepositoryError(
            f"model {model.name!r} version {version}",
            detail=f"{', '.join(changed)} is not what was published",
            fix="Publish it again: a changed file is a new version",
        )
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not {*p.parts} & {*_NO_PART}]
    if not paths:
        raise RepositoryError(
            f"model {model.name!r} version {version}", detail="it is empty", fix="Publish it"
        )
    if len(paths) == 1:
        return sha256_of(paths[0])
    lines = "".join(f"{sha256_of(path)}  {path.relative_to(folder)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def changed_sides(setup: Setup) -> list[str]:
    """What no longer is as it was when the experiment began: counts after that are of another model."""
    found = []
    for side in (setup.baseline, setup.candidate):
        try:
            now = side_of(setup.repository, side.named)
        except RepositoryError as error:
            found.append(str(error))
            continue
        if now.sha256 != side.sha256:
            found.append(f"model {side.model!r} is at version {now.version}, and began at {side.version}")
    return found


def options_of(home: Path, settings: Settings, setup: Setup, given: dict[str, str]) -> RouterOptions:
    """The router's options: what follows from the experiment, and what was given beside.

    Raises:
        ValidationError: A given one is unknown or impossible.
    """
    folder = ExperimentFolder(home.absolute() / settings.name)
    follows = {
        "state_path": folder.state_path,
        "counter_folder": folder.counter_folder,
        "node": setup.node,
        "key_path": setup.key,
        "baseline_version": _asked(setup.baseline),
        "candidate_version": _asked(setup.candidate),
        "task": setup.task,
        "latency_limit_ms": settings.latency.limit_ms if settings.latency else 0.0,
        "unit_max_requests": 1 if settings.unit == REQUEST else None,
    }
    known = {name: value for name, value in follows.items() if value is not None}
    idle = sorted(set(known) & set(given))
    if idle:
        raise InputError(
            "ab start", detail=f"{idle[0]} follows from the experiment", fix="Leave that router option out"
        )
    return RouterOptions.model_validate({**given, **known})


def _asked(side: Side) -> int | None:
    return side.version if side.is_pinned else None


def first_state(settings: Settings, setup: Setup) -> RouterState:
    """What the router does as the experiment begins."""
    weight = setup.ramp[0] if setup.mode == "split" else 0
    return RouterState(mode=setup.mode, weight=weight, experiment=settings.id, salt=setup.salt)


def open_experiment(
    home: Path, settings: Settings, setup: Setup, options: RouterOptions, *, now: str, because: str = ""
) -> Begun:
    """Begin the experiment, or go on beginning one that was interrupted.

    Raises:
        InputError: Another experiment has its name or its router; the registry refuses to repeat one.
        RepositoryError: The two models differ in what clients see, or the router cannot be published.
        OSError: The home is read-only or full.
    """
    sides = [
        ModelFolder(setup.repository / side.model).config() for side in (setup.baseline, setup.candidate)
    ]
    config = router_config(setup.router, *sides, options=options)
    _check_home(home, settings, setup)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home.absolute() / "start"):
        _check_router(home, settings, setup)
        known = _standing(home, settings, setup)
        entry = begin(home.absolute() / REGISTRY, settings, now=now, because=because)
        _check_name(entry, settings)
        folder = known or make_folder(home, settings, setup)
        if not folder.state_path.exists():
            write_state(folder.state_path, first_state(settings, setup))
        version = _published(config, setup.repository) or _publish(config, setup.repository, now).version
    return Begun(folder, config, version, known is not None)


def _check_home(home: Path, settings: Settings, setup: Setup) -> None:
    """The home is outside the repository, where Triton takes every folder for a model."""
    if home.resolve().is_relative_to(setup.repository.resolve()):
        raise InputError(
            f"home {home}",
            detail=f"expected a folder outside the repository {setup.repository}, where it would be a model",
            fix="Give another --home, or set JETTISON_EXPERIMENTS",
        )
    if (home / settings.name).is_file():
        raise InputError(
            f"experiment {settings.name!r}",
            detail="a file in the home has that name",
            fix="Give another name",
        )


def _check_name(entry: Entry, settings: Settings) -> None:
    if entry.name != settings.name:
        raise InputError(
            f"experiment {settings.id}",
            detail=f"it runs already, under the name {entry.name!r}",
            fix=f"Go on with that one: jettison ab status {entry.name}",
        )


def _publish(config: ModelConfig, repository: Path, now: str) -> Published:
    return publish_router(config, repository, created=now)


def _published(config: ModelConfig, repository: Path) -> int | None:
    """The router's newest version, where it is this very router."""
    model = ModelFolder(repository / config.name)
    versions = model.listed_versions()
    if not versions:
        return None
    is_ours = model.config().model_copy(update={"version_policy": config.version_policy}) == config
    return versions[-1] if is_ours else None


def _standing(home: Path, settings: Settings, setup: Setup) -> ExperimentFolder | None:
    """The experiment's folder where it stands already."""
    folder = ExperimentFolder(home.absolute() / settings.name)
    if not (folder.path / SETTINGS).is_file():
        return None
    same = folder.settings().id == settings.id
    before = folder.setup().model_copy(update={"started": setup.started})
    if same and before == setup and folder.act() is None:
        return folder
    found = "it has ended" if folder.act() else "it is another one" if not same else "it is set up otherwise"
    raise InputError(
        f"experiment {settings.name!r}",
        detail=f"expected a new name, found {folder.path}, and {found}",
        fix="Give it another name",
    )


def _check_router(home: Path, settings: Settings, setup: Setup) -> None:
    """The router's name is free, a router, and in no other experiment that runs."""
    model = ModelFolder(setup.repository / setup.router)
    if model.config_path.is_file() and model.config().backend != BACKEND:
        raise RepositoryError(
            f"router {setup.router!r}",
            detail=f"expected a name for a router, found a model of the backend {model.config().backend!r}",
            fix="Give another --router",
        )
    for folder in folders(home):
        if folder.name == settings.name or folder.act() is not None:
            continue
        other = folder.setup()
        if (other.router, other.repository) == (setup.router, setup.repository):
            raise InputError(
                f"router {setup.router!r}",
                detail=f"it stands before the models of experiment {folder.name!r}, which runs",
                fix=f"End that one first: jettison ab rollback {folder.name}",
            )
