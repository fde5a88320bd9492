"""What a check finds, as values; the table of all checks is in `table.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.core.targets import Target

Severity = Literal["hard", "soft"]
"""`hard`: the build fails, or means something else. `soft`: it builds, and runs slower."""


class Finding(BaseModel):
    """One place of a graph that breaks one rule.

    Args:
        code: The check's number, as `T102`.
        severity: `hard` where the build fails or the meaning changes, `soft` where it only costs speed.
        node: The node's name; None for the model as a whole.
        operator: Its operator.
        message: What was found there.
        reason: Why that matters.
        fix: What to do.
        can_be_mended: Whether `--fix` does it.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    message: str
    reason: str
    fix: str
    node: str | None = None
    operator: str | None = None
    can_be_mended: bool = False


@dataclass(frozen=True)
class Subject:
    """What is looked at: a model as its file has it, and where it shall run."""

    model: ir.Model
    target: Target

    @property
    def graph(self) -> ir.Graph:
        """The main graph."""
        return self.model.graph

    @property
    def opset(self) -> int:
        """The opset of the default domain."""
        return self.model.graph.opset_imports[""]


@dataclass(frozen=True)
class Place:
    """Where a check objects: the node, None for the model as a whole, and what was found there."""

    node: ir.Node | None
    message: str


@dataclass(frozen=True)
class Check:
    """One rule.

    Args:
        code: Its number.
        severity: Of what it finds.
        title: The rule in a few words.
        reason: Why it is one.
        fix: What to do where it is broken.
        find: The places that break it.
        mend: Changes the model in place so that it keeps the rule, as far as it can, or gives another one;
            None where nothing can.
        cost: What mending may change of the answers; empty where it changes none.
    """

    code: str
    severity: Severity
    title: str
    reason: str
    fix: str
    find: Callable[[Subject], Iterable[Place]]
    mend: Callable[[Subject], ir.Model | None] | None = None
    cost: str = ""

    def findings(self, subject: Subject) -> list[Finding]:
        """All that it objects to, in the graph's order."""
        return [
            Finding(
                code=self.code,
                severity=self.severity,
                node=None if place.node is None else place.node.name,
                operator=None if place.node is None else place.node.op_type,
                message=place.message,
                reason=self.reason,
                fix=self.fix,
                can_be_mended=self.mend is not None,
            )
            for place in self.find(subject)
        ]
