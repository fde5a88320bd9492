"""A verdict as a file, and the audit that makes the verdict again from the file's own counters.

Whoever has the file needs nothing else: not the nodes, not their logs, not the machine that decided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.errors import InputError
from jettison.core.files import read_bounded, write_bytes
from jettison.core.validation import problem_of
from jettison.experiment.counter_file import LARGEST_FILE_BYTES, is_signed
from jettison.experiment.eprocess import FORMULAS
from jettison.experiment.settings import Settings
from jettison.experiment.verdict import Decision, Verdict, decide

_RELATIVE, _ABSOLUTE = 1e-5, 1e-9
"""How far figures may differ between machines: at 1e9 units the p-value of McNemar's test has six digits."""

_ABSOLUTE_LOG = 1e-4
"""The same for logarithms of e: at 1e9 units ln Gamma is 2e10, of which the last digit of float64 is 4e-6."""

_TINY = 1e-300


class Audit(BaseModel):
    """What became of a verdict that was made again.

    Args:
        agrees: Whether nothing differs.
        differences: What does: where, what the file has, and what its counters give.
        decision: By the file's counters; None where they are not of the file's settings.
        reasons: For that.
        experiment: The experiment's id by the file's settings; "" for bare counts.
        signed: How many states of nodes were signed with the key; None where no key was given.
    """

    model_config = ConfigDict(frozen=True)

    agrees: bool
    differences: tuple[str, ...]
    decision: Decision | None
    reasons: tuple[str, ...]
    experiment: str
    signed: int | None


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write the file, replacing an older one as a whole."""
    write_bytes(path, verdict.model_dump_json(indent=1).encode() + b"\n")


def read_verdict(path: Path) -> Verdict:
    """The verdict in a file, as it stands there.

    Raises:
        InputError: No such file, no verdict, or one by formulas that are not known here.
    """
    what = f"verdict {path}"
    content = read_bounded(
        path,
        what,
        most=LARGEST_FILE_BYTES,
        missing="Give the path of a verdict file",
        fix="Give a verdict file",
    )
    try:
        verdict = Verdict.model_validate_json(content)
    except ValidationError as error:
        problem = problem_of(error)
        raise InputError(what, detail=problem.detail, fix="Give a file that `ab decide -o` wrote") from error
    if verdict.formulas != FORMULAS:
        raise InputError(
            what,
            detail=f"expected formulas {FORMULAS}, found {verdict.formulas}",
            fix="Audit it with the version of Jettison that made it",
        )
    return verdict


def audit(told: Verdict, *, key: bytes | None = None) -> Audit:
    """Decide again from the verdict's settings and counters, and compare.

    Args:
        told: The verdict as it was told.
        key: With it, every node's state must bear a signature by it.
    """
    experiment = told.settings.id if isinstance(told.settings, Settings) else ""
    is_one = experiment == told.counters.experiment
    made = decide(told.settings, told.counters) if is_one else None
    unsigned = [] if key is None else [state for state in told.counters.states if not is_signed(state, key)]
    differences = [f"counters of node {state.node!r}: not signed with the given key" for state in unsigned]
    if made is not None:
        differences += _differences(told, made)
    else:
        differences += _differs("experiment of the settings", told.counters.experiment, experiment)
    return Audit(
        agrees=not differences,
        differences=tuple(differences),
        decision=None if made is None else made.decision,
        reasons=() if made is None else made.reasons,
        experiment=experiment,
        signed=None if key is None else len(told.counters.states) - len(unsigned),
    )


def _differences(told: Verdict, made: Verdict) -> Iterator[str]:
    """What differs, reasons aside: they are words, and the audit prints its own."""
    for name in ("decision", "experiment", "units", "pending"):
        yield from _differs(name, getattr(told, name), getattr(made, name))
    names = [entry.name for entry in made.e_values]
    yield from _differs("e_values", [entry.name for entry in told.e_values], names)
    by_name = {entry.name: entry for entry in told.e_values}
    for entry in made.e_values:
        if entry.name in by_name:
            yield from _leaves(entry.name, by_name[entry.name], entry)
    yield from _leaves("estimates", told.estimates, made.estimates)


def _leaves(where: str, told: object, made: object) -> Iterator[str]:
    """The differences of two values of one kind, field by field."""
    if isinstance(told, BaseModel) and isinstance(made, BaseModel):
        told, made = told.model_dump(), made.model_dump()
    if isinstance(told, dict) and isinstance(made, dict):
        for name in sorted({*told, *made}):
            yield from _leaves(f"{where}.{name}", told.get(name), made.get(name))
        return
    yield from _differs(where, told, made)


def _differs(where: str, told: object, made: object) -> Iterator[str]:
    is_number = isinstance(told, float) and isinstance(made, float)
    if told == made or (is_number and _is_near(where, float(told), float(made))):  # type: ignore[arg-type]
        return
    yield f"{where}: the file has {told!r}, its counters give {made!r}"


def _is_near(where: str, told: float, made: float) -> bool:
    if where.endswith(".e"):
        where, told, made = f"{where}.log_e", math.log(max(told, _TINY)), math.log(max(made, _TINY))
    absolute = _ABSOLUTE_LOG if where.endswith(".log_e") else _ABSOLUTE
    return math.isclose(told, made, rel_tol=_RELATIVE, abs_tol=absolute)
