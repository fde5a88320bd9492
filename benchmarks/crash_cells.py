"""The publishes that `crash.py` breaks off, and what must stand on disk afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from crash_rules import CREATED, BrokenError, release_of, served
from jettison.core.errors import ExternalError, JettisonError
from jettison.triton import live as living
from jettison.triton.live import Live, publish_live, roll_back
from jettison.triton.publish import publish

MODEL = "one"
OLDEST, OLD, NEW, NEXT = 1.0, 2.0, 3.0, 4.0
_NOWHERE = Live("127.0.0.1:9", 1.0)


@dataclass(frozen=True)
class Cell:
    """A verb over a repository: how that is made, what is broken off, which factors may be served."""

    name: str
    make: Callable[[Path], None]
    act: Callable[[Path], None]
    before: float | None
    after: float | None


def check(root: Path, cell: Cell) -> tuple[str, str]:
    """Whether the old or the new is served, and what is wrong: there, or with the next publish."""
    try:
        found = served(root)
        latest = found.get(MODEL, [None])[-1]
        if found.get("other") != [OLDEST] or latest not in (cell.before, cell.after):
            return "", f"serves {found}"
    except (BrokenError, JettisonError) as error:
        return "", str(error)
    return ("new" if latest == cell.after else "old"), _next(root)


def _next(root: Path) -> str:
    try:
        publish(release_of(root.parent / "work", MODEL, NEXT), root)
        latest = served(root)[MODEL][-1]
    except (BrokenError, JettisonError, OSError) as error:
        return f"the next publish: {error}"
    left = [path.name for path in root.parent.iterdir() if path.name.endswith(".staging")]
    if latest != NEXT or left:
        return f"the next publish serves {latest}, leaves {left}"
    return ""


def _other(root: Path) -> None:
    for factor in (OLDEST, OLD, NEW, NEXT):
        release_of(root.parent / "work", MODEL, factor)
    publish(release_of(root.parent / "work", "other", OLDEST), root)


def _two(root: Path) -> None:
    _other(root)
    for factor in (OLDEST, OLD):
        publish(release_of(root.parent / "work", MODEL, factor), root)


def _edited(root: Path) -> None:
    _two(root)
    config = root / MODEL / "config.pbtxt"
    config.write_text(config.read_text() + "# ours\n")


def _three(root: Path) -> None:
    _two(root)
    publish(release_of(root.parent / "work", MODEL, NEW), root, keep_versions=3)


def _publish(root: Path) -> None:
    publish(release_of(root.parent / "work", MODEL, NEW), root)


def _publish_live(root: Path) -> None:
    """Over a server that takes all, so that older versions are retired."""
    with mock.patch.multiple(living, meet=_takes, load=_takes, load_exactly=_takes):
        publish_live(release_of(root.parent / "work", MODEL, NEW), root, _NOWHERE)


def _publish_refused(root: Path) -> None:
    """Over a server that refuses the new version and then loads the old one."""
    load = mock.Mock(side_effect=[_refusal(), True])
    with mock.patch.multiple(living, meet=_takes, load=load, unload=_takes):
        publish_live(release_of(root.parent / "work", MODEL, NEW), root, _NOWHERE)


def _takes(*_: object, **__: object) -> bool:
    return True


def _refusal() -> ExternalError:
    return ExternalError("loading", detail="refused", fix="none")


def _roll_back(root: Path) -> None:
    roll_back(root, MODEL, now=CREATED)


CELLS = (
    Cell("a new model", _other, _publish, None, NEW),
    Cell("a next version, the oldest goes", _two, _publish, OLD, NEW),
    Cell("a next version over an edited config.pbtxt", _edited, _publish, OLD, NEW),
    Cell("to a server that takes it", _two, _publish_live, OLD, NEW),
    Cell("to a server that refuses it", _two, _publish_refused, OLD, NEW),
    Cell("a new model that the server refuses", _other, _publish_refused, None, NEW),
    Cell("rollback", _three, _roll_back, NEW, OLD),
)


def fresh(template: Path, place: Path) -> Path:
    """A copy of the template's repository to break; the root in it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    return place / "repository"
