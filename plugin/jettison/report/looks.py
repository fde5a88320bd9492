"""Samples as they are shown: the picture, the decision, and both models' maps of what they look at."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jettison.evaluate.picture import SIGNATURE
from jettison.report.run_file import Change, Explanation, Look, Run, Saliency
from jettison.report.words import is_known

PICTURES_FOLDER = "pictures"
_LARGEST_BYTES = 200_000
"""Of one picture: 160 x 160 pixels of noise in three channels are 77 kB."""
_FAINTEST = 0.05
_DARKEST = 0.85
_MOST_CHANGES = 48
_MOST_CELLS = 1024


@dataclass(frozen=True)
class Cell:
    """One part of a map; `falls` where hiding it lowers the score, so that the model looks there."""

    x: int
    y: int
    opacity: float
    falls: bool


@dataclass(frozen=True)
class Heat:
    """A map: its size in parts, and those parts that matter."""

    columns: int
    rows: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Shown:
    """One sample: its change of decision, its look, or both."""

    sample: int
    has_picture: bool
    change: Change | None
    look: Look | None
    before: Heat | None
    after: Heat | None


def changes_of(told: Explanation, pictures: Iterable[int]) -> tuple[Shown, ...]:
    """The changed decisions that are shown, with maps where both models were asked."""
    if told.decisions is None:
        return ()
    looks = {look.sample: look for some in (told.saliency, told.changed_saliency) for look in _looks(some)}
    known = frozenset(pictures)
    return tuple(
        _shown(change.sample, known, change=change, look=looks.get(change.sample))
        for change in told.decisions.decisions[:_MOST_CHANGES]
    )


def looks_of(saliency: Saliency | None, pictures: Iterable[int]) -> tuple[Shown, ...]:
    """The samples over the whole set whose maps were compared."""
    known = frozenset(pictures)
    return tuple(_shown(look.sample, known, change=None, look=look) for look in _looks(saliency))


def _looks(saliency: Saliency | None) -> Sequence[Look]:
    return saliency.samples if saliency is not None and saliency.applies else ()


def _shown(sample: int, known: frozenset[int], *, change: Change | None, look: Look | None) -> Shown:
    if look is None:
        return Shown(sample, sample in known, change, None, None, None)
    highest = max(_strengths(look), default=0.0)
    maps = (_heat(found, highest) for found in (look.baseline_map, look.variant_map))
    return Shown(sample, sample in known, change, look, *maps)


def _strengths(look: Look) -> Iterator[float]:
    """How far scores move, in both maps, which share one scale."""
    for row in (*look.baseline_map, *look.variant_map):
        yield from (abs(value) for value in row if is_known(value))


def _heat(found: Sequence[Sequence[float | None]], highest: float) -> Heat | None:
    columns = max((len(row) for row in found), default=0)
    if not columns or columns * len(found) > _MOST_CELLS or not highest:
        return None
    cells = (
        Cell(x, y, round(_DARKEST * abs(value) / highest, 2), value > 0)
        for y, row in enumerate(found)
        for x, value in enumerate(row)
        if is_known(value)
    )
    return Heat(columns, len(found), tuple(cell for cell in cells if cell.opacity >= _FAINTEST))


def samples_in(run: Run) -> set[int]:
    """Numbers of all samples that the page may show."""
    found: set[int] = set()
    for target in run.all_targets:
        for told in (variant.explanation for variant in target.variants):
            if told is not None and told.decisions is not None:
                found.update(change.sample for change in told.decisions.decisions[:_MOST_CHANGES])
            if told is not None:
                found.update(
                    look.sample for some in (told.saliency, told.changed_saliency) for look in _looks(some)
                )
    return found


def pictures_in(folder: Path, samples: Iterable[int]) -> dict[int, str]:
    """The pictures that the run kept of these samples, in base64; what is no PNG or too large is left out."""
    found = {}
    for sample in sorted(samples):
        file = folder / PICTURES_FOLDER / f"{sample}.png"
        if file.is_file() and file.stat().st_size <= _LARGEST_BYTES:
            content = file.read_bytes()
            if content.startswith(SIGNATURE):
                found[sample] = base64.b64encode(content).decode()
    return found
