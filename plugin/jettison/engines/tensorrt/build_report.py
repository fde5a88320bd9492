"""What a build is run with and what it tells, as values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.core.engine import EngineRecord
from jettison.core.errors import InputError
from jettison.core.progress import Reporter, silent
from jettison.core.targets import Target
from jettison.engines.tensorrt.build_exchange import BuildStep
from jettison.engines.tensorrt.module import ModuleName
from jettison.engines.tensorrt.report import RefusedNode
from jettison.engines.tensorrt.shapes import ShapeRange


class BuildReport(BaseModel):
    """What became of a build: the folder with the plan, or why there is none."""

    model_config = ConfigDict(frozen=True)

    target: str
    outcome: Literal["built", "standing", "refused", "crashed", "timeout"]
    path: Path | None = None
    engine: EngineRecord | None = None
    identity: str | None = None
    refusals: tuple[RefusedNode, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class BuildOptions(BaseModel):
    """What a build is run with, and no part of the engine's identity.

    `module` is `tensorrt`; another is for tests, and Triton takes no plan of it.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    module: ModuleName = "tensorrt"
    limit_s: float = 7200.0
    report: Reporter = silent


def ways_out(target: Target) -> str:
    """What to do where this machine cannot build."""
    return (
        f"Three ways: `jettison preflight MODEL --target {target.name}` compiles here without a GPU, as "
        f"evidence; `jettison build MODEL --target {target.name} --image TAG` builds in the image that "
        "serves; or run this command on the node itself"
    )


class Listener:
    """Hands on what the builder's monitor wrote since the last look."""

    def __init__(self, path: Path, report: Reporter) -> None:
        self.path, self.report = path, report
        self._read = 0

    def look(self) -> None:
        """Hand on the new lines that are whole."""
        if not self.path.is_file():
            return
        text = self.path.read_text(encoding="utf-8")
        whole = text.rfind("\n") + 1
        for line in text[self._read : whole].splitlines():
            step = BuildStep.model_validate_json(line)
            self.report(step.phase)(step.done, step.total)
        self._read = whole


def profiles_of(ranges: Sequence[ShapeRange]) -> tuple[tuple[ShapeRange, ...], ...]:
    """The ranges by profile: the first of each input makes the first profile, the second the next.

    An input named once has that range in all of them.

    Raises:
        InputError: Inputs are named neither once nor equally often.
    """
    by_name: dict[str, list[ShapeRange]] = {}
    for item in ranges:
        by_name.setdefault(item.name, []).append(item)
    count = max((len(found) for found in by_name.values()), default=0)
    odd = [name for name, found in by_name.items() if len(found) not in (1, count)]
    if odd:
        raise InputError(
            f"shapes for {odd[0]!r}",
            detail=f"expected one range, or {count} as other inputs have, found {len(by_name[odd[0]])}",
            fix="Give --shapes for each input as often as there are profiles",
        )
    return tuple(
        tuple(found[0] if len(found) == 1 else found[place] for found in by_name.values())
        for place in range(count)
    )
