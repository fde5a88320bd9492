"""End an experiment: the candidate answers all, or the baseline does; verdict, reason and registry agree.

Whoever is interrupted ends it again with the same words: each step finds what an earlier one left.
"""

from __future__ import annotations

from typing import Literal

from jettison.core.errors import InputError
from jettison.core.locks import locked
from jettison.experiment.folder import Act, ExperimentFolder, Setup
from jettison.experiment.looking import Look, look_at
from jettison.experiment.opening import changed_sides
from jettison.experiment.registry import Ending, end, read_registry
from jettison.experiment.verdict import Decision
from jettison.triton.router import BUCKETS, RouterState, write_state

AFTERWARDS = "promoted-"
"""Before the id in the router's state after a promotion: what is counted then is not the experiment's."""

_AGAINST: dict[Decision, Ending] = {"rollback": "rollback", "exhausted": "exhausted", "invalid": "invalid"}


def may_promote(look: Look, because: str) -> bool:
    """Whether the verdict says so, or somebody gives a reason of their own."""
    return look.verdict.decision == "promote" or bool(because.strip())


def promote(folder: ExperimentFolder, *, now: str, because: str = "") -> Act:
    """Let the candidate answer all requests; the baseline stays loaded, and answers where it fails.

    Raises:
        InputError: It has ended otherwise; the candidate is no longer what was judged; there is neither a
            verdict `promote` nor a reason.
    """
    with locked(folder.path / "ending"):
        look = look_at(folder)
        _check_running(folder, look)
        _check_same(folder, look.setup)
        if not may_promote(look, because):
            raise InputError(
                f"experiment {folder.name!r}",
                detail=f"expected the verdict promote, found {look.verdict.decision}",
                fix="Wait for it (jettison ab wait), or give a reason with --because, which is kept",
            )
        state = RouterState(
            mode="split", weight=BUCKETS, experiment=f"{AFTERWARDS}{look.settings.id}", salt=look.setup.salt
        )
        return _end(folder, look, state, act="promote", now=now, because=because)


def rollback(folder: ExperimentFolder, *, now: str, because: str = "") -> Act:
    """Let the baseline answer all requests, and ask the candidate no more; also after a promotion.

    Raises:
        InputError: Settings, setup or counters cannot be read; the baseline answers all the same.
        OSError: The router's state cannot be written, or what comes after it.
    """
    write_state(folder.state_path, RouterState())
    try:
        with locked(folder.path / "ending"):
            return _end(folder, look_at(folder), RouterState(), act="rollback", now=now, because=because)
    except InputError as error:
        detail = (
            f"the baseline answers all again, and the experiment is not closed: {error.what}: {error.detail}"
        )
        raise InputError(f"experiment {folder.name!r}", detail=detail, fix=error.fix) from error


def _end(
    folder: ExperimentFolder,
    look: Look,
    state: RouterState,
    *,
    act: Literal["promote", "rollback"],
    now: str,
    because: str,
) -> Act:
    """Traffic first: it is what an interruption must not leave undone."""
    write_state(folder.state_path, state)
    if not look.stands:
        folder.keep_verdict(look.verdict)
    before = look.act
    done = Act(
        act=act,
        ending=before.ending if before else _ending(look, act),
        decision=look.verdict.decision,
        at=now,
        because=because.strip(),
    )
    if before is not None and before.act == act:
        done = before
    folder.keep_act(done)
    experiment = look.settings.id
    entries = read_registry(folder.registry_path)
    if any(entry.experiment == experiment and entry.ending is None for entry in entries):
        end(folder.registry_path, experiment, done.ending, now=done.at)
    return done


def _ending(look: Look, act: Literal["promote", "rollback"]) -> Ending:
    if act == "promote":
        return "promote"
    return _AGAINST.get(look.verdict.decision, "withdrawn")


def _check_running(folder: ExperimentFolder, look: Look) -> None:
    if look.act is not None and look.act.act != "promote":
        raise InputError(
            f"experiment {folder.name!r}",
            detail=f"expected one that runs, found that its candidate was taken out on {look.act.at}",
            fix="Begin another one: jettison ab start",
        )


def _check_same(folder: ExperimentFolder, setup: Setup) -> None:
    changed = changed_sides(setup)
    if changed:
        raise InputError(
            f"experiment {folder.name!r}",
            detail=f"what would be promoted is not what was judged: {'; '.join(changed)}",
            fix=f"End it with jettison ab rollback {folder.name}, and begin another one",
        )
