"""YAML in which every key of a mapping stands once, read without running any code.

YAML itself forbids a repeated key, but PyYAML silently takes the last one, so that a setting further up
has no effect and nobody is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jettison.core.errors import InputError, RecipeError
from jettison.core.files import read_bounded

_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: its own, ValueError for impossible dates and text, RecursionError for deep nesting."""


class _RepeatedKey(yaml.MarkedYAMLError):
    """A key that stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """Checks keys as they are written, before merge keys (`<<`) may rightly override one another."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping, unless one of its keys is there already."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        written = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        lines: dict[tuple[str, str], int] = {}
        for key in written:
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                both = f"lines {lines[key.tag, key.value]} and {line}"
                raise _RepeatedKey(problem=f"the key {key.value!r} stands twice, in {both}")
            lines[key.tag, key.value] = line
        return node


def load_yaml(content: str | bytes, *, what: str, fix: str) -> Any:
    """The document in that text; bytes are UTF-8 or what their byte order mark says.

    Args:
        content: The text.
        what: Names it in errors.
        fix: What to do about text that is no YAML.

    Raises:
        RecipeError: It is no YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader
    except _RepeatedKey as error:
        raise RecipeError(what, detail=str(error.problem), fix="Keep one of the two") from error
    except _NOT_YAML as error:
        raise RecipeError(what, detail=f"not YAML: {error}", fix=fix) from error


def read_mapping(path: Path, what: str, *, most: int, form: str, start: str) -> dict[Any, Any]:
    """The mapping of keys in a YAML file of at most so many bytes.

    Args:
        path: The file.
        what: Names it in errors.
        most: How many bytes it may have.
        form: What to give where it is too large, as `Give a plan`.
        start: What to write where it is no mapping, as "Start with `name:`".

    Raises:
        InputError: No such file; too large; no YAML; a key that stands twice; no mapping.
    """
    content = read_bounded(path, what, most=most, missing="Give the path of a YAML file", fix=form)
    document = load_yaml(content, what=what, fix="Correct the syntax")
    if not isinstance(document, dict):
        raise InputError(what, detail="expected a mapping of keys", fix=start)
    return document
