"""What a check finds, as values; the table of all checks is in `table.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from jettison.triton.check.look import Look


class Finding(BaseModel):
    """One thing that is wrong.

    Args:
        code: The check's number, as `R002`.
        where: The path inside the repository, or the target of the fleet.
        message: What was expected and what was found.
        fix: What to do.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    where: str
    message: str
    fix: str


@dataclass(frozen=True)
class Objection:
    """Where a check objects, and to what."""

    where: str
    message: str


@dataclass(frozen=True)
class Check:
    """One rule.

    Args:
        code: Its number: R repository, C configuration, P plans and fleets, A variants, S safety,
            V signatures, L loading.
        title: The rule in a few words.
        reason: What Triton does where it is broken.
        fix: What to do then.
        find: All that breaks it.
    """

    code: str
    title: str
    reason: str
    fix: str
    find: Callable[[Look], Iterable[Objection]]

    def findings(self, look: Look) -> list[Finding]:
        """All that it objects to, in the repository's order."""
        return [
            Finding(code=self.code, where=found.where, message=found.message, fix=self.fix)
            for found in self.find(look)
        ]
