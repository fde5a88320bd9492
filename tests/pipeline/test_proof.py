"""What a run delivers under readable paths: whole models, and only those that it made."""

from __future__ import annotations

import shutil

import onnx
import pytest

from jettison.core.artifacts import LINEAGE_FILE, lineage_of
from jettison.pipeline.proof import clear, deliver
from jettison.pipeline.steps import ModelFile
from zoo.builder import image_net

LINEAGE = lineage_of("given", "", parents=(), libraries=())


@pytest.fixture
def file(tmp_path):
    (tmp_path / "step").mkdir()
    net, x = image_net("small", 8)
    net.head(net.op("Relu", net.conv(x, (8, 8))), 8)
    path = tmp_path / "step" / "model.onnx"
    onnx.save(net.model(), path)
    (path.parent / LINEAGE_FILE).write_text(LINEAGE.model_dump_json())
    return ModelFile(path, "digest", LINEAGE)


def test_a_delivery_replaces_what_an_earlier_one_left(file, tmp_path):
    folder = tmp_path / "out" / "int8"
    folder.mkdir(parents=True)
    (folder / "old.data").write_text("old")
    delivered = deliver(file, folder)
    assert delivered.path.read_bytes() == file.path.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [LINEAGE_FILE, "model.onnx"]


def test_a_delivery_that_breaks_off_leaves_the_old_model_whole(file, tmp_path, monkeypatch):
    folder = tmp_path / "out" / "int8"
    deliver(file, folder)
    (folder / "model.onnx").write_text("the old one")
    copy = shutil.copyfile

    def full(source, target):
        copy(source, target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        deliver(file, folder)
    assert (folder / "model.onnx").read_text() == "the old one"
    assert (folder / LINEAGE_FILE).is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["int8"]


def test_only_folders_that_were_delivered_and_are_not_kept_are_removed(file, tmp_path):
    for name in ("int8", "dynamic", ".int8.stage"):
        deliver(file, tmp_path / "out" / name)
    (tmp_path / "out" / "of the user").mkdir()
    clear(tmp_path / "out", keep=("int8", "baseline"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".int8.stage",
        "int8",
        "of the user",
    ]
    clear(tmp_path / "none", keep=())
