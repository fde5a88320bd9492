"""What breaks around the router: full disks. No answer is wrong, no count is lost or doubled."""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import router_fakes as fakes
from hypothesis import example, given
from hypothesis import strategies as st
from router_fakes import World, router, times, units, write_state
from router_live import serving

from jettison.triton.runtime import Installation

DISK_BYTES = 64 << 10


@pytest.fixture(scope="module")
def load() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield fakes.load(patch, fakes.World())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(("umount", "--lazy", str(folder)), check=True)


def fill(folder: Path) -> Path:
    """Nothing more can be written there."""
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 512)
    return path


class Disk:
    """Writes of a file that take what they are told to, and then fail."""

    def __init__(self) -> None:
        self.room = 1 << 30

    def open(self, path: Path, mode: str = "r", **options: Any) -> Any:
        file = self.opened(path, mode, **options)
        if "r" in mode and "+" not in mode:
            return file
        write, disk = file.write, self

        class Small:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, text: Any) -> int:
                part = text[: disk.room]
                disk.room -= len(part)
                write(part)
                file.flush()
                if len(part) < len(text):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return len(part)

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Small()

    opened = staticmethod(Path.open)


@example(rooms=[3], again=5)
@given(
    rooms=st.lists(st.integers(0, 60) | st.integers(100, 400), min_size=1, max_size=6),
    again=st.integers(0, 40),
)
def test_a_disk_that_is_full_at_times_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, load: Callable[[str], ModuleType], rooms: list[int], again: int
) -> None:
    """Five units at a time, with little room; then all units come again, to a router that begins anew."""
    folder, disk, now = tmp_path_factory.mktemp("disk"), Disk(), [0.0]
    event, ledgers = load("router_units").Event, load("router_ledger")
    settings = load("router_settings").Settings("old", "new", "", str(folder), "edge-1", unit_idle_s=0.5)

    def ledger() -> Any:
        return ledgers.Ledger(settings, lambda _: None, clock=lambda: now[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode="r", **options: disk.open(path, mode, **options))
        first, count = ledger(), 0
        for room in rooms:
            for _ in range(5):
                first.add("e1", event(f"unit-{count}", 0))
                count += 1
            first.tick("e1")  # they are open now, and idle at the next one
            for disk.room in (room, 0, 1 << 30)[: 2 + (room % 2)]:
                now[0] += 2
                first.tick("e1")
        disk.room = 1 << 30
        first.close()
        second = ledger()
        for i in range(min(again, count)):
            second.add("e1", event(f"unit-{i}", 0))
        second.tick("e1")
        second.close()
    document = json.loads((folder / "e1.edge-1.json").read_text())
    assert document["nodes"][0]["slices"]["all"]["agree"] == count


def test_what_a_full_disk_left_of_a_disagreement_spoils_no_other_line(
    module: ModuleType, world: World, tmp_path: Path
) -> None:
    world.models["new"] = times(9.0)
    write_state(tmp_path, mode="shadow")
    path = tmp_path / "counters" / "e1.edge-1.disagreements.jsonl"
    with router(module, world, tmp_path) as live:
        live.ask(*units(1))
        live.settle()
        with path.open("a") as torn:
            torn.write('{"request":"q9","uni')
        live.ask(*units(1))
        live.settle()
    first, torn_line, last = path.read_text().splitlines()
    assert json.loads(first)["request"] == json.loads(last)["request"] == "q0"
    assert torn_line == '{"request":"q9","uni'


@pytest.mark.server
@pytest.mark.parametrize("requests", [1, 2])
def test_a_full_disk_delays_counts_and_nothing_else(
    installation: Installation, tmp_path: Path, small_disk: Path, requests: int
) -> None:
    """Also where units have several requests, and so are noted in a file of their own before they count."""
    with serving(
        installation, tmp_path, candidate="three", counter_folder=small_disk,
        unit_max_requests=requests, candidate_in_flight=64,
    ) as live:  # fmt: skip
        live.set(mode="shadow", experiment="e1")

        def ask(first: int, last: int) -> None:
            for i in range(first, last):
                assert [live.ask(f"u{i}") for _ in range(requests)] == [2.0] * requests
                time.sleep(0.005)

        ask(0, 30)
        assert live.wait("e1", "disagree", 30, folder=small_disk)["disagree"] == 30
        filler = fill(small_disk)
        ask(30, 80)
        time.sleep(2.5)
        assert live.counted("e1", folder=small_disk)["disagree"] == 30, "nothing can be written"
        filler.unlink()
        ask(80, 100)
        found = live.wait("e1", "disagree", 100, folder=small_disk)
        assert found == {"offered": 100, "disagree": 100}
        assert live.metric("lost_events") == live.metric("dropped_shadows") == 0
        log = (tmp_path / "log").read_text(errors="replace")
    assert "No space left on device; counting on, and trying again" in log
