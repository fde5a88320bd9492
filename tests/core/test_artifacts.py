"""Lineage and the store: a step with the same lineage runs once, any other runs again."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from jettison.core.artifacts import (
    DIGESTS_FILE,
    LINEAGE_FILE,
    Lineage,
    Store,
    arrays_digest,
    lineage_of,
    version_of,
)


class Settings(BaseModel):
    bits: int = 8


def lineage(**changes: object) -> Lineage:
    fields: dict[str, object] = {
        "settings": "bits=8",
        "parents": ("a", "b"),
        "libraries": ("numpy",),
        **changes,
    }
    return lineage_of(str(fields.pop("step", "quantize")), **fields)  # type: ignore[arg-type]


def test_equal_work_has_an_equal_digest() -> None:
    assert lineage().digest == lineage().digest
    assert lineage(libraries=("numpy", "onnx")).digest == lineage(libraries=("onnx", "numpy")).digest


def test_what_a_killed_process_left_half_made_is_swept_and_what_another_makes_stays(tmp_path: Path) -> None:
    store, killed = Store(tmp_path / "steps"), "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    code = (
        "from pathlib import Path; from jettison.core.artifacts import Store, lineage_of\n"
        f"def build(stage):\n    (stage / 'half').touch()\n    {killed}\n"
        f"Store(Path({str(store.root)!r})).once(lineage_of('step', '', parents=(), libraries=()), build)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = store.root.iterdir()
    assert left.name.startswith(".step-")
    (store.root / ".hidden").mkdir()
    made = lineage()

    def sweep_meanwhile(stage: Path) -> None:
        Store(store.root).sweep()
        (stage / "whole").touch()

    folder = store.once(made, sweep_meanwhile)
    assert {path.name for path in store.root.iterdir()} == {folder.name, ".hidden"}
    assert (folder / "whole").exists()


def test_what_is_forgotten_is_built_again(tmp_path: Path) -> None:
    store, built = Store(tmp_path), []
    for _ in range(2):
        store.once(lineage(), built.append)
    assert len(built) == 1
    store.forget(lineage())
    store.forget(lineage(step="never made"))
    store.once(lineage(), built.append)
    assert len(built) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"step": "cast"},
        {"settings": "bits=4"},
        {"parents": ("b", "a")},
        {"parents": ("a",)},
        {"libraries": ("numpy", "onnx")},
    ],
    ids=str,
)
def test_any_other_work_has_another_digest(change: dict[str, object]) -> None:
    assert lineage(**change).digest != lineage().digest


def test_a_new_version_of_a_library_is_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lineage().digest
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.1")
    assert lineage().digest != before


def test_a_module_under_another_distribution_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.32.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]}
    )
    assert version_of("onnxruntime") == "onnxruntime-gpu 1.32.0"
    assert version_of("absent") is None
    assert lineage(libraries=("absent",)).versions["absent"] == "absent"


@pytest.mark.parametrize(
    "other",
    [{"y": np.zeros(4)}, {"x": np.ones(4)}, {"x": np.zeros((2, 2))}, {"x": np.zeros(4, np.float32)}, {}],
    ids=["name", "values", "shape", "dtype", "none"],
)
def test_a_digest_over_arrays_follows_all_of_them(other: dict[str, np.ndarray]) -> None:
    assert arrays_digest({"x": np.zeros(4)}) == arrays_digest({"x": np.zeros(4)}) != arrays_digest(other)


def test_settings_may_be_a_model() -> None:
    assert lineage(settings=Settings()).settings == '{"bits":8}'
    assert lineage(settings=Settings(bits=4)).digest != lineage(settings=Settings()).digest


def test_a_step_runs_once_and_its_lineage_stands_beside_the_result(tmp_path: Path) -> None:
    runs: list[Path] = []

    def build(stage: Path) -> None:
        runs.append(stage)
        (stage / "result").write_text("done")

    store = Store(tmp_path)
    folder = store.once(lineage(), build)
    assert store.once(lineage(), build) == folder == store.folder_of(lineage())
    assert len(runs) == 1
    assert (folder / "result").read_text() == "done"
    written = Lineage.model_validate_json((folder / LINEAGE_FILE).read_bytes())
    assert written.digest == lineage().digest


def test_a_changed_setting_runs_beside_the_old_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.once(lineage(), lambda _: None)
    second = store.once(lineage(settings="bits=4"), lambda _: None)
    assert first != second
    assert {first, second} == set(tmp_path.iterdir())


def _change(folder: Path) -> None:
    (folder / "result").write_text("dona")


def _truncate(folder: Path) -> None:
    (folder / "result").write_text("do")


def _remove(folder: Path) -> None:
    (folder / "result").unlink()


def _add(folder: Path) -> None:
    (folder / "model.onnx.data").write_text("stray")


def _forget(folder: Path) -> None:
    (folder / DIGESTS_FILE).write_text("{")


@pytest.mark.parametrize("harm", [_change, _truncate, _remove, _add, _forget])
def test_a_result_that_was_changed_on_disk_is_made_again(
    harm: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build(stage: Path) -> None:
        (stage / "result").write_text("done")

    folder = Store(tmp_path).once(lineage(), build)
    harm(folder)
    assert Store(tmp_path).once(lineage(), build) == folder
    assert (folder / "result").read_text() == "done"
    assert not (folder / "model.onnx.data").exists()
    assert "was damaged on disk: made again" in caplog.text


def test_a_step_that_failed_runs_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(stage: Path) -> None:
        (stage / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.once(lineage(), fail)
    assert list(tmp_path.iterdir()) == []
    assert store.once(lineage(), lambda _: None).is_dir()


def test_of_two_processes_at_the_same_step_both_get_the_first_result(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def faster(stage: Path) -> None:
        (stage / "result").write_text("first")

    def slower(stage: Path) -> None:
        store.once(lineage(), faster)
        (stage / "result").write_text("second")

    folder = store.once(lineage(), slower)
    assert (folder / "result").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_error_of_the_disk_is_not_taken_for_another_process(tmp_path: Path) -> None:
    def fail(stage: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Store(tmp_path).once(lineage(), fail)
