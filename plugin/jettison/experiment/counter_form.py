"""A node's state out of parsed JSON: names known and counts possible, or a sentence that says which is not.

Counts come over networks from machines in the field, and a verdict is made of them. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import fields

from jettison.core.errors import InputError
from jettison.experiment.counters import WHOLE, Counters
from jettison.experiment.tally import BUCKETS, MOST_COUNTED, PLAIN, Arms, Tally, fractional_bins

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A node's or slice's name: what may also be a file's name and a Kubernetes label."""

_FIX = "Fetch it from the node again; if it says the same there, the node counts wrongly"
_ARM_NAMES = tuple(part.name for part in fields(Arms))
_NODE_KEYS = frozenset({"node", "epoch", "sequence", "slices", "signature"})


def object_at(value: object, what: str) -> dict[str, object]:
    """The value as an object of JSON.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(value, dict):
        raise InputError(what, detail=f"expected an object, found {type(value).__name__}", fix=_FIX)
    return value


def counters_from(document: object, *, experiment: str, what: str) -> Counters:
    """The state of one node.

    Raises:
        InputError: A name, number or signature is not of the form that it must have.
    """
    given = object_at(document, what)
    _refuse_unknown(given, _NODE_KEYS, what)
    node, signature = given.get("node"), given.get("signature", "")
    if not isinstance(node, str) or not NAME.fullmatch(node):
        raise InputError(what, detail=f"expected a node's name, found {node!r}", fix=_FIX)
    if not isinstance(signature, str):
        raise InputError(what, detail=f"expected a signature, found {signature!r}", fix=_FIX)
    what = f"{what}, node {node!r}"
    return Counters(
        experiment=experiment,
        node=node,
        epoch=_count(given.get("epoch"), f"{what}, epoch"),
        sequence=_count(given.get("sequence"), f"{what}, sequence"),
        slices=_slices(object_at(given.get("slices"), what), what),
        signature=signature,
    )


def _slices(given: dict[str, object], what: str) -> tuple[tuple[str, Tally], ...]:
    wrong = [name for name in given if not NAME.fullmatch(name)]
    if wrong:
        raise InputError(what, detail=f"expected a slice's name, found {wrong[0]!r}", fix=_FIX)
    found = {name: _tally(entry, f"{what}, slice {name!r}") for name, entry in given.items()}
    if found and WHOLE not in found:
        raise InputError(what, detail=f"expected the slice {WHOLE!r}, found {sorted(found)}", fix=_FIX)
    return tuple(sorted(found.items()))


def _tally(document: object, what: str) -> Tally:
    given = object_at(document, what)
    _refuse_unknown(given, frozenset({*PLAIN, "scores", "arms"}), what)
    plain = {name: _count(given.get(name, 0), f"{what}, {name}") for name in PLAIN}
    if plain["baseline_lost"] + plain["candidate_lost"] > plain["offered"]:
        detail = "expected at most as many lost answers as units offered, found more"
        raise InputError(what, detail=detail, fix=_FIX)
    return Tally(
        **plain, scores=_scores(given.get("scores", {}), what), arms=_arms(given.get("arms", {}), what)
    )


def _scores(document: object, what: str) -> tuple[tuple[int, int], ...]:
    bins = fractional_bins()
    found = {}
    for text, count in object_at(document, what).items():
        place = _number(text, f"{what}, scores")
        if place not in bins or place == 0:
            detail = f"expected a bin from {bins[0]} to {bins[-1]} other than 0, found {text!r}"
            raise InputError(f"{what}, scores", detail=detail, fix=_FIX)
        found[place] = _count(count, f"{what}, scores {text}")
    return tuple(sorted(found.items()))


def _arms(document: object, what: str) -> tuple[tuple[int, Arms], ...]:
    found = {}
    for text, entry in object_at(document, what).items():
        weight, where = _number(text, f"{what}, arms"), f"{what}, arms {text}"
        if not 0 < weight < BUCKETS:
            detail = f"expected a weight from 1 to {BUCKETS - 1}, found {text!r}"
            raise InputError(f"{what}, arms", detail=detail, fix="Count arms only while both have traffic")
        given = object_at(entry, where)
        _refuse_unknown(given, frozenset(_ARM_NAMES), where)
        counts = {name: _count(given.get(name, 0), f"{where}, {name}") for name in _ARM_NAMES}
        found[weight] = Arms(**counts)
    return tuple(sorted(found.items()))


def _count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_COUNTED:
        detail = f"expected a whole number from 0 to {MOST_COUNTED}, found {value!r:.60}"
        raise InputError(what, detail=detail, fix=_FIX)
    return value


def _number(text: str, what: str) -> int:
    """The whole number in its one plain form: "+5" and "05" would be second names of "5"."""
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,8}", text):
        raise InputError(what, detail=f"expected a whole number, found {text!r:.60}", fix=_FIX)
    return int(text)


def _refuse_unknown(given: dict[str, object], known: frozenset[str], what: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError(what, detail=f"unknown key {unknown[0]!r}", fix=_FIX)
