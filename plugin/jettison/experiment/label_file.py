"""Labels from a CSV or Parquet file: of which request, and what was right or which answer was better.

The file has a column `request` and either `label`, the class that is right (of a batch one a row, with `;`
between), or `score`: better, same, worse, or a number from -1 (the candidate is worse) to 1.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from jettison.core.errors import InputError, MissingError
from jettison.core.extras import install_command
from jettison.core.files import read_bounded

LARGEST_BYTES = 256 << 20
"""Chosen: ten million requests; more come in several files."""

WORDS = {"better": 1.0, "same": 0.0, "worse": -1.0}
_NAMES = ("request", "request_id")

Kind = Literal["label", "score"]


class Label(NamedTuple):
    """What was said of one request: its right classes, or a score."""

    kind: Kind
    text: str

    @property
    def classes(self) -> tuple[int, ...]:
        """The right class of each row."""
        return tuple(int(part) for part in self.text.split(";"))

    @property
    def score(self) -> float:
        """What was said in numbers."""
        return WORDS[self.text] if self.text in WORDS else float(self.text)


def read_labels(path: Path) -> dict[str, Label]:
    """The labels by request.

    Raises:
        InputError: No such file; a column is missing; a value is none; one request has two labels.
        MissingError: It is Parquet, and pyarrow is not installed.
    """
    what = f"labels {path}"
    content = read_bounded(
        path, what, most=LARGEST_BYTES, missing="Give the path of a CSV or Parquet file", fix="Split it"
    )
    rows = _parquet(content, what) if content.startswith(b"PAR1") else _csv(content, what)
    found: dict[str, Label] = {}
    for place, request, label in rows:
        known = found.setdefault(request, label)
        if known != label:
            detail = (
                f"{place}: expected one label of request {request!r}, found {known.text} and {label.text}"
            )
            raise InputError(what, detail=detail, fix="Keep the right one")
    return found


def _csv(content: bytes, what: str) -> Iterator[tuple[str, str, Label]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fix = "Save it as CSV in UTF-8, or as Parquet"
        raise InputError(what, detail=f"expected text, found {error}", fix=fix) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    yield from _rows(columns, (dict(row) for row in reader), what, first=2)


def _parquet(content: bytes, what: str) -> Iterator[tuple[str, str, Label]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        fix = f"Run: {install_command('parquet')}; or save it as CSV"
        raise MissingError(what, detail=f"it is Parquet, and {error}", fix=fix) from error
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(what, detail=f"no whole Parquet file: {error}", fix="Write it again") from error
    columns = [str(name) for name in table.column_names]
    wanted = [name for name in columns if name in (*_NAMES, "label", "score")]
    yield from _rows(columns, table.select(wanted).to_pylist(), what, first=1)


def _rows(
    columns: list[str], rows: Iterable[Mapping[str, object]], what: str, *, first: int
) -> Iterator[tuple[str, str, Label]]:
    name = next((name for name in _NAMES if name in columns), None)
    kinds: list[Kind] = [kind for kind in ("label", "score") if kind in columns]
    if name is None or len(kinds) != 1:
        raise InputError(
            what,
            detail=f"expected the columns request and either label or score, found {columns}",
            fix="Name the columns in the first line",
        )
    for number, row in enumerate(rows, first):
        request, place = str(row.get(name) or "").strip(), f"row {number}"
        if not request:
            raise InputError(what, detail=f"{place}: it names no request", fix="Leave the row out")
        yield place, request, _label(kinds[0], row.get(kinds[0]), f"{what}, {place}")


def _label(kind: Kind, value: object, what: str) -> Label:
    """The label in its one plain form, so that 3, 3.0 and "3 " are the same."""
    text = "" if value is None else str(value).strip()
    if kind == "score":
        return Label(kind, _plain_score(text, what))
    try:
        return Label(kind, ";".join(str(_whole(part)) for part in text.split(";")))
    except (ValueError, OverflowError) as error:
        fix = "Give the number of the right class, or a column score with better, same or worse"
        raise InputError(
            what, detail=f"expected a class as a whole number, found {text!r:.60}", fix=fix
        ) from error


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _plain_score(text: str, what: str) -> str:
    if text.lower() in WORDS:
        return text.lower()
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not -1 <= score <= 1:
        fix = "Say which answer was right"
        detail = f"expected better, same, worse or a number from -1 to 1, found {text!r:.60}"
        raise InputError(what, detail=detail, fix=fix)
    return next((word for word, value in WORDS.items() if value == score), repr(score))
