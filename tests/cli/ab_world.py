"""The sample repository in a folder of its own, and an experiment over it without a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from jettison.experiment.counter_file import sign, write_counters
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.folder import ExperimentFolder

KEY = b"0123456789abcdef"
SAMPLE = Path(__file__).parents[2] / "model_repository"
BEGIN = (
    "ab", "start", "night", "--repository", "models", "--baseline", "fashion-fp32",
    "--candidate", "fashion-int8", "--node", "edge-1",
)  # fmt: skip
ASKED = (
    "--margin", 0.02, "--planned-disagreement", 0.02, "--unit", "request", "--requests-are-independent",
)  # fmt: skip
SHADOW = (*BEGIN, *ASKED, "--task", "classification")
SPLIT = (*BEGIN, *ASKED, "--mode", "split", "--ramp", "0.01,0.1,0.5")


def repository(folder: Path) -> Path:
    """A copy of the sample repository."""
    return Path(shutil.copytree(SAMPLE, folder / "models"))


def folder_of(name: str = "night") -> ExperimentFolder:
    """The experiment in the current folder."""
    return ExperimentFolder(Path("experiments").absolute() / name)


def count(folder: ExperimentFolder, sequence: int = 1, *, key: bytes = b"", **tallies) -> None:
    """Counters of a node as the router would write them."""
    experiment = folder.settings().id
    state = Counters(experiment, "edge-1", sequence=sequence, slices=((WHOLE, tallies["whole"]),))
    state = sign(state, key) if key else state
    write_counters(folder.counter_folder / f"{experiment}.edge-1.json", CounterSet(experiment, (state,)))


def differ(folder: ExperimentFolder, request: str, baseline: int, candidate: int) -> None:
    """A disagreement on a request that is a unit, as the router would keep it."""
    stem = f"{folder.settings().id}.edge-1"
    record = {
        "request": request, "unit": request, "unit_id": f"id-{request}", "slice": "",
        "baseline": [[baseline, 9.0]], "candidate": [[candidate, 8.0]],
    }  # fmt: skip
    for kind, entry in (("disagreements", record), ("differing", [f"id-{request}", []])):
        with (folder.counter_folder / f"{stem}.{kind}.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
