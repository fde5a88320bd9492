"""L601 by a real server: what does not load is told in the server's words, and wrong answers are found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import served_models as zoo
from releases import release_of

from jettison.pipeline.delivery import publish_file
from jettison.triton.check.check import look_at
from jettison.triton.check.finding import Finding
from jettison.triton.check.loading import load_findings, loadable
from jettison.triton.publish import publish
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer

pytestmark = pytest.mark.server


def loaded(root: Path, installation: Installation) -> tuple[Finding, ...]:
    def serve(folder: Path, options: ServerOptions) -> TritonServer:
        return TritonServer(folder, installation, environment=os.environ, options=options)

    return load_findings(
        look_at(root),
        serve=serve,
        deadline_s=60.0,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    model, _, _ = zoo.affine(2.0)
    for name in ("good", "other"):
        publish_file(zoo.save(model, tmp_path / f"{name}.onnx"), root, name, created=zoo.CREATED)
    return root


def test_what_was_published_loads_and_answers_as_before(root: Path, installation: Installation) -> None:
    before = sorted(root.rglob("*"))
    assert loaded(root, installation) == ()
    assert sorted(root.rglob("*")) == before


def test_models_that_fail_are_told_in_the_server_s_words(
    root: Path, tmp_path: Path, installation: Installation
) -> None:
    (root / "other/1/model.onnx").write_text("no onnx")
    found = loaded(root, installation)
    assert [(finding.code, finding.where) for finding in found] == [("L601", "other/1")]
    assert "UNAVAILABLE" in found[0].message


def test_answers_that_are_not_the_published_ones_are_found(
    root: Path, tmp_path: Path, installation: Installation
) -> None:
    manifest = root / "other/1/manifest.json"
    document = json.loads(manifest.read_text())
    document["golden"]["outputs"][0] |= {"mean": 99.0, "sha256": "0" * 64}
    manifest.write_text(json.dumps(document))
    found = loaded(root, installation)
    assert [(finding.code, finding.where) for finding in found] == [("L601", "other/1")]
    assert "expected mean 99" in found[0].message


def test_models_of_backends_that_are_not_here_are_left_out(root: Path, tmp_path: Path) -> None:
    publish(release_of(tmp_path, name="third"), root)
    config = root / "third/config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "tensorrt"'))
    assert [model.name for model in loadable(look_at(root))] == ["good", "other"]
