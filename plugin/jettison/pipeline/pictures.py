"""Pictures of the evaluation samples that a run's explanations name, kept in its folder for the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jettison.core.files import staged_folder
from jettison.core.samples import Samples
from jettison.evaluate.decisions import DecisionReport
from jettison.evaluate.picture import picture_of
from jettison.evaluate.saliency import SaliencyReport
from jettison.pipeline.results import Explanation, TargetResult

_MOST = 96
"""Pictures of a run: about a megabyte of photographs."""
_CHANGED = 16
"""Changed decisions of a variant that are shown as pictures."""


def write_pictures(samples: Samples, results: Sequence[TargetResult], folder: Path) -> None:
    """Write `<number>.png` for the samples that the results tell of; no folder where these are no images."""
    explanations = [found.explanation for result in results for found in result.variants]
    numbers = _told(found for found in explanations if found is not None)
    pictures = dict(_pictures(samples, frozenset(numbers[:_MOST])))
    shutil.rmtree(folder, ignore_errors=True)
    if pictures:
        with staged_folder(folder) as stage:
            for number, picture in pictures.items():
                (stage / f"{number}.png").write_bytes(picture)


def _told(explanations: Iterable[Explanation]) -> list[int]:
    """Numbers of the samples, each once, in the order in which they are told."""
    found: dict[int, None] = {}
    for told in explanations:
        if isinstance(told.decisions, DecisionReport):
            found.update(dict.fromkeys(change.sample for change in told.decisions.decisions[:_CHANGED]))
        for looks in (told.saliency, told.changed_saliency):
            if isinstance(looks, SaliencyReport):
                found.update(dict.fromkeys(sample.sample for sample in looks.samples))
    return list(found)


def _pictures(samples: Samples, wanted: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    """Number and PNG of each, in one pass that ends at the last one."""
    number, last = 0, max(wanted, default=-1)
    for batch in samples.read() if wanted else ():
        for row in range(len(batch)):
            if number in wanted:
                picture = picture_of({name: array[row : row + 1] for name, array in batch.inputs.items()})
                if picture is None:
                    return
                yield number, picture
            number += 1
        if number > last:
            return
