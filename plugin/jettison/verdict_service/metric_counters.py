"""The counters that a router shows in Triton's metrics, as states of nodes.

A scrape may come in the middle of an update, so that a state counts only where its check fits
(`backends/jettison_router/router_shown.py`). The state bears the number that it has in the node's file, and
so there is nothing to subtract after a restart: a node's counts go on from its file under the same epoch, or
from zero under another, and the counts of the earlier epoch stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from jettison.core.errors import InputError
from jettison.experiment.counter_form import counters_from
from jettison.experiment.counters import Counters
from jettison.verdict_service.exposition import Sample, samples

PREFIX = "jettison_router_counted"

Key = tuple[str, str, str]
"""Experiment, node and epoch, as labels have them."""
_Counts = dict[tuple[str, str], int]


class Shown(NamedTuple):
    """What a scrape gave.

    Args:
        states: The whole ones.
        torn: Experiments and nodes of which it gave a half: read again.
    """

    states: tuple[Counters, ...]
    torn: tuple[str, ...]


def counters_shown(text: str, experiments: Collection[str], *, what: str) -> Shown:
    """The states of these experiments in a scrape.

    Raises:
        InputError: A whole state has an impossible name or count.
    """
    counts, plain = _gathered(samples(text, PREFIX), experiments, what)
    states, torn = [], []
    for key, (sequence, check) in plain.items():
        found = counts.get(key, {})
        if sequence is None or check != _check(sequence, found):
            torn.append(f"{key[0]} of node {key[1]!r}")
            continue
        document = {"node": key[1], "epoch": int(key[2]), "sequence": sequence, "slices": _slices(found)}
        states.append(counters_from(document, experiment=key[0], what=what))
    return Shown(tuple(states), tuple(torn))


def _gathered(
    found: Iterable[Sample], experiments: Collection[str], what: str
) -> tuple[dict[Key, _Counts], dict[Key, tuple[int | None, int | None]]]:
    counts: dict[Key, _Counts] = {}
    plain: dict[Key, tuple[int | None, int | None]] = {}
    for name, labels, text in found:
        key = labels.get("experiment", ""), labels.get("node", ""), labels.get("epoch", "")
        if key[0] not in experiments or not key[2].isdigit():
            continue
        value = _whole(text, f"{what}, {name}")
        sequence, check = plain.setdefault(key, (None, None))
        if name == PREFIX:
            counts.setdefault(key, {})[labels.get("slice", ""), labels.get("count", "")] = value
        elif name == f"{PREFIX}_sequence":
            plain[key] = value, check
        elif name == f"{PREFIX}_check":
            plain[key] = sequence, value
    return counts, plain


def _whole(text: str, what: str) -> int:
    try:
        value = float(text)
        if value.is_integer():
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise InputError(what, detail=f"expected a count, found {text!r:.60}", fix="Look at the metrics there")


def _check(sequence: int, counts: _Counts) -> int:
    lines = sorted(f"{part} {name} {value}" for (part, name), value in counts.items() if value)
    return zlib.crc32("\n".join([str(sequence), *lines]).encode())


def _slices(counts: _Counts) -> dict[str, object]:
    slices: dict[str, dict[str, object]] = {}
    arms: dict[tuple[str, str], dict[str, int]] = {}
    for (part, name), value in counts.items():
        tally = slices.setdefault(part, {})
        if name.startswith("arms."):
            _, weight, field = (*name.split(".", 2), "", "")[:3]
            arms.setdefault((part, weight), {})[field] = value
        else:
            tally[name] = value
    for part, tally in slices.items():
        mine = {weight: arm for (owner, weight), arm in arms.items() if owner == part}
        if mine:
            tally["arms"] = mine
    return dict(slices)
