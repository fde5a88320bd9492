"""One look at an experiment: the verdict on all that is counted, and what else whoever looks must know."""

from __future__ import annotations

from dataclasses import dataclass

from jettison.core.errors import InputError
from jettison.experiment.folder import Act, ExperimentFolder, Setup
from jettison.experiment.settings import Settings
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import Decision, Verdict, decide
from jettison.triton.repository import ModelFolder
from jettison.triton.router import RouterState, read_state, write_state


@dataclass(frozen=True)
class Look:
    """What was found.

    Args:
        settings: What is asked.
        setup: What it was begun with.
        verdict: The one that stands, else the one by the counters of this moment.
        stands: Whether it is the one that ended the experiment.
        state: What the router does; None where its file cannot be read, so that it goes on as it was.
        act: What was done in the end.
        newer: Models of which a newer version was published since it began.
    """

    settings: Settings
    setup: Setup
    verdict: Verdict
    stands: bool
    state: RouterState | None
    act: Act | None
    newer: tuple[str, ...]

    @property
    def tally(self) -> Tally:
        """All that is counted."""
        return self.verdict.counters.tally()

    @property
    def decision(self) -> Decision:
        """What follows: what was done, where somebody ended it without a verdict."""
        if self.act is not None and self.verdict.decision == "continue":
            return self.act.act
        return self.verdict.decision

    @property
    def progress(self) -> str:
        """How far it is, in words; of a split, which judges no unit, how many were given out."""
        if self.setup.mode == "split":
            given = sum(arms.baseline_units + arms.candidate_units for _, arms in self.tally.arms)
            return f"{given:,} units given out"
        return f"{self.verdict.units:,} units"

    @property
    def is_ramp_done(self) -> bool:
        """Whether the last share of a split has seen its units, and nothing objects."""
        if self.setup.mode != "split" or self.state is None or self.decision != "continue":
            return False
        weight = self.state.weight
        return weight == self.setup.ramp[-1] and seen_at(self.tally, weight) >= self.setup.ramp_units


def look_at(folder: ExperimentFolder) -> Look:
    """Look: read all counters, and judge them.

    Raises:
        InputError: Settings, setup or counters cannot be read.
    """
    settings, setup, standing = folder.settings(), folder.setup(), folder.verdict()
    return Look(
        settings=settings,
        setup=setup,
        verdict=standing or decide(settings, folder.counters()),
        stands=standing is not None,
        state=_state(folder),
        act=folder.act(),
        newer=newer_versions(setup),
    )


def newer_versions(setup: Setup) -> tuple[str, ...]:
    """Models of which another version is the newest now, and is asked: counts from then on are about it."""
    return tuple(
        side.model
        for side in (setup.baseline, setup.candidate)
        if not side.is_pinned
        and (known := ModelFolder(setup.repository / side.model).listed_versions())
        and known[-1] != side.version
    )


def seen_at(tally: Tally, weight: int) -> int:
    """How many units arrived while the candidate had that weight."""
    arms = dict(tally.arms).get(weight)
    return arms.baseline_units + arms.candidate_units if arms else 0


def take_next_share(folder: ExperimentFolder, look: Look) -> int | None:
    """The weight that the candidate gets now, where the present one has seen enough and nothing objects.

    Raises:
        OSError: The state cannot be written; the router goes on as it was.
    """
    state, ramp = look.state, look.setup.ramp
    if look.setup.mode != "split" or state is None or state.mode != "split" or look.decision != "continue":
        return None
    higher = [weight for weight in ramp if weight > state.weight]
    if not higher or seen_at(look.tally, state.weight) < look.setup.ramp_units:
        return None
    write_state(folder.state_path, state.model_copy(update={"weight": higher[0]}))
    return higher[0]


def _state(folder: ExperimentFolder) -> RouterState | None:
    try:
        return read_state(folder.state_path)
    except InputError:
        return None
