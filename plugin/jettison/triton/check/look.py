"""A repository as it stands on disk, read once for all checks; nothing in it can stop the reading.

Configurations are read by Triton's own message type, whatever they hold: a repository of other tools is
looked at too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jettison.core.errors import JettisonError, RepositoryError
from jettison.core.signing import Verifier
from jettison.core.tensors import TensorSpec
from jettison.graph.model import input_specs, open_model, output_specs
from jettison.triton.manifest import Manifest, read_manifest
from jettison.triton.pbtxt import read_message
from jettison.triton.repository import CONFIG_NAME

MOST_CONFIG_BYTES = 1 << 20
"""A larger config.pbtxt is none."""
DEFAULT_FILES = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "python": "model.py",
    "pytorch": "model.pt",
    "openvino": "model.xml",
    "dali": "model.dali",
    "jettison_router": "router.json",
}
"""What each backend opens where the configuration names no file. Source: the backends' own documentation."""
PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt", "pytorch_libtorch": "pytorch"}
"""The older way to name a backend."""
VERSION = re.compile(r"[1-9]\d*")


class FleetTarget(BaseModel):
    """One kind of machine that serves the repository.

    Args:
        name: What people call it.
        compute: The compute capability of its GPU, as "8.7"; None where it has none.
        version_compatible: Whether its server runs with
            `--backend-config=tensorrt,version-compatible=true`.
        memory_mib: Memory for models, in MiB.
        image: The tag of Triton's image that it runs, as "25.08-py3".
        tensorrt: The version of TensorRT in that image, as "10.13.3".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    compute: str | None = Field(None, pattern=r"^\d{1,2}\.\d$")
    version_compatible: bool = False
    memory_mib: int | None = Field(None, gt=0)
    image: str | None = None
    tensorrt: str | None = Field(None, pattern=r"^\d+(\.\d+)+$")


class Fleet(BaseModel):
    """All kinds of machines that serve the repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[FleetTarget, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """One file that a version's configuration names; `key` is the compute capability, "" for the default."""

    version: int
    path: Path
    key: str


@dataclass(frozen=True)
class ModelLook:
    """One model folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def entries(self) -> tuple[Path, ...]:
        """What stands in the folder, by name."""
        return tuple(sorted(self.path.iterdir()))

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """The versions on disk, lowest first."""
        return tuple(sorted(int(e.name) for e in self.entries if VERSION.fullmatch(e.name) and e.is_dir()))

    @cached_property
    def _read(self) -> tuple[Any, str | None]:
        path = self.path / CONFIG_NAME
        if not path.is_file():
            return None, "expected a config.pbtxt, found none"
        if path.stat().st_size > MOST_CONFIG_BYTES:
            return None, f"expected at most {MOST_CONFIG_BYTES} bytes, found {path.stat().st_size}"
        try:
            return read_message(path.read_text(encoding="utf-8"), CONFIG_NAME), None
        except RepositoryError as error:
            return None, error.detail
        except (OSError, UnicodeDecodeError) as error:
            return None, f"it cannot be read: {error}"

    @property
    def config(self) -> Any:
        """The configuration as Triton's message; None where there is none that can be read."""
        return self._read[0]

    @property
    def problem(self) -> str | None:
        """Why there is no configuration."""
        return self._read[1]

    @property
    def backend(self) -> str:
        """The backend's name, "" for an ensemble or where none is named."""
        if self.config is None:
            return ""
        return str(self.config.backend or PLATFORMS.get(self.config.platform, ""))

    @property
    def is_ensemble(self) -> bool:
        """Whether it only leads from model to model."""
        return self.config is not None and (
            self.config.platform == "ensemble" or self.config.HasField("ensemble_scheduling")
        )

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The versions that the policy names and that are there, lowest first."""
        if self.config is None:
            return self.versions[-1:]
        policy = self.config.version_policy
        chosen = policy.WhichOneof("policy_choice")
        if chosen == "all":
            return self.versions
        if chosen == "specific":
            wanted = set(policy.specific.versions)
            return tuple(version for version in self.versions if version in wanted)
        count = max(1, policy.latest.num_versions) if chosen == "latest" else 1
        return self.versions[-count:]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files that served versions are loaded from, as far as the backend's habits are known."""
        if self.config is None or self.is_ensemble:
            return ()
        name = self.config.default_model_filename or DEFAULT_FILES.get(self.backend, "")
        named = {"": name} if name else {}
        named |= dict(self.config.cc_model_filenames)
        return tuple(
            Artifact(version, self.path / str(version) / file, key)
            for version in self.served
            for key, file in sorted(named.items())
        )

    def manifest(self, version: int) -> Manifest | None:
        """What Jettison recorded of the version; None where it did not write it.

        Raises:
            RepositoryError: The manifest is torn.
        """
        return read_manifest(self.path / str(version))

    @cached_property
    def graphs(self) -> tuple[Graph, ...]:
        """Inputs and outputs of each ONNX file that is served."""
        return tuple(
            _graph(artifact)
            for artifact in self.artifacts
            if self.backend == "onnxruntime" and artifact.path.is_file()
        )


@dataclass(frozen=True)
class Graph:
    """What an ONNX file takes and gives; `problem` says why that is not known."""

    artifact: Artifact
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    problem: str | None = None


def _graph(artifact: Artifact) -> Graph:
    try:
        model = open_model(artifact.path)
        return Graph(artifact, input_specs(model), output_specs(model))
    except JettisonError as error:
        return Graph(artifact, problem=error.detail)


@dataclass(frozen=True)
class Look:
    """One repository, the fleet that serves it, and the key by which all must be signed, if any."""

    root: Path
    fleet: Fleet = field(default_factory=Fleet)
    images: Sequence[str] = ()
    verifier: Verifier | None = None

    @cached_property
    def entries(self) -> tuple[Path, ...]:
        """What stands in the root, by name."""
        return tuple(sorted(self.root.iterdir()))

    @cached_property
    def models(self) -> tuple[ModelLook, ...]:
        """The folders that Triton takes for models and that have a model's name, by name."""
        return tuple(
            ModelLook(entry) for entry in self.entries if entry.is_dir() and not entry.name.startswith(".")
        )

    @cached_property
    def by_name(self) -> dict[str, ModelLook]:
        """The models by their folders' names."""
        return {model.name: model for model in self.models}
