"""Memory handed back: what is out of reach goes, and a C library that cannot is left alone."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest

from jettison.core import memory
from jettison.core.memory import release, trim


class Knot:
    """Refers to itself, as graphs do, so that only the collector frees it."""

    def __init__(self) -> None:
        self.self = self


def test_what_is_out_of_reach_is_collected() -> None:
    gc.disable()
    try:
        knot = Knot()
        found = weakref.ref(knot)
        del knot
        assert found() is not None
        release()
        assert found() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("call", [release, trim])
def test_a_c_library_that_keeps_its_memory_is_left_alone(call, monkeypatch) -> None:
    class OtherLibrary:
        pass

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: OtherLibrary())
    call()


def test_free_memory_is_handed_back_where_the_library_can(monkeypatch) -> None:
    asked = []

    class Library:
        @staticmethod
        def malloc_trim(padding: int) -> None:
            asked.append(padding)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    trim()
    assert asked == [0]
