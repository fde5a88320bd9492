"""A short soak of the router in mode `shadow`: what benchmarks/soak.py does for half an hour."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's module, which is no part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("soak")


@pytest.mark.server
@pytest.mark.slow
def test_a_minute_under_sixteen_clients_gives_no_error_and_bounded_memory(soak: Any, tmp_path: Path) -> None:
    """In so short a time regions still grow to what 16 clients need, so the bounds are sizes and no growth.

    Both instances have about 130 MB and all regions about 270 MB after some minutes; a leak of one answer of
    4 MB in three would be beyond the bounds after 300 of them.
    """
    found = soak.soak(tmp_path, minutes=0.9, clients=16)
    assert (found["errors"], found["first_errors"]) == (0, [])
    assert all(count > 20 for count in found["answers"].values())
    assert found["router_processes"] == [2]
    assert found["router_memory"]["most_mb"] < 300
    assert found["shared_memory"]["most_mb"] < 500
    assert found["router"]["lost_events"] == 0
    counted = found["counted"]
    assert counted["offered"] == counted["agree"] > 20


@pytest.mark.parametrize(
    ("last", "error", "is_good"),
    [((100, 100), "", True), ((104, 96), "", True), ((106, 100), "", False), ((100, 106), "", False),
     ((100, 100), "8 KB: a wrong answer", False)],
)  # fmt: skip
def test_growth_and_errors_are_told(soak: Any, last: tuple[int, int], error: str, is_good: bool) -> None:
    pairs = (100, 100), (100, 100), (100, 100), last
    looks = [soak.Look(100.0 + i, router, 2, shared) for i, (router, shared) in enumerate(pairs)]
    load = soak.Load()
    load.add("8 KB", error)
    found = soak.report(load, looks, 1.0)
    assert found["is_good"] is is_good


def test_it_explains_itself() -> None:
    command = (sys.executable, str(BENCHMARKS / "soak.py"), "--help")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--minutes" in done.stdout
