"""Publishing over what others did by hand: their versions and configurations are kept, and told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import served_models as zoo
from releases import factor_of, release_of, servable

from jettison.triton.publish import publish
from jettison.triton.repository import model_folder


def by_hand(root: Path, work: Path, versions: tuple[int, ...], config: str | None = None) -> Path:
    """A model folder that someone made without Jettison."""
    for version in versions:
        zoo.save(zoo.affine(float(version))[0], work / "by-hand.onnx")
        (root / "affine" / str(version)).mkdir(parents=True)
        shutil.copyfile(work / "by-hand.onnx", root / "affine" / str(version) / "model.onnx")
    if config is not None:
        (root / "affine" / "config.pbtxt").write_text(config)
    return root / "affine"


@pytest.mark.parametrize(
    ("versions", "note"),
    [
        ((1, 2, 7), "versions 1, 2 and 7 were not written by Jettison: kept"),
        ((3,), "version 3 was not written by Jettison: kept"),
    ],
)
def test_versions_that_jettison_did_not_write_are_never_deleted(
    tmp_path: Path, versions: tuple[int, ...], note: str
) -> None:
    root = tmp_path / "repository"
    folder = by_hand(root, tmp_path, versions)
    next_version = max(versions) + 1
    done = publish(release_of(tmp_path, factor=20.0), root, keep_versions=1)
    assert (done.version, done.retired, done.notes) == (next_version, (), (note,))
    done = publish(release_of(tmp_path, factor=30.0), root, keep_versions=1)
    assert (done.version, done.retired, done.notes) == (next_version + 1, (next_version,), (note,))
    assert {version: factor_of(folder / str(version)) for version in versions} == {
        version: float(version) for version in versions
    }
    assert servable(root) == {"affine": [30.0]}


BY_HAND = """name: "affine"
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
instance_group { kind: KIND_CPU count: 2 }
"""


def backup_note(path: Path) -> str:
    return f"config.pbtxt differed from what Jettison writes; the old one is in {path}"


def test_a_configuration_written_by_hand_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    folder = by_hand(root, tmp_path, (1,), BY_HAND)
    done = publish(release_of(tmp_path, factor=2.5), root)
    backup = folder / "config.pbtxt.before-2"
    assert backup_note(backup) in done.notes
    assert backup.read_text() == BY_HAND
    assert model_folder(root, "affine").config().max_batch_size == 8
    done = publish(release_of(tmp_path, factor=3.5), root)
    assert done.notes == ("version 1 was not written by Jettison: kept",)
    assert sorted(path.name for path in folder.glob("config*")) == ["config.pbtxt", "config.pbtxt.before-2"]


@pytest.mark.parametrize("old", ["max_batch_size: 8", "highest so far is 1"])
def test_an_edit_of_a_published_configuration_is_kept_beside_the_new_one(tmp_path: Path, old: str) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path), root)
    config = root / "affine" / "config.pbtxt"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, old[:-1] + "4"))
    edited = config.read_text()
    done = publish(release_of(tmp_path, factor=3.0), root)
    backup = root / "affine" / f"config.pbtxt.before-{done.version}"
    assert done.notes == (backup_note(backup),)
    assert backup.read_text() == edited


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_configuration_without_a_digest_is_compared_with_what_would_be_written(
    tmp_path: Path, *, is_edited: bool
) -> None:
    """Earlier versions of Jettison left no digest in it."""
    root = tmp_path / "repository"
    publish(release_of(tmp_path), root)
    config = root / "affine" / "config.pbtxt"
    lines = [line for line in config.read_text().splitlines(keepends=True) if "SHA-256" not in line]
    assert len(lines) == len(config.read_text().splitlines()) - 1
    config.write_text("".join(lines) + ("parameters { }\n" if is_edited else ""))
    done = publish(release_of(tmp_path, factor=3.0), root)
    backup = root / "affine" / "config.pbtxt.before-2"
    assert done.notes == ((backup_note(backup),) if is_edited else ())
    assert backup.exists() == is_edited


def test_the_same_files_published_again_make_a_version_and_a_note(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    first, again, other, back = (
        publish(release_of(tmp_path, factor=factor), root) for factor in (1.0, 1.0, 3.0, 1.0)
    )
    assert (first.version, first.notes) == (1, ())
    assert (again.version, again.notes) == (2, ("version 2 holds the same files as version 1",))
    assert (other.version, other.notes) == (3, ())
    assert (back.version, back.notes) == (4, ("version 4 holds the same files as version 2",))


def test_a_torn_manifest_of_an_old_version_does_not_stop_a_publish(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for factor in (1.0, 2.0):
        publish(release_of(tmp_path, factor=factor), root)
    (root / "affine" / "1" / "manifest.json").write_text("{")
    done = publish(release_of(tmp_path, factor=3.0), root)
    assert (done.version, done.retired, done.notes) == (3, (1,), ())
