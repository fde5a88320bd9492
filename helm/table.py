"""Writes the table of values in the chart's README from the comments of values.yaml.

Usage: python helm/table.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parent / "jettison"
BEGIN, END = "<!-- values -->", "<!-- /values -->"
WHOLE = ("workload.resources", "ab.resources", "monitoring.dashboard.labels")
"""Told as one value, since its keys are not ours."""
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z0-9]+):")


class Row(NamedTuple):
    """One value: its path, its default, and what its comment says."""

    path: str
    default: str
    meaning: str


def rows(text: str) -> Iterator[Row]:
    """The values in their order, and before them the sections that have a comment, without a default.

    Raises:
        ValueError: A value has no comment.
    """
    comments = dict(_commented(text))
    told: set[str] = set()
    for path, default in leaves(yaml.safe_load(text)):
        parts = path.split(".")
        for section in (".".join(parts[:depth]) for depth in range(1, len(parts))):
            if section not in told and comments.get(section):
                yield Row(section, "", comments[section])
            told.add(section)
        if not comments.get(path):
            raise ValueError(f"{path}: expected a comment above it, found none. Say what it is for")
        yield Row(path, json.dumps(default), comments[path])


def leaves(values: object, path: str = "") -> Iterator[tuple[str, object]]:
    """All values that are no section, with their paths."""
    if isinstance(values, dict) and values and path not in WHOLE:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, values


def _commented(text: str) -> Iterator[tuple[str, str]]:
    """Every key with the comment above it; indentation by two is the path."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if found := _LINE.match(line):
            path[len(found["indent"]) // 2 :] = [found["key"]]
            yield ".".join(path), " ".join(comment)
        comment = []


def table(text: str) -> str:
    """The values as a table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for row in rows(text):
        meaning = row.meaning.replace("|", "\\|")
        if row.default:
            lines.append(f"| `{row.path}` | `{row.default}` | {meaning} |")
        else:
            lines.append(f"| **{row.path}** | | {meaning} |")
    return "\n".join(lines)


def with_table(readme: str, text: str) -> str:
    """The README with today's table."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table(text)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Writes it."""
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
