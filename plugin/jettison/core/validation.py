"""What pydantic found wrong with given values, in plain words: where, what was expected, what was found."""

from __future__ import annotations

import datetime
import difflib
import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
"""Keys and places in lists that lead to a value, from the outside in."""

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "list_type": "a list",
    "model_type": "a mapping of keys",
    "path_type": "a path",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_type": "text",
    "too_short": "{min_length} or more in the list",
    "tuple_type": "a list",
}
"""What was expected, by pydantic's type of error. Source: pydantic's documentation, "Validation Errors"."""

_CHOICE = "literal_error"
_UNION_MARKS = ("bool", "float", "int", "str")
"""What pydantic appends to the place of a value for each type that it could have been."""
_LONGEST = 80
_DEEPEST = 2


@dataclass(frozen=True)
class Problem:
    """What was expected and found, and what to do."""

    detail: str
    fix: str


class ImpossibleValueError(ValueError):
    """Raised by validators where one sentence is not enough: `problem_of` gives its problem again."""

    def __init__(self, detail: str, *, fix: str) -> None:
        super().__init__(f"{detail}. {fix}")
        self.problem = Problem(detail, fix)


def problem_of(
    error: ValidationError, *, unknown_key_fix: Callable[[Location], str] = lambda _: "Leave it out"
) -> Problem:
    """The first thing that is wrong; an unknown key before all others, since it explains a missing one.

    Args:
        error: What pydantic raised.
        unknown_key_fix: What to do about the unknown key at that location.
    """
    found = error.errors(include_url=False)
    first = next((entry for entry in found if entry["type"] == "extra_forbidden"), found[0])
    location = _location(first)
    place = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        return Problem(f"unknown key {place!r}", unknown_key_fix(location))
    if first["type"] == "missing":
        return Problem(f"the key {place!r} is missing", "Add it")
    if first["type"] == "invalid_key":
        return Problem(f"expected text as a key, found {shown(location[-1])}", "Put it in quotes")
    problem = _value_problem(first, [entry for entry in found if _location(entry) == location])
    return replace(problem, detail=f"{place}: {problem.detail}") if place else problem


def shown(value: object) -> str:
    """The value in words or as a recipe would write it, cut where it is long or deep."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return f"the date {value.isoformat()}"
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxstring, writer.maxother = _DEEPEST, _LONGEST, _LONGEST
    return writer.repr(value)


def refuse_truth(value: object, known: type[BaseModel]) -> object:
    """The value, unless true or false stands in it for a number: pydantic would take `yes` for 1."""
    for key, entry in value.items() if isinstance(value, dict) else ():
        field = known.model_fields.get(str(key))
        if field is None or not isinstance(entry, bool):
            continue
        types = get_args(field.annotation) or (field.annotation,)
        if bool not in types:
            expected = "a number" if {*types} <= {float, int, type(None)} else "a number or text"
            raise ValueError(f"expected {expected} for {key}, found {shown(entry)}")
    return value


def nearest(word: str, known: Collection[str]) -> str:
    """The fix for a word that is none of those: the one that looks like it, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(sorted(known))}"


def known_keys(root: type[BaseModel], section: Location) -> tuple[str, ...]:
    """The keys that may stand in that section of the root's document, by the types of its fields."""
    found: list[type[BaseModel]] = [root]
    for part in section:
        found = [inner for model in found for inner in _inner(model, part)]
    return tuple(dict.fromkeys(key for model in found for key in model.model_fields))


def nearest_key(root: type[BaseModel], location: Location) -> str:
    """What to do about an unknown key: the known one of its section that looks like it, or all of them."""
    *section, key = location
    known = known_keys(root, tuple(section))
    return nearest(str(key), known) if known else "Leave it out"


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Every model that a type names, however deep in unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def _inner(model: type[BaseModel], part: int | str) -> list[type[BaseModel]]:
    """The models below a key; places in a list and names in a mapping stay with the model of its elements."""
    field = model.model_fields.get(str(part))
    if field is not None:
        return list(models_in(field.annotation))
    return [model]


def _location(entry: ErrorDetails) -> Location:
    """Where it is, without the marks that pydantic adds for unions and validators."""
    parts = [part for part in entry["loc"] if not re.search(r"^function-|\[.*\]$", str(part))]
    if entry["type"] not in ("extra_forbidden", "missing") and parts[-1:] and parts[-1] in _UNION_MARKS:
        parts.pop()
    return tuple(parts)


def _value_problem(first: ErrorDetails, alternatives: Sequence[ErrorDetails]) -> Problem:
    """What is wrong with a value, by all that it could have been."""
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, ImpossibleValueError):
        return raised.problem
    expected = _expected(alternatives)
    if expected is None:
        return Problem(first["msg"].removeprefix("Value error, ").rstrip("."), "Correct it")
    fix = _fix(first, _choices(alternatives))
    return Problem(f"expected {expected}, found {_found(first)}", fix)


def _expected(entries: Sequence[ErrorDetails]) -> str | None:
    """What any alternative of a value would have taken, or None where pydantic's type is not known here."""
    choices = _choices(entries)
    phrases = [f"one of {', '.join(choices)}"] if choices else []
    for entry in entries:
        phrase = _EXPECTED.get(entry["type"])
        if phrase is None and entry["type"] != _CHOICE:
            return None
        if phrase is not None:
            phrases.append(phrase.format(**entry.get("ctx", {})))
    return ", or ".join(dict.fromkeys(phrases))


def _choices(entries: Sequence[ErrorDetails]) -> list[str]:
    expected = (entry.get("ctx", {})["expected"] for entry in entries if entry["type"] == _CHOICE)
    return [text or number for line in expected for text, number in re.findall(r"'([^']*)'|\b(\d+)\b", line)]


def _found(entry: ErrorDetails) -> str:
    if entry["type"] == "too_short":
        return str(entry.get("ctx", {})["actual_length"])
    return shown(entry["input"])


def _fix(entry: ErrorDetails, choices: Sequence[str]) -> str:
    if choices:
        near = difflib.get_close_matches(str(entry["input"]), choices, n=1)
        return f"Did you mean {near[0]!r}?" if near else "Choose one of them"
    if entry["type"] == "string_type" and isinstance(entry["input"], int | float | datetime.date):
        return "Put it in quotes if it is meant as text"
    return "Correct it"
