"""Real English sentences out of packages: short questions and answers, and longer passages of prose.

A sentence encoder is served with both, a query and the texts that it is compared with, so both are here,
in turn. The questions are the ChatterBot corpus, the passages are paragraphs from the docstrings of two
libraries. Calibration and evaluation share no topic file, no library and no sentence.
"""

from __future__ import annotations

import ast
import random
import re
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import yaml
from wheels import Wheel

DIALOGUES = Wheel("chatterbot_corpus", "1.3.3")
CALIBRATION_TOPICS = (
    "ai",
    "computers",
    "conversations",
    "emotion",
    "food",
    "humor",
    "money",
    "psychology",
)
EVALUATION_TOPICS = ("history", "literature", "movies", "politics", "science", "sports", "trivia")

CALIBRATION_LIBRARY = Wheel("scikit_image", "0.25.2")
EVALUATION_LIBRARY = Wheel("scikit_learn", "1.7.2")
PASSAGE_WORDS = (12, 80)

_ROLE = re.compile(r":[a-z:]+:`~?([^`<]*?)(?: <[^`]*>)?`")
_HEADING = re.compile(r"^[A-Z][\w ]*\n-{3,}\n")
_CITATION = re.compile(r" *\[\w+\]_,?")
_NOT_PROSE = re.compile(r">>>|::|\.\. |:math:|\$|^[-=*+]|^\[|\||[{}\\]|_{2}| : ")


def calibration_texts(cache: Path, count: int) -> list[str]:
    """`count` texts, questions and passages in turn, in an order that does not depend on `count`."""
    return _in_turn(
        dialogue_lines(cache, CALIBRATION_TOPICS), passages(cache, CALIBRATION_LIBRARY), count=count, seed=1
    )


def evaluation_texts(cache: Path, count: int) -> list[str]:
    """`count` texts like those for calibration; any sentence that stands there too is left out."""
    seen = {*dialogue_lines(cache, CALIBRATION_TOPICS), *passages(cache, CALIBRATION_LIBRARY)}
    lines = [line for line in dialogue_lines(cache, EVALUATION_TOPICS) if line not in seen]
    prose = [text for text in passages(cache, EVALUATION_LIBRARY) if text not in seen]
    return _in_turn(lines, prose, count=count, seed=2)


def dialogue_lines(cache: Path, topics: Sequence[str]) -> list[str]:
    """Each different line of at least three words, in the order of the files."""
    lines: list[str] = []
    for topic in topics:
        content = DIALOGUES.read(cache, f"chatterbot_corpus/data/english/{topic}.yml")
        lines += chain.from_iterable(yaml.safe_load(content)["conversations"])
    lines = [" ".join(line.split()) for line in lines]
    return list(dict.fromkeys(line for line in lines if len(line.split()) >= 3))


def passages(cache: Path, library: Wheel) -> list[str]:
    """Each different paragraph of prose in the docstrings of a library, in the order of its files."""
    found: list[str] = []
    with zipfile.ZipFile(library.fetch(cache)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".py") and "/tests/" not in name:
                found += _prose(archive.read(name).decode())
    return list(dict.fromkeys(found))


def _prose(source: str) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            for block in (ast.get_docstring(node) or "").split("\n\n"):
                paragraph = _HEADING.sub("", block)
                text = _plain(paragraph)
                if _is_prose(paragraph, text):
                    yield text


def _plain(paragraph: str) -> str:
    """The paragraph on one line, without reStructuredText's roles, citations and backquotes."""
    text = _CITATION.sub("", _ROLE.sub(r"\1", " ".join(paragraph.split())))
    return text.replace("`", "").strip()


def _is_prose(paragraph: str, text: str) -> bool:
    """Whether it is flush left, begins like a sentence, ends like one and holds no markup."""
    shortest, longest = PASSAGE_WORDS
    return (
        shortest <= len(text.split()) <= longest
        and "\n " not in paragraph
        and text[0].isupper()
        and text[-1] == "."
        and _NOT_PROSE.search(text) is None
    )


def _in_turn(lines: list[str], prose: list[str], *, count: int, seed: int) -> list[str]:
    """Lines and passages, each in random order, alternating.

    Raises:
        ValueError: There are not enough of either.
    """
    generator = random.Random(seed)
    generator.shuffle(lines)
    generator.shuffle(prose)
    texts = list(chain.from_iterable(zip(lines, prose, strict=False)))
    if len(texts) < count:
        raise ValueError(
            f"{len(lines)} lines and {len(prose)} passages are too few for {count} texts in turn"
        )
    return texts[:count]
