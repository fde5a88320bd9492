"""Files and folders that are whole or not there, whatever happens while they are written."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from jettison.core.files import sha256_of, staged_folder, write_bytes


class DiskFullError(OSError):
    """What a full disk says."""


def fail(*_: object) -> None:
    raise DiskFullError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_digest_covers_files_larger_than_one_piece(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_file_is_replaced_as_a_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old and longer", b"new"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["file"]


def test_one_who_reads_the_old_file_keeps_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old content")
    with path.open("rb") as reader:
        begin = reader.read(3)
        write_bytes(path, b"NEW CONTENT")
        assert begin + reader.read() == b"old content"


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(DiskFullError):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_appears_with_all_its_files_at_once(tmp_path: Path) -> None:
    target = tmp_path / "made" / "on" / "the" / "way"
    with staged_folder(target) as stage:
        (stage / "inner").mkdir()
        (stage / "inner" / "file").write_text("content")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "content"
    assert names(target.parent) == ["way"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("interruption", [DiskFullError, KeyboardInterrupt])
def test_an_interrupted_folder_never_was_there(tmp_path: Path, interruption: type[BaseException]) -> None:
    def interrupt(stage: Path) -> None:
        (stage / "file").write_text("half")
        raise interruption

    with pytest.raises(interruption), staged_folder(tmp_path / "target") as stage:
        interrupt(stage)
    assert names(tmp_path) == []


def test_a_folder_that_stands_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("kept")
    with pytest.raises(OSError, match="not empty"), staged_folder(target) as stage:
        (stage / "other").write_text("new")
    assert names(target) == ["mine"]
    assert names(tmp_path) == ["target"]


def test_every_file_of_a_folder_is_durable_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    appeared: list[bool] = []
    real = os.fsync

    def watched(handle: int) -> None:
        appeared.append(target.exists())
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with staged_folder(target) as stage:
        (stage / "first").write_text("1")
        (stage / "second").write_text("2")
    assert appeared == [False, False, False, True]  # two files and the stage, then the folder that holds it
