"""The node's counters in Triton's metrics, as they stand in its file, for who cannot reach that file.

Triton tells metrics one by one, so what is read at one moment may be of two states. A check over all of a
state says whether it is whole; its number is that of the file, so that file and metrics are one and the same
state to whoever merges them. Standard library only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

FAMILIES = {
    "jettison_router_counted": "Counts of the node's file, which only grow, by slice",
    "jettison_router_counted_sequence": "The number of that state",
    "jettison_router_counted_check": "CRC-32 over the number and all counts; another one means: read again",
}

Labels = tuple[tuple[str, str], ...]


class Shown:
    """Gauges that repeat the latest state that was written; for one thread.

    Args:
        model: The router's name.
    """

    def __init__(self, model: str) -> None:
        # A family must live as long as its metrics.
        self._families: dict[str, Any] = {
            name: pb_utils.MetricFamily(name=name, description=text, kind=pb_utils.MetricFamily.GAUGE)
            for name, text in FAMILIES.items()
        }
        self._model = model
        self._metrics: dict[tuple[str, Labels], Any] = {}
        self._values: dict[tuple[str, Labels], int] = {}

    def tell(self, document: Mapping[str, Any]) -> None:
        """Show a state, in the form of the file."""
        (node,) = document["nodes"]
        labels: Labels = (
            ("model", self._model),
            ("experiment", document["experiment"]),
            ("node", node["node"]),
            ("epoch", str(node["epoch"])),
        )
        found = list(counts_of(node["slices"]))
        for part, count, value in found:
            self._set("jettison_router_counted", (*labels, ("slice", part), ("count", count)), value)
        self._set("jettison_router_counted_sequence", labels, node["sequence"])
        self._set("jettison_router_counted_check", labels, check_of(node["sequence"], found))

    def _set(self, family: str, labels: Labels, value: int) -> None:
        key = family, labels
        if self._values.get(key) == value:
            return
        if key not in self._metrics:
            self._metrics[key] = self._families[family].Metric(labels=dict(labels))
        self._metrics[key].set(value)
        self._values[key] = value


def counts_of(slices: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, int]]:
    """Slice, name and value of every count; an arm's are called `arms.<weight>.<name>`."""
    for part, counts in slices.items():
        for name, value in counts.items():
            if name != "arms":
                yield part, name, value
        for weight, arm in counts.get("arms", {}).items():
            yield from ((part, f"arms.{weight}.{name}", value) for name, value in arm.items())


def check_of(sequence: int, counts: list[tuple[str, str, int]]) -> int:
    """CRC-32 over the number and the counts that are not 0, in order of their names."""
    lines = sorted(f"{part} {name} {value}" for part, name, value in counts if value)
    return zlib.crc32("\n".join([str(sequence), *lines]).encode())
