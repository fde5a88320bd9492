"""The node's counters on disk, in the form that `jettison.experiment.counter_form` reads.

Written whole or not at all, under a number that grows with every state, and signed where there is a key.
Units that were counted are noted before the counters are: a death between the two loses them, and nothing is
ever counted twice. Standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_units import WHOLE, Counts, Differing
else:
    from router_units import WHOLE, Counts, Differing

FORMAT = "jettison-counters/1"
ARM_NAMES = ("baseline_units", "candidate_units", "baseline_errors", "candidate_errors")
SHORTEST_KEY_BYTES = 16
"""As `jettison.experiment.counter_file` asks of whoever verifies."""
_EPOCH = re.compile(rb'"epoch": *(\d{1,15})')


@dataclass
class NodeState:
    """What stands in the file: the epoch, the number of the state, and counts by slice."""

    epoch: int
    sequence: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)


class CounterFile:
    """The counters of one experiment on this node.

    An epoch is the second in which it began, so that a file that was deleted or torn is followed by another
    epoch, and what others have merged of the old one stays.

    Args:
        folder: Where the files are.
        experiment: The experiment's id.
        node: This node's name.
        key: By which states are signed; empty where nobody signs.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: str,
        experiment: str,
        node: str,
        *,
        key: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(folder, f"{experiment}.{node}.json")
        self.closed_path = Path(folder, f"{experiment}.{node}.closed")
        self.differing_path = Path(folder, f"{experiment}.{node}.differing.jsonl")
        self._experiment, self._node, self._key, self._clock = experiment, node, key, clock
        self._noted = 0
        self._is_torn = False

    def load(self) -> NodeState:
        """What was counted before; a file that is torn or not signed is put aside, and a new epoch begins.

        What somebody else wrote must not come under our signature.

        Raises:
            OSError: The file is there and cannot be read or put aside.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return NodeState(int(self._clock()))
        try:
            return self._parsed(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            now = int(self._clock())
            self.path.replace(self.path.with_suffix(f".torn-{now}"))
            found = _EPOCH.search(text)
            return NodeState(max(now, int(found.group(1)) + 1 if found else 0))

    def _parsed(self, document: dict[str, Any]) -> NodeState:
        (node,) = document["nodes"]
        if (document["format"], document["experiment"], node["node"]) != (
            FORMAT, self._experiment, self._node,
        ):  # fmt: skip
            raise ValueError("another experiment's or node's")
        signature = str(node.pop("signature", "")).encode()
        if self._key and not hmac.compare_digest(signature, self._signature(node).encode()):
            raise ValueError("not signed by the key")
        counts = {name: _counts(entry) for name, entry in node["slices"].items()}
        return NodeState(_count(node["epoch"]), _count(node["sequence"]), counts)

    def closed(self, most: int) -> tuple[str, ...]:
        """Ids of the latest units that were counted, at most so many.

        Raises:
            OSError: The file cannot be read.
        """
        try:
            lines = self.closed_path.read_text(errors="replace").split("\n")
        except FileNotFoundError:
            return ()
        self._noted = len(lines)
        self._is_torn = bool(lines[-1])
        return tuple(line for line in lines[:-1] if line)[-most:]  # what follows the last line end is torn

    def write(self, state: NodeState, newly_closed: list[str], remembered: Callable[[], list[str]]) -> None:
        """The units that were counted, then the counts; raises the number of the state.

        Raises:
            OSError: The folder is read-only or the disk is full; the old file stands.
        """
        if newly_closed:
            self._note(newly_closed, remembered)
        document = self.document(state, state.sequence + 1)
        _replace(self.path, json.dumps(document, sort_keys=True).encode() + b"\n")
        state.sequence += 1

    def note_differing(self, units: list[Differing], most_bytes: int) -> None:
        """Append units that were counted as `disagree`, for whoever labels them; none beyond the bytes.

        After the counts: what a death loses between the two stays without a label, which favours nobody who
        fails.

        Raises:
            OSError: The folder is read-only or the disk is full.
        """
        text = "".join(json.dumps(unit, separators=(",", ":")) + "\n" for unit in units)
        with self.differing_path.open("a") as file:
            if file.tell() + len(text) <= most_bytes:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

    def document(self, state: NodeState, sequence: int) -> dict[str, object]:
        """The state in JSON's types."""
        slices = {name: _document(counts) for name, counts in sorted(state.counts.items())}
        node: dict[str, object] = {
            "node": self._node, "epoch": state.epoch, "sequence": sequence, "slices": slices,
        }  # fmt: skip
        if self._key:
            node["signature"] = self._signature(node)
        return {"format": FORMAT, "experiment": self._experiment, "nodes": [node]}

    def _signature(self, node: dict[str, object]) -> str:
        """HMAC-SHA-256 over the state's JSON, as `jettison.experiment.counter_file.sign` makes it."""
        document = {"experiment": self._experiment} | node
        told = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()

    def _note(self, newly_closed: list[str], remembered: Callable[[], list[str]]) -> None:
        kept = remembered()
        if self._noted + len(newly_closed) > 2 * max(len(kept), 1000):
            _replace(self.closed_path, "".join(f"{name}\n" for name in kept).encode())
            self._noted, self._is_torn = len(kept), False
            return
        text = "\n" * self._is_torn + "".join(f"{name}\n" for name in newly_closed)
        # What a full disk took of it, or a death left, must not become a part of the next name.
        self._is_torn = True
        with self.closed_path.open("a") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._is_torn = False
        self._noted += len(newly_closed)


def _document(counts: Counts) -> dict[str, object]:
    plain: dict[str, object] = {name: count for name, count in counts.plain.items() if count}
    if counts.arms:
        plain["arms"] = {
            str(weight): {name: arm.get(name, 0) for name in ARM_NAMES}
            for weight, arm in sorted(counts.arms.items())
        }
    return plain


def _counts(entry: dict[str, Any]) -> Counts:
    plain = {name: _count(count) for name, count in entry.items() if name != "arms"}
    arms = entry.get("arms", {}).items()
    return Counts(
        plain, {int(weight): {name: _count(arm[name]) for name in ARM_NAMES} for weight, arm in arms}
    )


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, found {value!r}")
    return value


def read_key(path: str) -> bytes:
    """The key in a file; empty where no file is named.

    Raises:
        ValueError: It is too short to be one.
        OSError: The file cannot be read.
    """
    if not path:
        return b""
    key = Path(path).read_bytes().strip()
    if len(key) < SHORTEST_KEY_BYTES:
        raise ValueError(f"key {path}: expected at least {SHORTEST_KEY_BYTES} bytes, found {len(key)}")
    return key


def is_empty(state: NodeState) -> bool:
    """Whether nothing was counted yet."""
    whole = state.counts.get(WHOLE)
    return whole is None or not (whole.plain or whole.arms)


def _replace(path: Path, content: bytes) -> None:
    """Replace the file as a whole, made durable first: a number must not come back after a power cut."""
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    with stage.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    stage.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
