"""Prometheus' text form, read and written: samples with their labels and values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? +(?P<value>[^ ]+)(?: +-?\d+)?"
)
_LABEL = re.compile(r'\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPED = {"n": "\n"}


class Sample(NamedTuple):
    """One line: a metric's name, its labels, its value as it stands there."""

    name: str
    labels: dict[str, str]
    value: str


class Family(NamedTuple):
    """One metric to write.

    Args:
        name: Its name.
        kind: `gauge` or `counter`.
        text: What it is.
        samples: Labels and values.
    """

    name: str
    kind: str
    text: str
    samples: Iterable[tuple[Mapping[str, str], float]]


def samples(text: str, prefix: str) -> Iterator[Sample]:
    """The samples whose name begins so; comments and lines of another form are passed over.

    Source: Prometheus text format 0.0.4, https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    for line in text.splitlines():
        if line.startswith(prefix) and (found := _SAMPLE.fullmatch(line.strip())):
            yield Sample(found["name"], _labels(found["labels"] or ""), found["value"])


def _labels(text: str) -> dict[str, str]:
    return {found["name"]: _unescaped(found["value"]) for found in _LABEL.finditer(text)}


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPED.get(found[1], found[1]), text)


def exposition(families: Iterable[Family]) -> str:
    """The families as text."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.text}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        number = _number(float(value))
        yield f"{family.name}{{{told}}} {number}" if told else f"{family.name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() else repr(value)
