"""What tritonserver reads in a repository, by its rules, without starting it; and models to publish."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jettison.core import dtypes
from jettison.core.tensors import TensorSpec
from jettison.triton.publish import Release
from jettison.triton.repository import CONFIG_NAME, ModelFolder
from jettison.triton.serving import config_of

CREATED = "2026-01-01T00:00:00Z"


class BrokenError(Exception):
    """A repository from which tritonserver would not start, or that serves files that are not whole."""


def release_of(work: Path, name: str, factor: float) -> Release:
    """A release of y = factor x, rows of three."""
    row = dtypes.of_name("float32")
    if row is None:
        raise LookupError("float32")
    ends = [TensorSpec(name=end, dtype=row, shape=("batch", 3)) for end in ("x", "y")]
    path = work / f"{name}-{factor:g}.onnx"
    if not path.is_file():  # written before anything is broken off
        work.mkdir(parents=True, exist_ok=True)
        onnx.save(_model(name, ends, factor), path)
    return Release(config_of(name, ends[:1], ends[1:]), {"model.onnx": path}, CREATED)


def _model(name: str, ends: list[TensorSpec], factor: float) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(end.name, end.dtype.onnx, list(end.shape)) for end in ends]
    constant = numpy_helper.from_array(np.float32([factor]), "factor")
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    graph = helper.make_graph([node], name, infos[:1], infos[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def served(root: Path) -> dict[str, list[float]]:
    """The factors of all versions that would be served, by model and oldest first.

    Raises:
        BrokenError: A rule of Triton's reading is not kept, so that it would not start, or lie.
    """
    found = {}
    for entry in sorted(root.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            raise BrokenError(f"{entry.name!r} in the root: a hidden folder is a model, a file is a stray")
        found[entry.name] = _factors(ModelFolder(entry))
    return found


def _factors(folder: ModelFolder) -> list[float]:
    for path in folder.path.iterdir():
        is_known = path.name == CONFIG_NAME or path.name.startswith(f"{CONFIG_NAME}.before-")
        if not (path.name.isdigit() and path.is_dir()) and not is_known:
            raise BrokenError(f"{path.name!r} in the model folder: every edit would reload all versions")
    config = folder.config()
    policy = config.version_policy
    if config.name != folder.name or policy is None or policy.specific is None:
        raise BrokenError(f"config.pbtxt of {folder.name!r} has another name, or lists no versions")
    return [_factor(folder, version) for version in policy.specific.versions]


def _factor(folder: ModelFolder, version: int) -> float:
    manifest, place = folder.manifest(version), folder.path / str(version)
    if manifest is None or manifest.changed_files(place):
        raise BrokenError(f"version {version} of {folder.name!r} is listed, and is missing or torn")
    constant = onnx.load(place / "model.onnx").graph.initializer[0]
    return float(numpy_helper.to_array(constant)[0])


def state_of(root: Path) -> str:
    """A digest of what stands in the root: names of all, and contents of the configurations."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.name == CONFIG_NAME:
            digest.update(path.read_bytes())
    return digest.hexdigest()
