"""How long work says how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

Reporter = Callable[[str], Progress]
"""Gives the progress of a piece of work by its title."""


def silent(title: str) -> Progress:
    """A reporter that says nothing."""
    del title
    return _ignore


def _ignore(done: int, total: int) -> None:
    del done, total
