"""Publishing: versions only grow, and a death at any instruction leaves the old version servable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import served_models as zoo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from releases import release_of, servable
from served_models import CREATED

from jettison.core.artifacts import Lineage
from jettison.core.errors import RepositoryError
from jettison.triton import publish as publishing
from jettison.triton.manifest import Evidence, golden_differences, golden_of, read_manifest
from jettison.triton.publish import Release, publish
from jettison.triton.repository import model_folder, model_folders
from jettison.triton.serving import config_of


def test_first_publish_writes_a_whole_model_into_a_root_that_did_not_exist(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "repository"
    done = publish(release_of(tmp_path), root)
    assert (done.model, done.version, done.path, done.retired) == ("affine", 1, root / "affine" / "1", ())
    assert sorted(path.name for path in done.path.iterdir()) == ["manifest.json", "model.onnx"]
    assert servable(root) == {"affine": [2.0]}
    assert sorted(path.name for path in root.parent.iterdir()) == ["repository"], "the stage is gone"
    assert (root / "affine" / "config.pbtxt").stat().st_mode & 0o444 == 0o444


def test_versions_grow_and_the_oldest_beyond_keep_are_retired(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for factor in (1.0, 2.0, 3.0):
        done = publish(release_of(tmp_path, factor=factor), root, keep_versions=2)
    assert (done.version, done.retired) == (3, (1,))
    assert servable(root) == {"affine": [2.0, 3.0]}
    done = publish(release_of(tmp_path, factor=4.0), root, keep_versions=1)
    assert (done.version, done.retired) == (4, (2, 3))
    assert servable(root) == {"affine": [4.0]}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=5))
def test_a_number_is_never_used_twice(tmp_path: Path, steps: list[tuple[int, bool]]) -> None:
    """Whatever is kept, and though someone deletes the newest version by hand."""
    root = tmp_path / "repository"
    shutil.rmtree(root, ignore_errors=True)
    used: list[int] = []
    for keep, deletes in steps:
        done = publish(release_of(tmp_path), root, keep_versions=keep)
        used.append(done.version)
        if deletes:
            shutil.rmtree(done.path)
    assert used == sorted(set(used))


def test_what_a_dead_publish_left_behind_is_not_listed_and_goes_with_the_next(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path, factor=1.0), root)
    shutil.copytree(root / "affine" / "1", root / "affine" / "2")
    done = publish(release_of(tmp_path, factor=3.0), root)
    assert (done.version, done.retired) == (3, (2,))
    assert servable(root) == {"affine": [1.0, 3.0]}


CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.rmtree"}


def publish_and_die(release: Release, root: Path, nth: int) -> bool:
    """Publish in a process that ends before its n-th change to the file system; whether it got to the end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[1], str) and bool(set(arguments[1]) & set("wax+"))
        if event in CHANGES or writes:
            seen += 1
            if seen == nth:
                os._exit(9)

    try:
        sys.addaudithook(hook)
        publish(release, root, keep_versions=1)
    except BaseException:  # noqa: BLE001 (a forked child must not return into pytest)
        os._exit(8)
    os._exit(0)


@pytest.mark.parametrize("first", [True, False])
def test_a_publish_killed_at_any_step_leaves_the_old_version_servable(tmp_path: Path, *, first: bool) -> None:
    """The process ends without any cleaning up before its n-th change to the file system, for every n."""
    outcomes = []
    for nth in range(1, 100):
        root, work = tmp_path / f"{nth}" / "repository", tmp_path / f"{nth}"
        work.mkdir()
        publish(release_of(work, name="other", factor=7.0), root)
        if not first:
            publish(release_of(work, factor=1.0), root)
        ended = publish_and_die(release_of(work, factor=2.0), root, nth)
        found = servable(root)
        assert found.pop("other") == [7.0]
        outcomes.append(found.get("affine"))
        again = publish(release_of(work, factor=3.0), root, keep_versions=1)
        assert servable(root)["affine"] == [3.0]
        assert again.version > (1 if not first else 0)
        left = sorted(path.name for path in root.parent.iterdir() if path.name.startswith("."))
        assert left == [], "what the dead publisher had staged is gone"
        if ended:
            break
    old, new = (None if first else [1.0]), [2.0]
    assert outcomes[0] == old
    assert outcomes[-1] == new
    assert outcomes == [old] * outcomes.count(old) + [new] * outcomes.count(new), (
        "old until new, nothing between"
    )
    assert len(outcomes) > 5


def test_an_error_on_the_way_removes_the_stage_and_keeps_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path, factor=1.0), root)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(publishing.shutil, "copyfile", full)
    with pytest.raises(RepositoryError, match=r"the disk is full \(.*model\.onnx\)\. Free some space"):
        publish(release_of(tmp_path, factor=2.0), root)
    assert servable(root) == {"affine": [1.0]}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["repository"]


def test_a_version_is_published_though_older_ones_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path, factor=1.0), root)

    def read_only(*_: object) -> tuple[int, ...]:
        raise OSError(30, "Read-only file system", "affine/1")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "set_aside", read_only)
        done = publish(release_of(tmp_path, factor=2.0), root, keep_versions=1)
    assert (done.version, done.retired) == (2, ())
    assert done.notes == (
        "older versions could not be removed: Read-only file system (affine/1); "
        "the next publish removes them",
    )
    assert servable(root) == {"affine": [2.0]}
    assert publish(release_of(tmp_path, factor=3.0), root, keep_versions=1).retired == (1, 2)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB of its own, where the user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_is_told_and_leaves_the_old_version(tmp_path: Path, tiny_disk: Path) -> None:
    root = tiny_disk / "repository"
    publish(release_of(tmp_path, factor=1.0), root)
    (tmp_path / "big").write_bytes(bytes(100_000))
    big = release_of(tmp_path, factor=2.0)
    with pytest.raises(RepositoryError, match="the disk is full"):
        publish(Release(big.config, {**big.files, "model.data": tmp_path / "big"}, CREATED), root)
    assert servable(root) == {"affine": [1.0]}


def test_a_root_that_is_a_mount_point_is_told(tmp_path: Path, tiny_disk: Path) -> None:
    with pytest.raises(RepositoryError, match=r"different file systems.*Use a folder below it"):
        publish(release_of(tmp_path), tiny_disk)
    assert list(tiny_disk.iterdir()) == []
    assert not (tiny_disk.parent / ".disk.staging").exists()


def test_a_read_only_repository_is_told(tmp_path: Path, tiny_disk: Path) -> None:
    root = tiny_disk / "repository"
    publish(release_of(tmp_path), root)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(RepositoryError, match="the file system is read-only"):
        publish(release_of(tmp_path), root)


def test_a_root_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            RepositoryError, match=r"expected a folder, found a file|a part of the path is a file"
        ):
            publish(release_of(tmp_path), root)


def test_another_signature_under_the_same_name_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path), root)
    model, inputs, outputs = zoo.total()
    other = Release(
        config_of("affine", inputs, outputs), {"model.onnx": zoo.save(model, tmp_path / "t")}, CREATED
    )
    with pytest.raises(RepositoryError) as caught:
        publish(other, root)
    assert "its published versions have input x TYPE_FP32 ?x3, output y TYPE_FP32 ?x3" in str(caught.value)
    assert "the new one has input x TYPE_FP32 4, output y TYPE_FP32 1" in str(caught.value)
    assert servable(root) == {"affine": [2.0]}


def test_a_hand_written_model_of_the_same_name_is_compared_by_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "affine"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        'name: "affine" input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }'
    )
    with pytest.raises(RepositoryError, match=r"the new one has input x TYPE_FP32 \?x3, output y"):
        publish(release_of(tmp_path), tmp_path / "repository")


@pytest.mark.parametrize("stray", ["3.tmp", "2_bak", "007", "0"])
def test_strays_that_triton_reads_as_versions_stop_the_publish(tmp_path: Path, stray: str) -> None:
    root = tmp_path / "repository"
    publish(release_of(tmp_path), root)
    (root / "affine" / stray).mkdir()
    with pytest.raises(
        RepositoryError, match=f"'{stray}' is no version folder, but its digits make Triton read it"
    ):
        publish(release_of(tmp_path), root)


def test_files_must_be_there_and_bear_safe_names(tmp_path: Path) -> None:
    root, good = tmp_path / "repository", release_of(tmp_path)
    path = good.files["model.onnx"]
    for files, problem in (
        ({}, r"names \['model.onnx'\], found files \[\]"),
        ({"other.onnx": path}, r"names \['model.onnx'\], found files \['other.onnx'\]"),
        ({"model.onnx": path, "manifest.json": path}, "none called manifest.json"),
        ({"model.onnx": path, "../x": path}, r"file name '\.\./x'"),
        ({"model.onnx": tmp_path / "absent"}, "there is no such file"),
    ):
        with pytest.raises(RepositoryError, match=problem):
            publish(Release(good.config, files, CREATED), root)
    with pytest.raises(RepositoryError, match="expected to keep 1 version or more, found 0"):
        publish(good, root, keep_versions=0)
    assert not root.exists()


def test_manifest_tells_what_the_version_is_made_of_and_where_it_comes_from(tmp_path: Path) -> None:
    good = release_of(tmp_path)
    outputs = {"y": np.float32([[1, -2, 3]])}
    release = Release(
        good.config,
        good.files,
        CREATED,
        lineage=Lineage(step="quantize", settings="{}", parents=("a" * 64,), versions={"jettison": "0"}),
        golden=golden_of(outputs, seed=7, batch=1),
        evidence=Evidence(target="cpu", metric="top1", score=0.9, speedup=1.5),
    )
    done = publish(release, tmp_path / "repository")
    manifest = read_manifest(done.path)
    assert manifest is not None
    assert (manifest.model, manifest.version, manifest.created) == ("affine", 1, CREATED)
    assert (manifest.lineage, manifest.golden, manifest.evidence) == (
        release.lineage,
        release.golden,
        release.evidence,
    )
    assert manifest.changed_files(done.path) == []
    (done.path / "model.onnx").write_bytes(b"replaced in place")
    assert manifest.changed_files(done.path) == ["model.onnx"]
    (done.path / "manifest.json").write_text("{}")
    with pytest.raises(RepositoryError, match="it is no manifest of Jettison: 6 fields do not fit"):
        read_manifest(done.path)


def test_golden_inference_matches_its_own_and_close_outputs_and_no_others() -> None:
    y = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    text = np.array([["cat"]], dtype=np.object_)
    golden = golden_of({"y": y, "label": text}, seed=0, batch=4)
    assert golden_differences(golden, {"y": y, "label": text}) == []
    assert golden_differences(golden, {"y": y * 1.001, "label": text}) == []
    assert "output 'y': expected mean" in golden_differences(golden, {"y": y * 1.1, "label": text})[0]
    assert (
        "expected shape (4, 10), found (2, 10)" in golden_differences(golden, {"y": y[:2], "label": text})[0]
    )
    assert golden_differences(golden, {"y": y, "label": np.array([["dog"]], dtype=np.object_)}) != []
    assert "expected outputs ['label', 'y'], found ['y']" in golden_differences(golden, {"y": y})[0]


def test_a_golden_with_masked_logits_is_written_and_read(tmp_path: Path) -> None:
    """JSON knows no infinity: its mean would come back as null, and block every later publish."""
    root, good = tmp_path / "repository", release_of(tmp_path)
    outputs = {"y": np.float32([[1, -np.inf, np.nan]]), "z": np.full((1, 2), np.inf, np.float32)}
    golden = golden_of(outputs, seed=7, batch=1)
    for _ in range(2):
        done = publish(Release(good.config, good.files, CREATED, golden=golden), root)
    manifest = read_manifest(done.path)
    assert manifest is not None
    assert manifest.golden == golden
    assert golden_differences(golden, outputs) == []


def test_publishers_of_one_model_at_the_same_time_each_get_a_version(tmp_path: Path) -> None:
    root, count = tmp_path / "repository", 6
    works = [tmp_path / f"{number}" for number in range(count)]
    for number, work in enumerate(works):
        work.mkdir()
        release_of(work, factor=float(number))
    children = []
    for number, work in enumerate(works):
        child = os.fork()
        if not child:
            status = 8
            try:
                publish(release_of(work, factor=float(number)), root, keep_versions=2)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count
    assert model_folder(root, "affine").versions() == [count - 1, count]
    assert len(servable(root)["affine"]) == 2


def test_models_of_a_repository_are_listed_by_name(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    with pytest.raises(RepositoryError, match=r"there is no such folder.*jettison publish"):
        model_folders(root)
    for name in ("b", "a"):
        publish(release_of(tmp_path, name=name), root)
    assert [folder.name for folder in model_folders(root)] == ["a", "b"]
    assert model_folder(root, "a").highest_version() == 1
    with pytest.raises(RepositoryError, match=r"config\.pbtxt does not exist"):
        model_folder(root, "c").config()
