"""Counters as a file: JSON, written whole or not at all, each node's state signed where there is a key.

Standard library only: the router writes these inside Triton.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from jettison.core.errors import InputError
from jettison.core.files import read_bounded, write_bytes
from jettison.experiment.counter_form import counters_from, object_at
from jettison.experiment.counters import Counters, CounterSet, counter_set, merge
from jettison.experiment.tally import PLAIN, Tally

FORMAT = "jettison-counters/1"
"""What a file begins with; another number is another form."""

LARGEST_FILE_BYTES = 64 << 20
"""A node's state has some kilobytes; so much would be ten thousand nodes."""

SHORTEST_KEY_BYTES = 16
"""Half of what the hash gives. Source: FIPS 198 (2002), section 3."""


def sign(counters: Counters, key: bytes) -> Counters:
    """The state with its signature: HMAC-SHA-256 over its JSON without one."""
    return replace(counters, signature=_signature(counters, key))


def is_signed(counters: Counters, key: bytes) -> bool:
    """Whether the state was signed with that key, and has not changed since."""
    return hmac.compare_digest(counters.signature.encode(), _signature(counters, key).encode())


def verify(counters: Counters, key: bytes) -> None:
    """Nothing, where the state was signed with that key.

    Raises:
        InputError: It was not signed, or changed since, or signed with another key.
    """
    if is_signed(counters, key):
        return
    found = "a signature by another key, or of other counts" if counters.signature else "no signature"
    raise InputError(
        f"counters of node {counters.node!r}",
        detail=f"expected a signature by the given key, found {found}",
        fix="Fetch the file from the node again, and look for who could have changed it",
    )


def verify_all(counters: CounterSet, key: bytes) -> None:
    """Nothing, where every state was signed with that key.

    Raises:
        InputError: One of them was not, or changed since.
    """
    for state in counters.states:
        verify(state, key)


def read_key(path: Path) -> bytes:
    """The key in a file, without line ends around it.

    Raises:
        InputError: No such file, or the key is too short to be one.
    """
    if not path.is_file():
        raise InputError(
            f"key {path}", detail="there is no such file", fix="Make one: openssl rand -hex 32 > FILE"
        )
    key = path.read_bytes().strip()
    if len(key) < SHORTEST_KEY_BYTES:
        raise InputError(
            f"key {path}",
            detail=f"expected at least {SHORTEST_KEY_BYTES} bytes, found {len(key)}",
            fix="Make one: openssl rand -hex 32 > FILE",
        )
    return key


def document_of(counters: CounterSet) -> dict[str, object]:
    """The counters in JSON's types; counts of 0 are left out."""
    nodes = [_state_document(state) | _signed(state) for state in counters.states]
    return {"format": FORMAT, "experiment": counters.experiment, "nodes": nodes}


def counters_of(document: object, *, what: str) -> CounterSet:
    """The counters in a document; `what` names it in errors.

    Raises:
        InputError: It is none, or holds impossible counts.
    """
    given = object_at(document, what)
    if given.get("format") != FORMAT:
        raise InputError(
            what, detail=f"expected the format {FORMAT!r}, found {given.get('format')!r}", fix="Give counters"
        )
    experiment, nodes = given.get("experiment"), given.get("nodes")
    if not isinstance(experiment, str) or not isinstance(nodes, list):
        raise InputError(what, detail="expected an experiment and a list of nodes", fix="Give whole counters")
    states = (counters_from(node, experiment=experiment, what=what) for node in nodes)
    return counter_set(states, experiment=experiment)


def write_counters(path: Path, counters: CounterSet) -> None:
    """Write the file, replacing an older one as a whole.

    Raises:
        OSError: The folder is not there or read-only, or the disk is full; an old file stands.
    """
    write_bytes(path, json.dumps(document_of(counters), indent=1, sort_keys=True).encode() + b"\n")


def read_counters(path: Path) -> CounterSet:
    """The counters in a file.

    Raises:
        InputError: No such file; no JSON; no counters.
    """
    what = f"counters {path}"
    content = read_bounded(
        path,
        what,
        most=LARGEST_FILE_BYTES,
        missing="Give the path of a counter file",
        fix="Give a counter file",
    )
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(what, detail=f"not JSON: {error}", fix="Fetch it from the node again") from error
    return counters_of(document, what=what)


def read_all(paths: Sequence[Path], *, key: Path | None) -> CounterSet:
    """The counters of several files in one; with a key's file, only where every state is signed with it.

    Raises:
        InputError: A file cannot be read; they are of different experiments; a state is not signed.
    """
    merged = merge(*(read_counters(path) for path in paths))
    if key is not None:
        verify_all(merged, read_key(key))
    return merged


def _signature(counters: Counters, key: bytes) -> str:
    document = {"experiment": counters.experiment} | _state_document(counters)
    told = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(key, told, hashlib.sha256).hexdigest()


def _state_document(state: Counters) -> dict[str, object]:
    slices = {name: _tally_document(tally) for name, tally in state.slices}
    return {"node": state.node, "epoch": state.epoch, "sequence": state.sequence, "slices": slices}


def _signed(state: Counters) -> dict[str, object]:
    return {"signature": state.signature} if state.signature else {}


def _tally_document(tally: Tally) -> dict[str, object]:
    plain: dict[str, object] = {name: getattr(tally, name) for name in PLAIN if getattr(tally, name)}
    if tally.scores:
        plain["scores"] = {str(place): count for place, count in tally.scores}
    if tally.arms:
        plain["arms"] = {str(weight): asdict(arms) for weight, arms in tally.arms}
    return plain
