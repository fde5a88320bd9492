"""An experiment on disk: one folder that all `ab` verbs, the router and the verdict service share.

    <home>/registry.json             every experiment that began in this home
    <home>/<name>/settings.yaml      what is asked; its digest is the experiment's id
    <home>/<name>/setup.json         which models, router and repository, and how traffic was shared at first
    <home>/<name>/state.json         what the router does now
    <home>/<name>/counters/          <id>.<node>.json of each node and of its labels; more by the router
    <home>/<name>/labels.jsonl       labels that were taken, and units that are judged by them
    <home>/<name>/history.jsonl      what was seen when someone looked
    <home>/<name>/verdict.json       the verdict that ended it, as `ab audit` reads it
    <home>/<name>/ending.json        what was done then, by whom and why

Settings and setup are written once, with the folder. All else is replaced as a whole, or only appended to.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jettison.core.errors import InputError
from jettison.core.files import read_bounded, staged_folder, write_bytes
from jettison.core.validation import problem_of
from jettison.experiment.counter_file import read_all
from jettison.experiment.counters import CounterSet
from jettison.experiment.registry import Ending
from jettison.experiment.settings import Settings
from jettison.experiment.settings_file import load_settings
from jettison.experiment.tally import BUCKETS
from jettison.experiment.verdict import Verdict
from jettison.experiment.verdict_file import read_verdict, write_verdict
from jettison.triton.router import Node

REGISTRY = "registry.json"
SETTINGS = "settings.yaml"
LARGEST_BYTES = 1 << 20
"""Of setup and ending, which have some hundred."""

Weight = Annotated[int, Field(gt=0, lt=BUCKETS)]


class Side(BaseModel):
    """One of the two models as it was served when the experiment began.

    Args:
        model: Its name.
        version: Its version.
        sha256: Of what is served.
        is_pinned: Whether the router asks this version; else the newest, whichever that is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    sha256: str
    is_pinned: bool = False

    @property
    def named(self) -> str:
        """What finds the same again in the repository: the newest version, or the pinned one."""
        return f"{self.model}@{self.version}" if self.is_pinned else self.model


class Setup(BaseModel):
    """What an experiment was begun with, beside its settings.

    Args:
        router: The model that clients call.
        repository: Where the three models are published.
        baseline: The model that serves.
        candidate: The model that is tried.
        mode: How the candidate gets its requests.
        ramp: The weights of mode `split`, in buckets of 10,000, in their order; the first is where it begins.
        ramp_units: So many units at one weight, and the next may follow.
        task: What agreement of two answers means.
        node: Under which name the router of this home counts, or the variable that holds it where it runs.
        key: The file of the key by which all counters are signed; None where nobody signs.
        salt: What is hashed with a unit's key.
        started: When, in ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["jettison-experiment/1"] = "jettison-experiment/1"
    router: str
    repository: Path
    baseline: Side
    candidate: Side
    mode: Literal["shadow", "split"]
    ramp: tuple[Weight, ...] = ()
    ramp_units: int = Field(default=1000, gt=0)
    task: str
    node: Node
    key: Path | None = None
    salt: str
    started: str


class Act(BaseModel):
    """What ended an experiment.

    Args:
        act: Whether the candidate was promoted or taken out.
        ending: As the registry has it.
        decision: What the verdict said.
        at: When, in ISO 8601.
        because: Why, where it is not what the verdict says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    act: Literal["promote", "rollback"]
    ending: Ending
    decision: str
    at: str
    because: str = ""


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder of one experiment."""

    path: Path

    @property
    def name(self) -> str:
        """What people call the experiment."""
        return self.path.name

    @property
    def registry_path(self) -> Path:
        """Where all experiments of its home are entered."""
        return self.path.parent / REGISTRY

    @property
    def state_path(self) -> Path:
        """The router's state."""
        return self.path / "state.json"

    @property
    def counter_folder(self) -> Path:
        """The router's counters and disagreements, and counters that were brought from other nodes."""
        return self.path / "counters"

    @property
    def labels_path(self) -> Path:
        """Labels that were taken, and what they judged."""
        return self.path / "labels.jsonl"

    @property
    def history_path(self) -> Path:
        """Snapshots."""
        return self.path / "history.jsonl"

    @property
    def verdict_path(self) -> Path:
        """The verdict that ended it."""
        return self.path / "verdict.json"

    def settings(self) -> Settings:
        """What is asked.

        Raises:
            InputError: The file is missing or was edited into something impossible.
        """
        return load_settings(self.path / SETTINGS)

    def setup(self) -> Setup:
        """What it was begun with.

        Raises:
            InputError: The file is missing or torn.
        """
        path = self.path / "setup.json"
        what = f"setup {path}"
        missing = "Begin the experiment again: jettison ab start"
        content = read_bounded(path, what, most=LARGEST_BYTES, missing=missing, fix="Restore it")
        try:
            return Setup.model_validate_json(content)
        except ValidationError as error:
            raise InputError(what, detail=problem_of(error).detail, fix="Restore it") from error

    def counters(self) -> CounterSet:
        """All that is counted so far, of every node and by labels; where there is a key, all signed by it.

        Raises:
            InputError: A file is no counter file; two states of a node contradict each other; not signed.
        """
        experiment = self.settings().id
        paths = sorted(self.counter_folder.glob(f"{experiment}.*.json"))
        return read_all(paths, key=self.setup().key) if paths else CounterSet(experiment)

    def verdict(self) -> Verdict | None:
        """The verdict that ended it, or None where there is none yet.

        Raises:
            InputError: The file is torn.
        """
        return read_verdict(self.verdict_path) if self.verdict_path.is_file() else None

    def keep_verdict(self, verdict: Verdict) -> None:
        """Write the verdict that ends it."""
        write_verdict(self.verdict_path, verdict)

    def act(self) -> Act | None:
        """What was done in the end, or None while it runs.

        Raises:
            InputError: The file is torn.
        """
        path = self.path / "ending.json"
        if not path.is_file():
            return None
        try:
            return Act.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"ending {path}", detail=problem_of(error).detail, fix="Restore it") from error

    def keep_act(self, act: Act) -> None:
        """Write what was done in the end."""
        write_bytes(self.path / "ending.json", act.model_dump_json(indent=1).encode() + b"\n")


def make_folder(home: Path, settings: Settings, setup: Setup) -> ExperimentFolder:
    """The experiment's folder with settings and setup, whole or not there.

    Raises:
        OSError: There is a folder of that name; the home is read-only or full.
    """
    target = home.absolute() / settings.name
    asked = settings.model_dump(mode="json", exclude_defaults=True)
    with staged_folder(target) as stage:
        (stage / SETTINGS).write_text(yaml.safe_dump(asked, sort_keys=False))
        (stage / "setup.json").write_text(setup.model_dump_json(indent=1) + "\n")
        (stage / "counters").mkdir()
    return ExperimentFolder(target)


def find_folder(home: Path, name: str) -> ExperimentFolder:
    """The folder of that experiment.

    Raises:
        InputError: There is none of that name.
    """
    known = {folder.name: folder for folder in folders(home)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1) or sorted(known)
    fix = f"Known are {', '.join(near)}" if near else "Begin one: jettison ab start"
    detail = f"there is none in {home.absolute()}"
    raise InputError(f"experiment {name!r}", detail=detail, fix=f"{fix}; --home names another place")


def folders(home: Path) -> Iterator[ExperimentFolder]:
    """All experiments of a home, by name."""
    for path in sorted(home.absolute().iterdir()) if home.is_dir() else ():
        if not path.name.startswith(".") and (path / SETTINGS).is_file():
            yield ExperimentFolder(path)
