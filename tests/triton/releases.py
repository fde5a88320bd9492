"""Small models to publish, and what tritonserver would serve of what was published."""

from __future__ import annotations

from pathlib import Path

import onnx
import served_models as zoo
from served_models import CREATED

from jettison.triton.publish import Release
from jettison.triton.repository import model_folders
from jettison.triton.serving import config_of


def release_of(work: Path, *, name: str = "affine", factor: float = 2.0) -> Release:
    model, inputs, outputs = zoo.affine(factor)
    path = zoo.save(model, work / f"{name}-{factor}.onnx")
    return Release(config_of(name, inputs, outputs), {"model.onnx": path}, CREATED)


def factor_of(folder: Path) -> float:
    return float(onnx.numpy_helper.to_array(onnx.load(folder / "model.onnx").graph.initializer[0])[0])


def servable(root: Path) -> dict[str, list[float]]:
    """What tritonserver would serve, factors by model; asserts that nothing there makes it fail."""
    found: dict[str, list[float]] = {}
    for entry in root.iterdir():
        assert entry.is_dir()
        assert not entry.name.startswith("."), "a hidden folder is a model to Triton"
    for folder in model_folders(root):
        config = folder.config()
        assert config.name == folder.name
        assert config.version_policy is not None
        assert config.version_policy.specific is not None
        assert {path.name for path in folder.path.iterdir() if not path.name.isdigit()} == {"config.pbtxt"}
        found[folder.name] = []
        for version in config.version_policy.specific.versions:
            manifest = folder.manifest(version)
            assert manifest is not None
            assert manifest.changed_files(folder.path / str(version)) == []
            found[folder.name].append(factor_of(folder.path / str(version)))
    return found
