"""What pages of docs/ name: values of the chart, verbs with options, codes of checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.core import TyperGroup

from jettison.cli.verbs import app

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "helm" / "jettison" / "values.yaml").read_text())
_ROOT_COMMAND = typer.main.get_command(app)
_ELEMENTS = {
    "variants": ("digest", "path"),
    "targets": ("compute", "image", "replicas", "minMemoryMiB", "nodeSelector"),
    "imageVariants": ("repository", "tag", "digest"),
}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def spans(text: str) -> list[str]:
    """What stands between single backticks, lines joined."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks)]


def named_values(text: str) -> set[str]:
    """Dotted paths that begin with one of the chart's values."""
    found = (re.match(r"([A-Za-z]+(?:\.[A-Za-z*0-9]+)+)", span) for span in spans(text))
    paths = {match[1] for match in found if match and match[1].split(".")[0] in VALUES}
    return {path for path in paths if not path.endswith(".py")}


def is_value(path: str) -> bool:
    """Whether the chart has a value there; what lists and open maps hold goes by their documented keys."""
    first, *rest = path.split(".")
    here: object = VALUES.get(first)
    for name in rest:
        if isinstance(here, Mapping) and name in here:
            here = here[name]
        else:
            return rest[-1] in _ELEMENTS.get(first, ()) and ("*" in rest or len(rest) == 1)
    return True


def options_of(*words: str) -> set[str]:
    """All options of a verb, as `("ab", "serve")`; of every verb without one.

    Raises:
        KeyError: There is no such verb.
    """
    command: object = _ROOT_COMMAND
    for word in words:
        assert isinstance(command, TyperGroup), f"{words} goes deeper than there are verbs"
        command = command.commands[word]
    return set(_options(command))


def _options(command: object) -> Iterator[str]:
    for parameter in command.params:  # type: ignore[attr-defined]
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, TyperGroup):
        for one in command.commands.values():
            yield from _options(one)


def named_options(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Pairs of verb and option, from spans such as `jettison check --verify KEY` and `ab serve --key`."""
    groups = {"ab", "rollout"}
    verbs = set(_ROOT_COMMAND.commands)  # type: ignore[attr-defined]
    for span in spans(text):
        words = span.removeprefix("jettison ").split()
        if words[0] in groups and len(words) > 1:
            verb: tuple[str, ...] = (words[0], words[1])
        elif words[0] in verbs:
            verb = (words[0],)
        elif words[0].startswith("--") or span.startswith("jettison "):
            verb = () if words[0].startswith("--") else (words[0],)
        else:
            continue
        yield from ((verb, word) for word in (*words, "--help") if word.startswith("--"))


def unknown_options(text: str) -> list[str]:
    """Those that their verb does not have.

    Raises:
        KeyError: A verb is none.
    """
    known = {verb: {*options_of(*verb), "--help"} for verb, _ in named_options(text)}
    return [option for verb, option in named_options(text) if option not in known[verb]]
